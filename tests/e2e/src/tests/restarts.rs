//! The control plane's own programs end and come back.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::say;
use crate::stage::{self, MEMBERS, Stage, TUTORIAL};

/// How long a program is away.
const AWAY: Duration = Duration::from_secs(8);
/// How often the adapter is asked meanwhile.
const PAUSE: Duration = Duration::from_millis(500);

pub async fn the_control_planes_api_server_restarts(stage: &mut Stage) -> anyhow::Result<()> {
    restart(stage, |cluster| &mut cluster.api_server).await
}

pub async fn the_control_planes_etcd_restarts(stage: &mut Stage) -> anyhow::Result<()> {
    restart(stage, |cluster| &mut cluster.etcd).await
}

async fn restart(stage: &mut Stage, process: fn(&mut Cluster) -> &mut Process) -> anyhow::Result<()> {
    stage.steady().await?;
    let ending = process(&mut stage.plane.cluster);
    say(&format!("ending {}", ending.name()));
    ending.end().await?;
    ask_the_adapter_itself(stage).await?;
    say("starting it again");
    process(&mut stage.plane.cluster).start_again()?;
    recover(stage).await
}

/// Asks the adapter without the control plane, as somebody whom it needs nobody to ask about.
async fn ask_the_adapter_itself(stage: &Stage) -> anyhow::Result<()> {
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
    say(&format!("meanwhile the adapter itself has answered {queries} queries"));
    Ok(())
}

/// Waits until all is as it was.
async fn recover(stage: &mut Stage) -> anyhow::Result<()> {
    let began = Instant::now();
    stage.plane.cluster.ready().await?;
    stage.plane.available().await?;
    stage.until_answered(&MEMBERS).await?;
    say(&format!("all APIs are available and complete after {:.1?}", began.elapsed()));
    say("a member's Secret changes: the adapter still follows");
    stage.plane.change_token(MEMBERS[1], "none of the member's").await?;
    stage.until_warned(MEMBERS[1]).await?;
    stage.plane.change_token(MEMBERS[1], &stage.members[1].token().await?).await?;
    stage.until_answered(&MEMBERS).await?;
    stage.held().await
}
