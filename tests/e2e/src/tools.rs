//! The other programs of the tests: where to find them, and what to install if one is missing.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use testkit::{kubectls, on_path};
use tokio::process::{Child, Command};
use tokio::time::interval;

use crate::process::BINDER;
use crate::say;

/// Environment variable with a directory of ready-made binaries, as setup-envtest downloads them.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Environment variable with the path of a prometheus-adapter binary.
const PROMETHEUS_ADAPTER: &str = "PROMETHEUS_ADAPTER";
/// Environment variable with the path of a karmada-controller-manager binary.
const KARMADA_CONTROLLER_MANAGER: &str = "KARMADA_CONTROLLER_MANAGER";
/// The Kubernetes packages that Go builds.
const KUBE_APISERVER: &str = "k8s.io/kubernetes/cmd/kube-apiserver";
const KUBE_CONTROLLER_MANAGER: &str = "k8s.io/kubernetes/cmd/kube-controller-manager";
/// The Go module with the pinned versions.
const KUBERNETES: &str = ".";
/// The Go module and the package of the test adapter for members. Its libraries are newer than those of the Kubernetes module.
const MEMBER_ADAPTER: &str = "member-adapter";
const MEMBER_ADAPTER_PACKAGE: &str = "karmada-metrics-adapter/tests/e2e/member-adapter";
/// The first kubectl minor version with an `apply -k` that accepts a directory as a resource.
const KUBECTL_MINOR: u32 = 21;
/// The linker variable with the version of a Kubernetes release.
const VERSION_VARIABLE: &str = "k8s.io/component-base/version.gitVersion";
/// Interval of progress messages during a build of several minutes.
const PROGRESS: Duration = Duration::from_secs(20);
/// Interval of checks for the exit of a killed process.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of output in an error.
const TAIL: usize = 10;

/// The paths of all programs.
pub struct Tools {
    /// etcd.
    pub etcd: PathBuf,
    /// Prometheus.
    pub prometheus: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kube-controller-manager.
    pub kube_controller_manager: PathBuf,
    /// The server of a member's metrics APIs.
    pub member_adapter: MemberAdapter,
    /// karmada-controller-manager, if its variable is set.
    pub karmada_controller_manager: Option<PathBuf>,
}

/// The program that serves a member's metrics from its Prometheus.
pub enum MemberAdapter {
    /// The real prometheus-adapter.
    Prometheus(PathBuf),
    /// The test adapter, which uses the same library.
    Own(PathBuf),
}

impl Tools {
    /// Finds all programs and builds those from source.
    ///
    /// # Errors
    /// If a program is missing: the error lists all that must be installed. If a build fails.
    pub async fn find(logs: &Path) -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        let mut need = |program: &str, variable: &str, package: &str| {
            let found = named(variable).or_else(|| asset(program)).or_else(|| on_path(program));
            if found.is_none() {
                missing.push(format!(
                    "{program} is not on PATH: install Debian's package {package}, or set {variable} to its path"
                ));
            }
            found.unwrap_or_default()
        };
        let etcd = need("etcd", "ETCD", "etcd-server");
        let prometheus = need("prometheus", "PROMETHEUS", "prometheus");
        let kubectl = on_path("kubectl").and_then(|_| kubectls(Path::new("")).into_iter().next());
        if kubectl.as_ref().is_none_or(|kubectl| kubectl.minor() < KUBECTL_MINOR) {
            let found = kubectl.map_or_else(|| "no kubectl".to_owned(), |kubectl| kubectl.to_string());
            missing.push(format!(
                "found {found} on PATH: install 1.{KUBECTL_MINOR} or later for the kustomizations in deploy/"
            ));
        }
        if on_path(BINDER).is_none() {
            missing.push(format!("{BINDER} is not on PATH: install Debian's package util-linux"));
        }
        let (apiserver, controllers) = (asset("kube-apiserver"), asset("kube-controller-manager"));
        let adapter = named(PROMETHEUS_ADAPTER);
        let mut kubernetes = Vec::new();
        kubernetes.extend(apiserver.is_none().then_some(KUBE_APISERVER));
        kubernetes.extend(controllers.is_none().then_some(KUBE_CONTROLLER_MANAGER));
        if (!kubernetes.is_empty() || adapter.is_none()) && on_path("go").is_none() {
            missing.push(format!(
                "go is not on PATH; it builds kube-apiserver, kube-controller-manager and an adapter for the \
                 members: \
                 install Go 1.26 or later, or set {ASSETS} to a directory with the first two and \
                 {PROMETHEUS_ADAPTER} a prometheus-adapter"
            ));
        }
        ensure!(missing.is_empty(), "{}", missing.join("\n"));
        let built =
            if kubernetes.is_empty() { PathBuf::new() } else { build(KUBERNETES, &kubernetes, logs).await? };
        Ok(Self {
            etcd,
            prometheus,
            kube_apiserver: apiserver.unwrap_or_else(|| built.join("kube-apiserver")),
            kube_controller_manager: controllers.unwrap_or_else(|| built.join("kube-controller-manager")),
            member_adapter: match adapter {
                Some(binary) => MemberAdapter::Prometheus(binary),
                None => {
                    let built = build(MEMBER_ADAPTER, &[MEMBER_ADAPTER_PACKAGE], logs).await?;
                    MemberAdapter::Own(built.join("member-adapter"))
                }
            },
            karmada_controller_manager: named(KARMADA_CONTROLLER_MANAGER),
        })
    }
}

/// Builds packages of one of the test Go modules, unless they were already built with these pinned versions. Returns the
/// directory of the binaries.
async fn build(module: &str, packages: &[&str], logs: &Path) -> anyhow::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(module);
    let name = directory.canonicalize()?;
    let name = name.file_name().context("the package has no name")?.to_string_lossy().into_owned();
    let all = cache()?.join("go").join(&name);
    let built = all.join(key(&directory, packages)?);
    if built.is_dir() {
        return Ok(built);
    }
    say(&format!("building {} with Go (only once, takes some minutes)", packages.join(" and ")));
    fs::create_dir_all(&all)?;
    let partial = tempfile::tempdir_in(&all)?;
    let log = logs.join(format!("go-build-{name}.log"));
    let pins = fs::read_to_string(directory.join("go.mod"))?;
    let release = pins.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes "));
    let version = release.and_then(|line| line.split(' ').next());
    let version = version.map(|version| format!(" -X {VERSION_VARIABLE}={version}")).unwrap_or_default();
    let mut command = Command::new("go");
    command
        .current_dir(&directory)
        .env("CGO_ENABLED", "0")
        .args(["build", "-v", "-buildvcs=false", "-trimpath", "-ldflags"])
        .arg(format!("-s -w{version}"))
        .arg("-o")
        .arg(partial.path())
        .args(packages);
    run(&mut command, &log)
        .await
        .with_context(|| format!("cannot build with Go; its output: {}", log.display()))?;
    fs::rename(partial.keep(), &built)?;
    Ok(built)
}

/// A running build with its own process group.
struct Build {
    go: Child,
    /// Go does not delete this directory when it is interrupted.
    _directory: TempDir,
}

impl Drop for Build {
    fn drop(&mut self) {
        let group = self.go.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let Some(group) = group else { return };
        let _ = kill_process_group(group, Signal::KILL);
        while let Ok(None) = self.go.try_wait() {
            thread::sleep(LOOK);
        }
    }
}

/// Runs a Go command with output to `log`, and regularly prints the number of lines.
async fn run(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let directory = tempfile::Builder::new().prefix("karmada-metrics-adapter-go-").tempdir()?;
    command.process_group(0).env("GOTMPDIR", directory.path());
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut build = Build { go: command.spawn()?, _directory: directory };
    let text = || String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let mut ticks = interval(PROGRESS);
    ticks.tick().await;
    let status = loop {
        tokio::select! {
            status = build.go.wait() => break status?,
            _ = ticks.tick() => say(&format!("… {} packages in {} s", text().lines().count(), began.elapsed().as_secs())),
        }
    };
    if !status.success() {
        let text = text();
        let lines: Vec<&str> = text.lines().collect();
        bail!("{status}: {}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
    }
    Ok(())
}

/// The directory name for the binaries, from all that they depend on: pinned versions, sources and the Go version.
fn key(module: &Path, packages: &[&str]) -> anyhow::Result<String> {
    let entries = fs::read_dir(module)?.collect::<Result<Vec<_>, _>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension().is_some_and(|extension| ["go", "mod", "sum"].iter().any(|known| extension == *known))
    });
    files.sort();
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        context.update(&fs::read(file)?);
    }
    let go = std::process::Command::new("go").arg("version").output().context("cannot run go")?;
    context.update(&go.stdout);
    context.update(packages.join(" ").as_bytes());
    let digest = context.finish();
    Ok(digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn cache() -> anyhow::Result<PathBuf> {
    let home = || Some(named("HOME")?.join(".cache"));
    let cache = named("XDG_CACHE_HOME").or_else(home);
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("karmada-metrics-adapter"))
}

/// The path in an environment variable. An empty variable counts as not set.
fn named(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn asset(program: &str) -> Option<PathBuf> {
    let file = named(ASSETS)?.join(program);
    file.is_file().then_some(file)
}
