//! The `fleet` binary from the outside.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A process that does not outlive its test.
struct Fleet(Child);

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fleet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fleet"))
}

fn walkthrough(adapter: &str) -> Output {
    fleet().args(["walkthrough", "--adapter", adapter]).output().unwrap()
}

#[test]
fn up_serves_as_many_members_as_were_asked_for_and_says_where() {
    let mut command = fleet();
    command.args(["up", "--members", "2", "--pods", "3", "--json"]).stdout(Stdio::piped());
    let mut fleet = Fleet(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(fleet.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["members"].as_array().unwrap().len(), 2);
    assert_eq!(told["members"][1]["name"], "member2");
    assert_eq!(told["adapter"], Value::Null);
    let kubeconfig = std::fs::read_to_string(told["kubeconfig"].as_str().unwrap()).unwrap();
    assert!(kubeconfig.contains(told["controlPlane"].as_str().unwrap()), "{kubeconfig}");
}

#[test]
fn an_adapter_that_ends_fails_the_walkthrough_with_a_clear_word() {
    let output = walkthrough("false");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("fleet: the adapter has ended (exit code 1)\nthe end of its log, "), "{said}");
}

#[test]
fn the_adapter_ends_with_the_walkthrough() {
    let directory = tempfile::tempdir().unwrap();
    let (adapter, log) = (directory.path().join("adapter"), directory.path().join("adapter.log"));
    // Another process writes it: a file that is open for writing here, or in a fork of a neighbouring test, cannot
    // be run.
    let write = r#"printf '#!/bin/sh\necho $$\nexec sleep 600\n' > "$0" && chmod +x "$0""#;
    assert!(Command::new("sh").args(["-c", write]).arg(&adapter).status().unwrap().success());
    let mut command = fleet();
    command.arg("walkthrough").arg("--adapter").arg(&adapter).arg("--log").arg(&log).stdout(Stdio::null());
    let mut fleet = Fleet(command.spawn().unwrap());
    let adapter = wait_for(|| std::fs::read_to_string(&log).ok()?.trim().parse().ok());
    assert!(runs(adapter));
    let terminate = Command::new("kill").args(["-TERM", &fleet.0.id().to_string()]).status();
    assert!(terminate.unwrap().success());
    assert_eq!(fleet.0.wait().unwrap().code(), Some(143));
    wait_for(|| (!runs(adapter)).then_some(()));
}

/// Says whether a process runs; one that has ended and waits for somebody to take notice does not.
fn runs(process: u32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &process.to_string()]).output().unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

fn wait_for<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_adapter_that_is_not_there_fails_the_walkthrough_with_its_name() {
    let output = walkthrough("/nowhere/adapter");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("fleet: cannot run /nowhere/adapter: build it, or name another with --adapter"),
        "{said}"
    );
}
