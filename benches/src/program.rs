//! The programs that are measured: each a process with a connection of the load to it.

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

/// Lifts the client-side limit of requests a second that the reference has for each member and for the control plane.
const REFERENCE_FLAGS: [&str; 4] = [
    "--cluster-api-qps=100000",
    "--cluster-api-burst=100000",
    "--kube-api-qps=100000",
    "--kube-api-burst=100000",
];

/// With 64 clients on 1,000 members an answer takes longer than the default, and so does the answer to a ping: the members
/// share the cores with the program. 64 such queries at once also hold more memory than the default allows; the default
/// would answer some of them with 429.
const ADAPTER_FLAGS: [&str; 2] = ["--member-timeout=30s", "--inflight-bytes=4294967296"];

/// Which program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The floor ([`crate::floor`]).
    Floor,
    /// The adapter that is measured.
    Adapter,
    /// Another build of the adapter, to compare it with.
    Baseline,
    /// Karmada's adapter.
    Reference,
}

/// The binary of a program.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Which program it is.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// The directory for its log.
    pub logs: PathBuf,
}

/// A running program; it is killed when dropped.
pub struct Program {
    /// Which program it is.
    pub kind: Kind,
    /// The file with its output.
    pub log: PathBuf,
    front_proxy: Identity,
    process: Process,
}

/// A process that serves, and what goes with it.
struct Process {
    pid: u32,
    address: SocketAddr,
    ca_pem: String,
    /// The process itself, its port and its files, which end and go when dropped.
    _resources: Box<dyn Send + Sync>,
}

impl Kind {
    /// How the `User-Agent` of its requests to members begins.
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
    /// Starts a program on a fleet. The floor answers `documents` (path and body) by itself.
    ///
    /// # Errors
    /// If it cannot be run.
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

    /// A connection to it.
    ///
    /// # Errors
    /// If it does not listen, or shows another certificate.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.process.address, &self.process.ca_pem, &self.front_proxy).await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// The CPU time that it has used so far, all its threads together.
    ///
    /// # Errors
    /// If it has ended.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let pid = Pid::from_raw(i32::try_from(self.process.pid)?);
        let clock = ClockId::pid_cpu_clock_id(pid).context("the program has ended")?;
        Ok(Duration::from(clock.now()?))
    }

    /// Its resident memory now and at most since [`Program::reset_peak`], in bytes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let file = format!("/proc/{}/status", self.process.pid);
        let status = std::fs::read_to_string(&file).context(file)?;
        let bytes = |name: &str| {
            let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
            anyhow::Ok(kibibytes.context("the process has ended")?.trim().parse::<u64>()? * 1024)
        };
        Ok((bytes("VmRSS:")?, bytes("VmHWM:")?))
    }

    /// Lets the peak of resident memory begin anew.
    ///
    /// # Errors
    /// If it has ended, or the kernel does not allow it.
    pub fn reset_peak(&self) -> anyhow::Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.pid), "5")
            .context("the peak cannot be reset")
    }
}

fn start_adapter(binary: &Path, fleet: &Fleet, log: &Path, flags: &[&str]) -> anyhow::Result<Process> {
    let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    let adapter = fleet.kit.run_adapter(binary, &flags, Some(log.to_owned()))?;
    Ok(Process {
        pid: adapter.id().context("it has ended")?,
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
        pid: child.id().context("the floor has ended")?,
        address,
        ca_pem: ca.pem(),
        _resources: Box::new((child, port, directory)),
    })
}
