//! The adapter's own commands against real clusters.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::ensure;
use tokio::process::Command;

use crate::api::until;
use crate::say;
use crate::stage::{MEMBERS, Stage};

/// Time limit until a member's API server has detected the end of its adapter.
const NOTICED: Duration = Duration::from_secs(90);

pub async fn check_and_query_report_both_members_and_a_failure(stage: &mut Stage) -> anyhow::Result<()> {
    stage.steady().await?;
    for command in ["check", "query"] {
        say(&format!("karmada-metrics-adapter {command} --metric http_requests"));
        let output = run(stage, command).await?;
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{command}: {}\n{printed}", output.status);
        ensure!(MEMBERS.iter().all(|member| printed.contains(member)), "{command}:\n{printed}");
    }
    let killed = &mut stage.members[1].adapter;
    say(&format!("SIGKILL to {}", killed.name()));
    killed.kill();
    until("check reports the member", NOTICED, async || {
        let output = run(stage, "check").await?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let broken: Vec<_> = printed.lines().filter(|line| line.contains("BROKEN")).collect();
        ensure!(output.status.code() == Some(1), "check exits with {}:\n{printed}", output.status);
        ensure!(!broken.is_empty() && broken.iter().all(|line| line.starts_with(MEMBERS[1])), "{printed}");
        say(broken[0]);
        Ok(())
    })
    .await
}

/// Runs one of the commands on the tutorial's metric, as administrator of the control plane.
async fn run(stage: &Stage, command: &str) -> anyhow::Result<Output> {
    let mut process = Command::new(stage.adapter_binary());
    process.args([command, "--metric", "http_requests", "--kubeconfig"]);
    process.arg(stage.plane.cluster.kubeconfig()).stdin(Stdio::null()).kill_on_drop(true);
    Ok(process.output().await?)
}
