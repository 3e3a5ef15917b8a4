//! One program that runs beside the tests: its log, its freezes and its end.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// What starts a program and becomes it, so that it ends with the thread that has started it, also where that is killed. Ours is
/// the main one, on which the tests run.
pub const BINDER: &str = "setpriv";
/// How it is told to.
pub const BINDING: &str = "--pdeathsig=KILL";
/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of its log that an error shows.
const TAIL: usize = 15;

/// A program with its arguments, and the process while there is one. It is killed when dropped.
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts a program whose output goes to `<name>.log` in the folder of the logs.
    ///
    /// # Errors
    /// If the log cannot be written or the program not be run.
    pub fn start<A: Into<OsString>>(
        name: impl Into<String>,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let name = name.into();
        let log = logs.join(format!("{name}.log"));
        let arguments = arguments.into_iter().map(Into::into).collect();
        let mut process = Self { name, program: program.to_owned(), arguments, log, child: None };
        process.start_again()?;
        Ok(process)
    }

    /// Starts it once more, after it has ended; its log goes on.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let child = Command::new(BINDER)
            .arg(BINDING)
            .arg(&self.program)
            .args(&self.arguments)
            // Ctrl-C is for us: programs end in our order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stops it where it stands: its connections stay open and nothing answers on them.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it, without notice.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end and waits until it has; what has not ended after 10 s is killed, as a kubelet does.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let child = self.child.as_mut().context("it does not run")?;
        let began = Instant::now();
        while child.try_wait()?.is_none() && began.elapsed() < GRACE {
            sleep(LOOK).await;
        }
        self.kill();
        Ok(())
    }

    /// Lets it run, whatever was done to it, or what it has done itself.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        let runs = match &mut self.child {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        };
        if runs { self.thaw() } else { self.start_again() }
    }

    /// Says whether it still runs.
    ///
    /// # Errors
    /// If it has ended by itself; the error shows the end of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended ({status})\n{}", self.name, self.tail()),
        }
    }

    /// How many lines of its log have all these words.
    pub fn says(&self, words: &[&str]) -> usize {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// The last lines of its log under a heading.
    pub fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(TAIL)..].join("\n  ");
        format!("the end of its log, {}:\n  {last}", self.log.display())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?;
        kill_process(Pid::from_child(child), signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
