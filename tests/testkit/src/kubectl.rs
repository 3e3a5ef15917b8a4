//! The real kubectl, where it is installed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use tokio::time::timeout;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

/// kubectl and a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
}

/// kubectl with this kubeconfig; none where it is not installed, so that nobody needs it for the rest of the tests.
///
/// # Panics
/// If it is not installed and the environment variable `CI` is set: there nothing may be left out in silence.
pub fn kubectl(kubeconfig: &Path) -> Option<Kubectl> {
    if is_installed() {
        return Some(Kubectl { kubeconfig: kubeconfig.to_owned() });
    }
    assert!(
        env::var_os("CI").is_none(),
        "kubectl is not on PATH: install it, or unset CI to leave its tests out"
    );
    eprintln!("kubectl is not on PATH: what it makes of the answers is not tested");
    None
}

/// Whether kubectl is on PATH.
pub(crate) fn is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join("kubectl").is_file())
}

impl Kubectl {
    /// Runs it to its end and returns what it prints. What it remembers stands beside the kubeconfig.
    ///
    /// # Errors
    /// If it cannot be run, fails, or takes longer than a minute; with what it says.
    pub async fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let home = self.kubeconfig.parent().context("the kubeconfig is in no directory")?;
        let mut command = Command::new("kubectl");
        command.env("HOME", home).arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        let (printed, _) =
            output_of(&mut command).await.with_context(|| format!("kubectl {}", arguments.join(" ")))?;
        Ok(printed)
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
