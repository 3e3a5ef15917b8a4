//! A replica of the sample application as a process of its own, so that it has CPU and memory of its own.

use std::env;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use rustix::param::clock_ticks_per_second;
use testkit::app;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::spawn_blocking;

/// The argument by which this program becomes a replica.
pub const ARGUMENT: &str = "replica";

/// A running replica; it ends when dropped, or when we do.
pub struct Replica {
    process: u32,
    address: SocketAddr,
    _stdin: ChildStdin,
    _child: Child,
}

/// What a replica has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU since it began.
    pub cpu: Duration,
    /// Memory now, in bytes.
    pub memory: u64,
}

impl Replica {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(ARGUMENT)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a replica")?;
        let stdin = child.stdin.take().context("its stdin is a pipe")?;
        let mut stdout = BufReader::new(child.stdout.take().context("its stdout is a pipe")?);
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        let address = line.trim().parse().context("a replica did not say where it serves")?;
        let process = child.id().context("a replica has ended")?;
        Ok(Self { process, address, _stdin: stdin, _child: child })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has used, as the kernel says; nothing once it has ended.
    pub fn usage(&self) -> Usage {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.process)).unwrap_or_default();
        // After the name of the program, which ends with a bracket, the 12th and 13th are time in user and in system mode.
        let stat = read("stat");
        let numbers = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        let ticks: u64 = numbers.filter_map(|number| number.parse::<u64>().ok()).sum();
        let cpu = Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64);
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        let kibibytes: u64 = resident.and_then(|number| number.trim().parse().ok()).unwrap_or_default();
        Usage { cpu, memory: kibibytes * 1024 }
    }
}

/// Serves until stdin is closed: by whoever started it, or by their end.
///
/// # Errors
/// If no port can be bound.
pub async fn serve() -> anyhow::Result<()> {
    let replica = app::Replica::start().await?;
    println!("{}", replica.address());
    spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(())
}
