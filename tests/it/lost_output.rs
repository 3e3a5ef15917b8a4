//! Output that cannot be written: a full disk or a closed pipe as stdout or stderr.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use testkit::fleet::Fleet;
use testkit::member::Member;
use tokio::process::Command;

use crate::stage::{GENEROUS, Stage, binary, members, until};

/// Each write to this file fails: no space left on device.
const FULL: &str = "/dev/full";

#[tokio::test(flavor = "multi_thread")]
async fn log_on_a_full_disk_stops_nothing_else() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let adapter = fleet.start_adapter(binary(), &[], Some(FULL.into())).await.expect("the adapter starts");
    let mut stage = Stage::of(fleet, adapter);
    let late = Member::start("late").await.expect("a member starts").with_pods("http_requests", 1);
    stage.fleet.plane.join(&(&late).into()).expect("the member joins");
    until(&stage, |clusters| clusters == ["late", "member1"]).await;
    stage.fleet.plane.remove("member1");
    until(&stage, |clusters| clusters == ["late"]).await;
    assert!(stage.metric("lost_log_lines_total").await > 0);

    let id = stage.adapter.id().expect("the adapter runs").to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs").success());
    let status = tokio::time::timeout(GENEROUS, stage.adapter.ended()).await;
    assert_eq!(status.expect("the adapter exits in time").expect("an exit status").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn result_that_cannot_be_written_is_a_failure() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_str().expect("UTF-8");
    let (code, _) = run_into(FULL.as_ref(), &["certs", "issue", "--out-dir", path]).await;
    assert_eq!(code, Some(1), "certs issue");
    let certificate = format!("{path}/tls.crt");
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";
    for arguments in [
        &["--help"][..],
        &["version"],
        &["completion", "bash"],
        &["certs", "show", &certificate],
        &["check", &kubeconfig],
        &["query", path, &kubeconfig],
        &["query", path, &kubeconfig, "--watch=1s"],
    ] {
        let (code, error) = run_into(FULL.as_ref(), arguments).await;
        assert_eq!(code, Some(1), "{arguments:?}: {error}");
        assert!(error.contains("cannot write to stdout: No space left on device"), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn error_that_cannot_be_written_keeps_its_exit_code() {
    for (arguments, code) in [
        (&["--no-such-flag"][..], 2),
        (&["certs", "show", "/nowhere"], 1),
        (&["check", "--kubeconfig=/nowhere"], 1),
        (&["--kubeconfig=/nowhere", "--secure-port=0", "--cert-dir="], 1),
    ] {
        let mut command = Command::new(binary());
        let full = File::options().write(true).open(FULL).expect("a file");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(full).kill_on_drop(true);
        command.env("HTTPS_PROXY", "ftp://ignored");
        let status = tokio::time::timeout(GENEROUS, command.status()).await;
        let status = status.expect("the process exits in time").expect("the process runs");
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

/// Runs the binary with this file as stdout. Returns the exit code and stderr.
async fn run_into(stdout: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let stdout = File::options().write(true).open(stdout).expect("a file");
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().expect("the process runs");
    let output = tokio::time::timeout(GENEROUS, child.wait_with_output()).await;
    let output = output.expect("the process exits in time").expect("the process runs");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}
