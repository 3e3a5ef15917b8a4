//! A program that runs during the tests: its log, freezes and exit.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// The program that starts another program and then becomes it. The kernel kills the process when the thread that started it
/// ends, also if that thread is killed. Here that is the main thread, which runs the tests.
pub const BINDER: &str = "setpriv";
/// The option of that program.
pub const BINDING: &str = "--pdeathsig=KILL";
/// How long a program may take to exit after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// Interval of checks for its exit.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of its log in an error.
const TAIL: usize = 15;

/// A program with its arguments, and its process while it runs. Drop kills it.
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts a program. Its output goes to `<name>.log` in the directory of the logs.
    ///
    /// # Errors
    /// If the log cannot be written or the program cannot be run.
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

    /// Starts the program again after it has exited. Its log is continued.
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
            // Ctrl-C reaches only this program, which stops the others in its own order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The name of the program.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stops the process with SIGSTOP: its connections stay open without any response.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes a frozen process.
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills the process without warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends SIGTERM and waits until the process has exited. Kills it after 10 s, as a kubelet does.
    ///
    /// # Errors
    /// If it does not run.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let child = self.child.as_mut().context("the program does not run")?;
        let began = Instant::now();
        while child.try_wait()?.is_none() && began.elapsed() < GRACE {
            sleep(LOOK).await;
        }
        self.kill();
        Ok(())
    }

    /// Makes the program run again after a freeze, a kill or its own exit.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn ensure_running(&mut self) -> anyhow::Result<()> {
        let runs = match &mut self.child {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        };
        if runs { self.thaw() } else { self.start_again() }
    }

    /// Checks that the program still runs.
    ///
    /// # Errors
    /// If it has exited unexpectedly; the error has the end of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has exited ({status})\n{}", self.name, self.tail()),
        }
    }

    /// The number of lines in its log that contain all these words.
    pub fn count_log_lines(&self, words: &[&str]) -> usize {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// The last lines of its log, with a heading.
    pub fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(TAIL)..].join("\n  ");
        format!("end of its log, {}:\n  {last}", self.log.display())
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
