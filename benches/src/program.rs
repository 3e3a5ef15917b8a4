//! The measured programs: each is a process with a connection for the load.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::time::ClockId;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use testkit::hold_port;
use testkit::pki::{Authority, Identity};
use tokio::process::Command;

use crate::fleet::Fleet;
use crate::floor::{self, Config, Upstream};
use crate::load::Connection;

/// Disables the reference's client-side rate limits for each member and for the control plane.
const REFERENCE_FLAGS: [&str; 4] = [
    "--cluster-api-qps=100000",
    "--cluster-api-burst=100000",
    "--kube-api-qps=100000",
    "--kube-api-burst=100000",
];

/// With 64 clients and 1,000 members a response takes longer than the default timeout, and so does the response to a ping: the
/// members share the CPU with the program. 64 such queries at the same time also need more memory than the default allows; with
/// the default, some of them would get 429.
const ADAPTER_FLAGS: [&str; 2] = ["--member-timeout=30s", "--inflight-bytes=4294967296"];

/// Kind of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The floor ([`crate::floor`]).
    Floor,
    /// The measured adapter.
    Adapter,
    /// Another build of the adapter, for comparison.
    Baseline,
    /// Karmada's adapter.
    Reference,
}

/// The binary of a program.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The kind of the program.
    pub kind: Kind,
    /// Its path.
    pub path: PathBuf,
    /// The directory for its log.
    pub logs: PathBuf,
}

/// A running program. Drop kills it.
pub struct Program {
    /// The kind of the program.
    pub kind: Kind,
    /// The file with its output.
    pub log: PathBuf,
    front_proxy: Identity,
    process: Process,
}

/// A process that serves, and its resources.
struct Process {
    pid: u32,
    address: SocketAddr,
    ca_pem: String,
    /// The process, its port and its files. Drop releases them.
    _resources: Box<dyn Send + Sync>,
}

impl Kind {
    /// The prefix of the `User-Agent` in its requests to members.
    pub fn user_agent(self) -> &'static str {
        match self {
            Self::Floor => floor::USER_AGENT,
            Self::Adapter | Self::Baseline => "karmada-metrics-adapter/",
            Self::Reference => "metrics-adapter/",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Floor => "floor",
            Self::Adapter => "adapter",
            Self::Baseline => "baseline",
            Self::Reference => "reference",
        })
    }
}

impl Program {
    /// Starts a program on a fleet. The floor responds with `documents` (path and body) itself.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn start(binary: &Binary, fleet: &Fleet, documents: &[(String, String)]) -> anyhow::Result<Self> {
        let Binary { kind, ref path, ref logs } = *binary;
        let log = logs.join(format!("{kind}.log"));
        let process = match kind {
            Kind::Floor => start_floor(path, fleet, &log, documents)?,
            Kind::Adapter | Kind::Baseline => start_adapter(path, fleet, &log, &ADAPTER_FLAGS)?,
            Kind::Reference => start_adapter(path, fleet, &log, &REFERENCE_FLAGS)?,
        };
        Ok(Self { kind, log, front_proxy: fleet.kit.plane.front_proxy_identity(), process })
    }

    /// Opens a connection to the program.
    ///
    /// # Errors
    /// If it does not listen, or presents another certificate.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.process.address, &self.process.ca_pem, &self.front_proxy).await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// The CPU time of all threads so far.
    ///
    /// # Errors
    /// If the program has exited.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let pid = Pid::from_raw(i32::try_from(self.process.pid)?);
        let clock = ClockId::pid_cpu_clock_id(pid).context("the program has exited")?;
        Ok(Duration::from(clock.now()?))
    }

    /// Current resident memory, and its peak since [`Program::reset_peak`], in bytes.
    ///
    /// # Errors
    /// If the program has exited.
    pub fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let file = format!("/proc/{}/status", self.process.pid);
        let status = std::fs::read_to_string(&file).context(file)?;
        let bytes = |name: &str| {
            let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
            anyhow::Ok(kibibytes.context("the process has exited")?.trim().parse::<u64>()? * 1024)
        };
        Ok((bytes("VmRSS:")?, bytes("VmHWM:")?))
    }

    /// Resets the peak of resident memory.
    ///
    /// # Errors
    /// If the program has exited, or the kernel does not allow it.
    pub fn reset_peak(&self) -> anyhow::Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.pid), "5").context("cannot reset the peak")
    }
}

fn start_adapter(binary: &Path, fleet: &Fleet, log: &Path, flags: &[&str]) -> anyhow::Result<Process> {
    let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    let adapter = fleet.kit.run_adapter(binary, &flags, Some(log.to_owned()))?;
    Ok(Process {
        pid: adapter.id().context("the adapter has exited")?,
        address: adapter.address(),
        ca_pem: adapter.ca_pem().to_owned(),
        _resources: Box::new(adapter),
    })
}

fn start_floor(
    binary: &Path,
    fleet: &Fleet,
    log: &Path,
    documents: &[(String, String)],
) -> anyhow::Result<Process> {
    let directory = tempfile::tempdir()?;
    let ca = Authority::new("floor-ca");
    let serving = ca.server(&["127.0.0.1"]);
    let members = fleet.kit.members.iter().map(|member| {
        let access = member.access();
        Upstream { endpoint: access.endpoint, ca: access.ca_pem, token: access.token }
    });
    let config = Config {
        certificate: serving.certificate,
        key: serving.key,
        members: members.collect(),
        documents: documents.to_vec(),
    };
    let file = directory.path().join("floor.json");
    std::fs::write(&file, serde_json::to_vec(&config)?)?;
    let port = hold_port(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = port.local_addr()?;
    let child = Command::new(binary)
        .arg(&file)
        .arg(address.port().to_string())
        .stdin(Stdio::null())
        .stderr(File::create(log).with_context(|| log.display().to_string())?)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    Ok(Process {
        pid: child.id().context("the floor has exited")?,
        address,
        ca_pem: ca.pem(),
        _resources: Box::new((child, port, directory)),
    })
}
