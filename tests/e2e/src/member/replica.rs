//! A replica of the sample application as a separate process, so that it has its own CPU and memory usage.

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

/// The argument with which this program runs as a replica.
pub const ARGUMENT: &str = "replica";

/// A running replica. It stops when it is dropped or when this program ends.
pub struct Replica {
    process: u32,
    address: SocketAddr,
    _stdin: ChildStdin,
    _child: Child,
}

/// Resource usage of a replica.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time since the start.
    pub cpu: Duration,
    /// Current memory in bytes.
    pub memory: u64,
}

impl Replica {
    /// Starts a replica on a free port of 127.0.0.1.
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
        let stdin = child.stdin.take().context("stdin is not a pipe")?;
        let mut stdout = BufReader::new(child.stdout.take().context("stdout is not a pipe")?);
        let mut line = String::new();
        stdout.read_line(&mut line).await?;
        let address = line.trim().parse().context("a replica did not print its address")?;
        let process = child.id().context("a replica has exited")?;
        Ok(Self { process, address, _stdin: stdin, _child: child })
    }

    /// The address that the replica listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resource usage as reported by the kernel. Zero after the replica has exited.
    pub fn usage(&self) -> Usage {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.process)).unwrap_or_default();
        // After the program name, which ends with a bracket, fields 12 and 13 are the CPU time in user and in system mode.
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

/// Serves until stdin is closed by the parent process or its end.
///
/// # Errors
/// If no port can be bound.
pub async fn serve() -> anyhow::Result<()> {
    let replica = app::Replica::start().await?;
    println!("{}", replica.address());
    spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    Ok(())
}
