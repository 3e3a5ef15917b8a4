//! Tests of the `fleet` binary.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// Longer than every test that does not hang.
const LIMIT: Duration = Duration::from_secs(60);

/// A process that is killed at the end of its test.
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
fn up_serves_the_requested_members_and_prints_their_addresses() {
    let mut command = fleet();
    command.args(["up", "--members", "2", "--pods", "3", "--json"]).stdout(Stdio::piped());
    let mut fleet = Fleet(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(fleet.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let printed: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(printed["members"].as_array().unwrap().len(), 2);
    assert_eq!(printed["members"][1]["name"], "member2");
    assert_eq!(printed["adapter"], Value::Null);
    let kubeconfig = std::fs::read_to_string(printed["kubeconfig"].as_str().unwrap()).unwrap();
    assert!(kubeconfig.contains(printed["controlPlane"].as_str().unwrap()), "{kubeconfig}");
}

#[test]
fn adapter_that_exits_fails_the_walkthrough_with_its_log() {
    let output = walkthrough("false");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("fleet: the adapter has exited (exit code 1)\nend of its log, "), "{stderr}");
}

#[test]
fn adapter_stops_with_the_walkthrough() {
    let directory = tempfile::tempdir().unwrap();
    let adapter = directory.path().join("adapter");
    // Another process writes the file. A file that is open for writing in this process, or in a fork of a parallel test, cannot
    // be run. The pipe has a writer while the adapter lives.
    let write = r#"mkfifo "$0.alive" &&
        printf '#!/bin/sh\nexec 3>"$0.alive"\nexec sleep 600\n' > "$0" && chmod +x "$0""#;
    assert!(Command::new("sh").args(["-c", write]).arg(&adapter).status().unwrap().success());
    let mut command = fleet();
    command.arg("walkthrough").arg("--adapter").arg(&adapter).stdout(Stdio::null());
    let mut fleet = Fleet(command.spawn().unwrap());

    let alive = directory.path().join("adapter.alive");
    let (sender, seen) = mpsc::channel();
    std::thread::spawn(move || {
        let mut writer = File::open(alive).unwrap();
        sender.send("alive").unwrap();
        writer.read_to_end(&mut Vec::new()).unwrap();
        sender.send("gone").unwrap();
    });
    assert_eq!(seen.recv_timeout(LIMIT), Ok("alive"));
    let terminate = Command::new("sh").args(["-c", r#"kill -TERM "$0""#, &fleet.0.id().to_string()]).status();
    assert!(terminate.unwrap().success());
    assert_eq!(fleet.0.wait().unwrap().code(), Some(143));
    assert_eq!(seen.recv_timeout(LIMIT), Ok("gone"));
}

#[test]
fn missing_adapter_fails_the_walkthrough_with_its_path() {
    let output = walkthrough("/nowhere/adapter");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("fleet: cannot run /nowhere/adapter: build it, or name another with --adapter"),
        "{stderr}"
    );
}
