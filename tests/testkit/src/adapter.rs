//! The process of an adapter, started as in production: flags, files and log.

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
/// Lines of the log in an error.
const TAIL: usize = 20;
/// The serving certificate and key, relative to the directory of the process.
const SERVING_FILES: [&str; 2] = ["etc/karmada/pki/tls.crt", "etc/karmada/pki/tls.key"];
/// The flags in Karmada's own manifests.
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
    /// Arguments as in a Deployment. The kit creates the kubeconfigs, CAs and certificates that they name in the directory of
    /// the process. `$(POD_IP)` is 127.0.0.1.
    pub arguments: Vec<String>,
    /// Whether the process sees only its own directory, as in an image that contains only the binary.
    pub jailed: bool,
    /// Further files, by their path in that directory.
    pub files: Vec<(String, String)>,
    /// A kubeconfig of the control plane for the user of the adapter.
    pub kubeconfig: PathBuf,
    /// The CA of the control plane's client certificates.
    pub client_ca_pem: String,
    /// Flags after the usual ones.
    pub flags: Vec<String>,
    /// File for the output. `None`: a temporary file that is deleted with the process.
    pub log: Option<PathBuf>,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
}

/// A running adapter. Drop kills it and deletes its files.
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
        // If a flag is repeated, its last value wins.
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
        // On Linux the adapter can listen on a port that is held here, and no other process gets the port. Other systems do not
        // allow this: there the port is free until the adapter listens.
        let ports = if cfg!(target_os = "linux") { ports.into() } else { Vec::new() };
        Ok(Self { child, address, metrics, authority, ca_pem, log, probe, directory, _ports: ports })
    }

    /// Waits until `/readyz` responds with 200.
    ///
    /// # Errors
    /// If the process exits, or is not ready within `limit`; the error has the end of its log.
    pub async fn ready(&mut self, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            self.check()?;
            let last = match timeout(Duration::from_secs(2), self.probe.get("/readyz")).await {
                Ok(Ok(answer)) if answer.status.is_success() => return Ok(()),
                Ok(Ok(answer)) => format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no response".to_owned(),
            };
            if began.elapsed() > limit {
                let seconds = limit.as_secs();
                bail!("the adapter is not ready after {seconds} s (/readyz: {last})\n{}", self.log_tail());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Checks that the process still runs.
    ///
    /// # Errors
    /// If the process has exited; the error has the end of its log.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the adapter has exited ({})\n{}", describe(status), self.log_tail()),
        }
    }

    /// Waits until the process exits.
    ///
    /// # Errors
    /// If the exit status cannot be read.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Kills the process and waits until it has exited, so that its port refuses connections.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        Ok(self.child.kill().await?)
    }

    /// The address of the API.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the adapter's own metrics.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The CA of the serving certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The CA with its key, to sign further certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Writes a certificate and a key into the files that the adapter serves from. They need not be valid PEM.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn replace_serving_files(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        for (path, text) in SERVING_FILES.into_iter().zip([certificate, key]) {
            write(self.directory.path(), path, text)?;
        }
        Ok(())
    }

    /// Resident memory of the process in bytes.
    ///
    /// # Errors
    /// If the process has exited, or the system does not report its memory.
    pub fn resident_bytes(&self) -> anyhow::Result<usize> {
        self.memory("VmRSS:")
    }

    /// Peak resident memory of the process in bytes.
    ///
    /// # Errors
    /// If the process has exited, or the system does not report its memory.
    pub fn peak_bytes(&self) -> anyhow::Result<usize> {
        self.memory("VmHWM:")
    }

    fn memory(&self, name: &str) -> anyhow::Result<usize> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.id().context("the adapter has exited")?))?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        Ok(kibibytes.context("the system does not report memory")?.trim().parse::<usize>()? * 1024)
    }

    /// Waits until a line of the output contains `words`, and returns the line.
    ///
    /// # Errors
    /// If there is no such line within `limit`.
    pub async fn wait_for_log_line(&self, words: &str, limit: Duration) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            let text = fs::read(&self.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if let Some(line) = text.lines().find(|line| line.contains(words)) {
                return Ok(line.to_owned());
            }
            if began.elapsed() > limit {
                bail!("no line contains {words:?}\n{}", self.log_tail());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The process id, while the process runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The file with the output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the output, with a heading.
    pub fn log_tail(&self) -> String {
        // A device such as /dev/full has no end.
        let text = if self.log.is_file() { fs::read(&self.log).unwrap_or_default() } else { Vec::new() };
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let mut tail = format!("end of its log, {}:", self.log.display());
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            let _ = write!(tail, "\n  {line}");
        }
        tail
    }
}

impl Invocation {
    /// The usual arguments.
    pub fn production() -> Vec<String> {
        PRODUCTION.map(str::to_owned).into()
    }

    /// Creates the file that an argument names, and returns the argument with the file's path.
    fn provide(&self, argument: &str, root: &Path, serving: &Identity) -> anyhow::Result<String> {
        let argument = argument.replace("$(POD_IP)", "127.0.0.1");
        let Some((flag, path)) = argument.split_once('=') else { return Ok(argument) };
        let kubeconfig;
        let content = match flag {
            "--kubeconfig" | "--authentication-kubeconfig" | "--authorization-kubeconfig" if self.jailed => {
                kubeconfig = fs::read_to_string(&self.kubeconfig)?;
                &kubeconfig
            }
            // A link instead of a copy: the file may change.
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

    /// The command that runs the binary, in a jail if the invocation is `jailed`.
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

/// Writes a file below `root`, also for an absolute path.
fn write(root: &Path, path: &str, content: &str) -> anyhow::Result<PathBuf> {
    let file = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(file.parent().context("the file has no parent directory")?)?;
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
    async fn exit_of_the_adapter_is_an_error_with_its_log() {
        // `echo` prints the flags and exits, like an adapter that rejects its flags.
        let mut adapter = AdapterProcess::start(&invocation("echo")).unwrap();
        let error = adapter.ready(Duration::from_secs(30)).await.unwrap_err().to_string();
        assert!(error.starts_with("the adapter has exited (exit code 0)\nend of its log, "), "{error}");
        assert!(error.contains("  --kubeconfig=/nowhere/kubeconfig "), "{error}");
    }

    #[tokio::test]
    async fn missing_binary_is_an_error_with_its_path() {
        let error = AdapterProcess::start(&invocation("/nowhere/adapter")).err().unwrap().to_string();
        assert_eq!(error, "cannot run /nowhere/adapter: build it, or name another with --adapter");
    }
}
