//! The walkthrough: scale out under load and back in.

use std::time::{Duration, Instant};

use anyhow::ensure;
use testkit::federated_hpa::Spec;

use crate::say;
use crate::scaling::{WINDOW, Wanted};
use crate::stage::Stage;

/// The minimum and maximum of replicas.
const LIMITS: (i32, i32) = (1, 10);
/// Requests per second for each autoscaler: more than the maximum of replicas can serve.
const LOAD: f64 = 60.0;
/// Time limit, longer than the windows of all autoscalers.
const LIMIT: Duration = Duration::from_secs(240);

pub async fn each_autoscaler_scales_from_one_to_ten_and_back(stage: &mut Stage) -> anyhow::Result<()> {
    stage.scaling.stabilize(&stage.plane, WINDOW).await?;
    stage.scaling.federate(&stage.plane, &stage.members, Spec::tutorial()).await?;
    stage.scaling.load(0.0);
    say("no load: waiting for 1 replica of each application");
    replicas(stage, LIMITS.0).await?;
    stage.scaling.load(LOAD);
    say(&format!("{LOAD} requests per second to each application: waiting for 10 replicas"));
    replicas(stage, LIMITS.1).await?;
    stage.scaling.load(0.0);
    say("no load: waiting for 1 replica again");
    replicas(stage, LIMITS.0).await
}

/// Waits until each autoscaler wants this number of replicas and its application has them.
async fn replicas(stage: &mut Stage, wanted: i32) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut reached: Vec<&str> = Vec::new();
    loop {
        stage.check()?;
        let found = stage.scaling.wanted(&stage.plane).await?;
        let mut there = 0;
        for Wanted { autoscaler, application, replicas } in &found {
            let running = i32::try_from(stage.running(application)?)?;
            if (*replicas, running) != (wanted, wanted) {
                continue;
            }
            there += 1;
            if !reached.contains(autoscaler) {
                say(&format!("{autoscaler}: {wanted}, after {} s", began.elapsed().as_secs()));
                reached.push(autoscaler);
            }
        }
        if there == found.len() {
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "not {wanted} replicas after {LIMIT:?}: {found:?}");
    }
}
