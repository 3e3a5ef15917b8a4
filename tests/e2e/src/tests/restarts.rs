//! Restarts of the control plane's own programs.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::say;
use crate::stage::{self, MEMBERS, Stage, TUTORIAL};

/// How long a program is stopped.
const AWAY: Duration = Duration::from_secs(8);
/// Interval of queries to the adapter meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

pub async fn control_plane_api_server_restarts(stage: &mut Stage) -> anyhow::Result<()> {
    restart(stage, |cluster| &mut cluster.api_server).await
}

pub async fn control_plane_etcd_restarts(stage: &mut Stage) -> anyhow::Result<()> {
    restart(stage, |cluster| &mut cluster.etcd).await
}

async fn restart(stage: &mut Stage, process: fn(&mut Cluster) -> &mut Process) -> anyhow::Result<()> {
    stage.steady().await?;
    let ending = process(&mut stage.plane.cluster);
    say(&format!("stopping {}", ending.name()));
    ending.stop().await?;
    query_the_adapter_directly(stage).await?;
    say("starting it again");
    process(&mut stage.plane.cluster).start_again()?;
    recover(stage).await
}

/// Queries the adapter directly, as a user that needs no review by the control plane.
async fn query_the_adapter_directly(stage: &Stage) -> anyhow::Result<()> {
    let client = stage::adapter_client(&stage.adapters[0], stage.plane.cluster.admin())?;
    let began = Instant::now();
    let mut queries = 0;
    while began.elapsed() < AWAY {
        let answer = client.get(TUTORIAL).await?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status.is_success(), "{}: {text}", answer.status);
        ensure!(MEMBERS.iter().all(|member| text.contains(member)), "a member is missing: {text}");
        queries += 1;
        sleep(PAUSE).await;
    }
    say(&format!("meanwhile the adapter itself has responded to {queries} queries"));
    Ok(())
}

/// Waits until all APIs are available and complete again.
async fn recover(stage: &mut Stage) -> anyhow::Result<()> {
    let began = Instant::now();
    stage.plane.cluster.ready().await?;
    stage.plane.available().await?;
    stage.until_complete(&MEMBERS).await?;
    say(&format!("all APIs are available and complete after {:.1?}", began.elapsed()));
    say("changing a member's Secret: the adapter must load it");
    stage.plane.change_token(MEMBERS[1], "not-a-token-of-the-member").await?;
    stage.until_warned(MEMBERS[1]).await?;
    stage.plane.change_token(MEMBERS[1], &stage.members[1].token().await?).await?;
    stage.until_complete(&MEMBERS).await?;
    stage.check_steady().await
}
