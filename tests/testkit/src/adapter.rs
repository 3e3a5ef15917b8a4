//! An adapter's process, started as in production: its flags, its files and its log.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::api_client::{ApiClient, Credentials};
use crate::control_plane::{BACKEND_NAMESPACE, BACKEND_SERVICE};
use crate::listener::hold_port;
use crate::pki::{Authority, Identity};

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Lines of the log that an error shows.
const TAIL: usize = 20;
/// Where its certificate and key are, under its directory.
const SERVING_FILES: [&str; 2] = ["etc/karmada/pki/tls.crt", "etc/karmada/pki/tls.key"];
/// What is usual in Karmada's own manifests.
const PRODUCTION: [&str; 10] = [
    "--kubeconfig=/etc/karmada/kubeconfig",
    "--authentication-kubeconfig=/etc/karmada/kubeconfig",
    "--authorization-kubeconfig=/etc/karmada/kubeconfig",
    "--client-ca-file=/etc/karmada/pki/ca.crt",
    "--tls-cert-file=/etc/karmada/pki/tls.crt",
    "--tls-private-key-file=/etc/karmada/pki/tls.key",
    "--audit-log-path=-",
    "--audit-log-maxage=0",
    "--audit-log-maxbackup=0",
    "--tls-min-version=VersionTLS13",
];

/// How to start an adapter.
pub struct Invocation {
    /// The binary.
    pub binary: PathBuf,
    /// Arguments as a Deployment has them. The kubeconfigs, authorities and certificates that they name are made in a
    /// directory of the process, and `$(POD_IP)` is 127.0.0.1.
    pub arguments: Vec<String>,
    /// Whether that directory is all that the process sees, as in an image with nothing in it but the binary.
    pub jailed: bool,
    /// More files, by their paths in that directory.
    pub files: Vec<(String, String)>,
    /// A kubeconfig of the control plane for the adapter's own user.
    pub kubeconfig: PathBuf,
    /// The authority of the control plane's client certificates.
    pub client_ca_pem: String,
    /// Flags after the usual ones.
    pub flags: Vec<String>,
    /// Where its output goes; without it to a file that goes with the process.
    pub log: Option<PathBuf>,
    /// Environment variables beside ours.
    pub environment: Vec<(String, String)>,
}

/// A running adapter; it is killed when dropped, and its files go with it.
pub struct AdapterProcess {
    child: Child,
    address: SocketAddr,
    metrics: SocketAddr,
    authority: Authority,
    ca_pem: String,
    log: PathBuf,
    probe: ApiClient,
    directory: TempDir,
    _ports: Vec<TcpSocket>,
}

impl AdapterProcess {
    /// Starts the binary with its arguments, on free ports of 127.0.0.1.
    ///
    /// # Errors
    /// If its files cannot be written or the binary cannot be run.
    pub fn start(invocation: &Invocation) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("karmada-metrics-adapter-").tempdir()?;
        let authority = Authority::new("karmada-metrics-adapter-ca");
        let service = format!("{BACKEND_SERVICE}.{BACKEND_NAMESPACE}.svc");
        let serving = authority.server(&[&service, "localhost", "127.0.0.1"]);
        let ports = [hold_port(ANY_PORT)?, hold_port(ANY_PORT)?];
        let (address, metrics) = (ports[0].local_addr()?, ports[1].local_addr()?);
        let root = directory.path();
        for (path, content) in &invocation.files {
            write(root, path, content)?;
        }
        let provide = |argument: &String| invocation.provide(argument, root, &serving);
        let mut arguments = invocation.arguments.iter().map(provide).collect::<anyhow::Result<Vec<_>>>()?;
        // Of a flag that is repeated the last value counts.
        arguments.extend([
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", address.port()),
            format!("--metrics-bind-address={metrics}"),
        ]);
        let log = invocation.log.clone().unwrap_or_else(|| directory.path().join("adapter.log"));
        let output = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = invocation
            .command(root)?
            .args(arguments)
            .args(&invocation.flags)
            .envs(invocation.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!(
                    "cannot run {}: build it, or name another with --adapter",
                    invocation.binary.display()
                )
            })?;
        let ca_pem = authority.pem();
        let probe = ApiClient::new(&format!("https://{address}"), &ca_pem, Credentials::None)?;
        // Linux lets the adapter listen on a port that is held here, and gives it to nobody else; others do not, and
        // there the adapter must be quick.
        let ports = if cfg!(target_os = "linux") { ports.into() } else { Vec::new() };
        Ok(Self { child, address, metrics, authority, ca_pem, log, probe, directory, _ports: ports })
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// If the process ends, or is not ready within `limit`; the error shows the end of its log.
    pub async fn ready(&mut self, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            self.check()?;
            let last = match timeout(Duration::from_secs(2), self.probe.get("/readyz")).await {
                Ok(Ok(answer)) if answer.status.is_success() => return Ok(()),
                Ok(Ok(answer)) => format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer".to_owned(),
            };
            if began.elapsed() > limit {
                let seconds = limit.as_secs();
                bail!("the adapter is not ready after {seconds} s (/readyz: {last})\n{}", self.log_tail());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Says whether it still runs.
    ///
    /// # Errors
    /// If it has ended; the error shows the end of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the adapter has ended ({})\n{}", describe(status), self.log_tail()),
        }
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// If its end cannot be waited for.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves its own metrics.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The authority of its serving certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority itself, which signs more of them.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Puts a certificate and a key, in PEM or not, into the files that it serves from.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn replace_serving_files(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        for (path, text) in SERVING_FILES.into_iter().zip([certificate, key]) {
            write(self.directory.path(), path, text)?;
        }
        Ok(())
    }

    /// How much memory it has, in bytes.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn resident_bytes(&self) -> anyhow::Result<usize> {
        self.memory("VmRSS:")
    }

    /// The most memory that it has had so far, in bytes.
    ///
    /// # Errors
    /// If it has ended, or the system does not say.
    pub fn peak_bytes(&self) -> anyhow::Result<usize> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> anyhow::Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id().context("it has ended")?))?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        Ok(kibibytes.context("the system does not say")?.trim().parse::<usize>()? * 1024)
    }

    /// Waits until its output has a line with these words, and returns the line.
    ///
    /// # Errors
    /// If that takes longer than `limit`.
    pub async fn says(&self, words: &str, limit: Duration) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            let text = fs::read(&self.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if let Some(line) = text.lines().find(|line| line.contains(words)) {
                return Ok(line.to_owned());
            }
            if began.elapsed() > limit {
                bail!("no line has {words:?}\n{}", self.log_tail());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its output under a heading.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let mut tail = format!("the end of its log, {}:", self.log.display());
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            let _ = write!(tail, "\n  {line}");
        }
        tail
    }
}

impl Invocation {
    /// The arguments that are usual.
    pub fn production() -> Vec<String> {
        PRODUCTION.map(str::to_owned).into()
    }

    /// Makes the file that an argument names, and returns the argument with its path.
    fn provide(&self, argument: &str, root: &Path, serving: &Identity) -> anyhow::Result<String> {
        let argument = argument.replace("$(POD_IP)", "127.0.0.1");
        let Some((flag, path)) = argument.split_once('=') else { return Ok(argument) };
        let kubeconfig;
        let content = match flag {
            "--kubeconfig" | "--authentication-kubeconfig" | "--authorization-kubeconfig" if self.jailed => {
                kubeconfig = fs::read_to_string(&self.kubeconfig)?;
                &kubeconfig
            }
            // Not a copy: it may change.
            "--kubeconfig" | "--authentication-kubeconfig" | "--authorization-kubeconfig" => {
                return Ok(format!("{flag}={}", self.kubeconfig.display()));
            }
            "--client-ca-file" => &self.client_ca_pem,
            "--tls-cert-file" => &serving.certificate,
            "--tls-private-key-file" => &serving.key,
            _ => return Ok(argument),
        };
        let file = write(root, path, content)?;
        Ok(if self.jailed { argument } else { format!("{flag}={}", file.display()) })
    }

    /// What runs the binary.
    fn command(&self, root: &Path) -> anyhow::Result<Command> {
        if !self.jailed {
            return Ok(Command::new(&self.binary));
        }
        let inside = Path::new("bin/karmada-metrics-adapter");
        fs::create_dir_all(root.join("bin"))?;
        fs::copy(&self.binary, root.join(inside)).with_context(|| self.binary.display().to_string())?;
        let mut command = Command::new("unshare");
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.args(["--user", "--map-root-user", "--wd=/", "--root"]).arg(root);
        command.arg(Path::new("/").join(inside));
        Ok(command)
    }
}

/// Writes a file under a directory, wherever its path begins.
fn write(root: &Path, path: &str, content: &str) -> anyhow::Result<PathBuf> {
    let file = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(file.parent().context("a file is in a directory")?)?;
    fs::write(&file, content)?;
    Ok(file)
}

fn describe(status: ExitStatus) -> String {
    status.code().map_or_else(|| "killed by a signal".to_owned(), |code| format!("exit code {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(binary: &str) -> Invocation {
        Invocation {
            binary: binary.into(),
            arguments: Invocation::production(),
            jailed: false,
            files: Vec::new(),
            kubeconfig: "/nowhere/kubeconfig".into(),
            client_ca_pem: Authority::new("client-ca").pem(),
            flags: Vec::new(),
            log: None,
            environment: Vec::new(),
        }
    }

    #[tokio::test]
    async fn an_adapter_that_ends_is_an_error_with_its_log() {
        // `echo` prints the flags and ends, as an adapter does that does not like them.
        let mut adapter = AdapterProcess::start(&invocation("echo")).unwrap();
        let error = adapter.ready(Duration::from_secs(30)).await.unwrap_err().to_string();
        assert!(error.starts_with("the adapter has ended (exit code 0)\nthe end of its log, "), "{error}");
        assert!(error.contains("  --kubeconfig=/nowhere/kubeconfig "), "{error}");
    }

    #[tokio::test]
    async fn a_binary_that_is_not_there_is_an_error_that_names_it() {
        let error = AdapterProcess::start(&invocation("/nowhere/adapter")).err().unwrap().to_string();
        assert_eq!(error, "cannot run /nowhere/adapter: build it, or name another with --adapter");
    }
}
