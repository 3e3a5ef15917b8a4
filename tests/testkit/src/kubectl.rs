//! The real kubectl, current and old versions, if it is installed.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

/// Environment variable with the path of an old kubectl.
const OLD: &str = "KUBECTL_OLD";
/// Time limit of one command.
const LIMIT: Duration = Duration::from_secs(60);

/// A kubectl binary with a kubeconfig. `Display` prints `kubectl v1.20.2`.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    version: String,
    kubeconfig: PathBuf,
}

/// The installed kubectls, with this kubeconfig: the one on PATH, and the older one that the environment variable `KUBECTL_OLD`
/// names. Empty if none is installed: the other tests run without kubectl.
///
/// # Panics
/// If kubectl is not on PATH and the environment variable `CI` is set: CI must not skip tests silently. If a kubectl does not
/// print its version.
pub fn kubectls(kubeconfig: &Path) -> Vec<Kubectl> {
    let on_path = is_installed().then(|| PathBuf::from("kubectl"));
    assert!(
        on_path.is_some() || env::var_os("CI").is_none(),
        "kubectl is not on PATH: install it, or unset CI to skip its tests"
    );
    if on_path.is_none() {
        eprintln!("kubectl is not on PATH: its tests are skipped");
    }
    let old = env::var_os(OLD).map(PathBuf::from);
    on_path.into_iter().chain(old).map(|binary| Kubectl::new(binary, kubeconfig)).collect()
}

/// The YAML that `kubectl kustomize` prints for a directory. `None` if kubectl is not installed.
///
/// # Errors
/// If kubectl fails; the error has its stderr.
///
/// # Panics
/// If kubectl is not installed and the environment variable `CI` is set.
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

/// The path of a program that is on PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

impl Kubectl {
    fn new(binary: PathBuf, kubeconfig: &Path) -> Self {
        let version = client_version(&binary);
        let version = version.unwrap_or_else(|error| {
            panic!("{} does not print its version, correct PATH or {OLD}: {error:#}", binary.display())
        });
        Self { binary, version, kubeconfig: kubeconfig.to_owned() }
    }

    /// The minor version, `20` of v1.20.2.
    pub fn minor(&self) -> u32 {
        let minor = self.version.split('.').nth(1).and_then(|minor| minor.parse().ok());
        minor.expect("kubectl has a semantic version")
    }

    /// Runs kubectl until it exits and returns its stdout. The caches of kubectl are next to the kubeconfig.
    ///
    /// # Errors
    /// If kubectl cannot be run, fails, or takes longer than one minute; the error has its stderr.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(self.run_with_stderr(arguments).await?.0)
    }

    /// Like [`Kubectl::run`], but also returns stderr, which has the warnings of servers.
    ///
    /// # Errors
    /// As [`Kubectl::run`].
    pub async fn run_with_stderr(&self, arguments: &[&str]) -> anyhow::Result<(String, String)> {
        let home = self.kubeconfig.parent().context("the kubeconfig has no parent directory")?;
        let mut command = Command::new(&self.binary);
        // Each version has its own home, so that it does not read the discovery cache of another version.
        command
            .env("HOME", home.join(&self.version))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments);
        output_of(&mut command).await.with_context(|| format!("{self} {}", arguments.join(" ")))
    }
}

/// The version that `version --client` prints: v1.20.2.
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

/// Runs a command until it exits and returns its stdout and stderr.
///
/// # Errors
/// As [`Kubectl::run`].
pub(crate) async fn output_of(command: &mut Command) -> anyhow::Result<(String, String)> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(LIMIT, output).await.context("the command took longer than the time limit")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let errors = text(&output.stderr);
    ensure!(output.status.success(), "{}", errors.trim());
    Ok((text(&output.stdout), errors))
}
