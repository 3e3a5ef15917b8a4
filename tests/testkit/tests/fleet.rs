//! The `fleet` binary from the outside.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

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
fn an_adapter_that_is_not_there_fails_the_walkthrough_with_its_name() {
    let output = walkthrough("/nowhere/adapter");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("fleet: cannot run /nowhere/adapter: build it, or name another with --adapter"),
        "{said}"
    );
}
