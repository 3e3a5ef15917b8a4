//! The real kubectl, new and old, where it is installed.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

/// The environment variable that names the binary of an old one.
const OLD: &str = "KUBECTL_OLD";
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A kubectl and a kubeconfig. It prints as `kubectl v1.20.2`.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    version: String,
    kubeconfig: PathBuf,
}

/// Every kubectl that there is, with this kubeconfig: the one on PATH, and an older one that the environment variable
/// `KUBECTL_OLD` names. None where none is installed, so that nobody needs it for the rest of the tests.
///
/// # Panics
/// If there is none on PATH and the environment variable `CI` is set: there nothing may be left out in silence. If one
/// cannot say its version.
pub fn kubectls(kubeconfig: &Path) -> Vec<Kubectl> {
    let on_path = is_installed().then(|| PathBuf::from("kubectl"));
    assert!(
        on_path.is_some() || env::var_os("CI").is_none(),
        "kubectl is not on PATH: install it, or unset CI to leave its tests out"
    );
    if on_path.is_none() {
        eprintln!("kubectl is not on PATH: what it makes of the answers is not tested");
    }
    let old = env::var_os(OLD).map(PathBuf::from);
    on_path.into_iter().chain(old).map(|binary| Kubectl::new(binary, kubeconfig)).collect()
}

/// What `kubectl kustomize` makes of a directory: YAML. `None` where kubectl is not installed.
///
/// # Errors
/// If it fails, with what it says.
///
/// # Panics
/// If it is not installed and the environment variable `CI` is set.
pub async fn kustomize(directory: &Path) -> anyhow::Result<Option<String>> {
    if !is_installed() {
        assert!(env::var_os("CI").is_none(), "kubectl is not on PATH: install it, or unset CI");
        return Ok(None);
    }
    let mut command = Command::new("kubectl");
    let (printed, _) = output_of(command.arg("kustomize").arg(directory)).await?;
    Ok(Some(printed))
}

/// Whether kubectl is on PATH.
pub(crate) fn is_installed() -> bool {
    on_path("kubectl").is_some()
}

/// Where a program is that is on PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

impl Kubectl {
    fn new(binary: PathBuf, kubeconfig: &Path) -> Self {
        let version = client_version(&binary);
        let version = version.unwrap_or_else(|error| {
            panic!("{} does not say its version, correct PATH or {OLD}: {error:#}", binary.display())
        });
        Self { binary, version, kubeconfig: kubeconfig.to_owned() }
    }

    /// Its minor version, `20` of v1.20.2.
    pub fn minor(&self) -> u32 {
        let minor = self.version.split('.').nth(1).and_then(|minor| minor.parse().ok());
        minor.expect("kubectl's versions are semantic ones")
    }

    /// Runs it to its end and returns what it prints. What it remembers stands beside the kubeconfig.
    ///
    /// # Errors
    /// If it cannot be run, fails, or takes longer than a minute; with what it says.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(self.run_and_listen(arguments).await?.0)
    }

    /// The same, and what it says beside that: the warnings of servers.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub async fn run_and_listen(&self, arguments: &[&str]) -> anyhow::Result<(String, String)> {
        let home = self.kubeconfig.parent().context("the kubeconfig is in no directory")?;
        let mut command = Command::new(&self.binary);
        // Each has a home of its own: one would read what another of them has kept of discovery.
        command
            .env("HOME", home.join(&self.version))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments);
        output_of(&mut command).await.with_context(|| format!("{self} {}", arguments.join(" ")))
    }
}

/// What `version --client` says: v1.20.2.
fn client_version(binary: &Path) -> anyhow::Result<String> {
    let mut command = process::Command::new(binary);
    let output = command.args(["version", "--client", "--output=json"]).stdin(Stdio::null()).output()?;
    let version: Value = serde_json::from_slice(&output.stdout)?;
    let version = version["clientVersion"]["gitVersion"].as_str().context("no clientVersion")?;
    Ok(version.to_owned())
}

impl fmt::Display for Kubectl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "kubectl {}", self.version)
    }
}

/// Runs a command to its end and returns its stdout and its stderr.
///
/// # Errors
/// As [`Kubectl::run`].
pub(crate) async fn output_of(command: &mut Command) -> anyhow::Result<(String, String)> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT, output).await.context("it took too long")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let complaints = text(&output.stderr);
    ensure!(output.status.success(), "{}", complaints.trim());
    Ok((text(&output.stdout), complaints))
}
