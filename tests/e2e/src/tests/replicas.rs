//! Two replicas of the adapter, one of which ends while clients ask.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::adapter::AdapterProcess;
use tokio::time::{sleep, timeout};

use super::load::{CLIENTS, Load};
use crate::karmada::availability::AvailabilityWatch;
use crate::say;
use crate::stage::{self, MEMBERS, Stage, TUTORIAL};

/// How long they ask before and after the end of a replica.
const WHILE: Duration = Duration::from_secs(5);
/// How long after the signal the endpoint leaves: the two are not in step in a cluster either.
const ENDPOINT_LEAVES: Duration = Duration::from_secs(1);
/// How long a replica that is asked to end may take.
const DRAINED: Duration = Duration::from_secs(90);

pub async fn one_of_two_replicas_ends_and_no_query_fails(stage: &mut Stage) -> anyhow::Result<()> {
    let availability = AvailabilityWatch::start(&stage.plane);
    let (load, mut ending) = two_replicas_under_load(stage).await?;
    say("SIGTERM, and a second later its endpoint leaves the Service");
    kill_process(pid(&ending)?, Signal::TERM)?;
    sleep(ENDPOINT_LEAVES).await;
    stage.lead_to_all();
    let status = timeout(DRAINED, ending.ended()).await.context("it does not end")??;
    ensure!(status.success(), "it ended with {status}\n{}", ending.log_tail());
    sleep(WHILE).await;
    let (answered, failed) = load.counts();
    say(&format!("{answered} queries were answered, {failed} failed"));
    ensure!(failed == 0, "{failed} queries failed: {}", load.last_failure());
    stage.held().await?;
    availability.held().await
}

pub async fn one_of_two_replicas_is_killed_and_the_other_takes_over(stage: &mut Stage) -> anyhow::Result<()> {
    let (load, killed) = two_replicas_under_load(stage).await?;
    say("its endpoint leaves the Service, and SIGKILL");
    // In this order, or clients that ask without a pause would fail any number of times in between.
    stage.lead_to_all();
    drop(killed);
    // Not before: kube-apiserver takes a probe that is cut off for an API that is not available, and we would have it probe all the time.
    let availability = AvailabilityWatch::start(&stage.plane);
    sleep(WHILE).await;
    let (_, lost) = load.counts();
    sleep(WHILE).await;
    let (answered, failed) = load.counts();
    say(&format!("{answered} queries were answered, {failed} failed: {}", load.last_failure()));
    ensure!(lost <= CLIENTS, "more than was under way failed: {lost}, {}", load.last_failure());
    ensure!(failed == lost, "queries failed long after: {}", load.last_failure());
    stage.until_answered(&MEMBERS).await?;
    stage.held().await?;
    availability.held().await
}

/// Two replicas of which the one that the queries come to is returned, to be ended: kube-apiserver has one connection for all of them.
async fn two_replicas_under_load(stage: &mut Stage) -> anyhow::Result<(Load, AdapterProcess)> {
    stage.steady().await?;
    say("a second replica of the adapter, and 8 clients that ask without a pause");
    stage.add_adapter().await?;
    stage.plane.available().await?;
    let before = queries(stage).await?;
    let load = Load::start(&stage.plane.cluster.api, |_| TUTORIAL.to_owned());
    sleep(WHILE).await;
    ensure!(load.counts().1 == 0, "queries failed before: {}", load.last_failure());
    let after = queries(stage).await?;
    let more: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    say(&format!("queries that each replica has answered: {more:?}"));
    let busiest = (0..more.len()).max_by_key(|replica| more[*replica]).context("there is no replica")?;
    ensure!(more[busiest] > 0, "no replica has answered");
    Ok((load, stage.adapters.remove(busiest)))
}

/// How many queries for custom metrics each replica has answered since it began.
async fn queries(stage: &Stage) -> anyhow::Result<Vec<u64>> {
    let admin = stage.plane.cluster.admin();
    let mut queries = Vec::new();
    for adapter in &stage.adapters {
        let metrics = stage::adapter_client(adapter, admin)?.get("/metrics").await?;
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let counters = metrics.lines().filter(|line| {
            line.starts_with("apiserver_request_total{") && line.contains("group=\"custom.metrics.k8s.io\"")
        });
        let values = counters.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        queries.push(values.sum());
    }
    Ok(queries)
}

fn pid(adapter: &AdapterProcess) -> anyhow::Result<Pid> {
    let id = adapter.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    id.context("it does not run")
}
