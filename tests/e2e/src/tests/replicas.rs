//! Two replicas of the adapter. One ends while clients send queries.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::adapter::AdapterProcess;
use tokio::time::{sleep, timeout};

use super::load::{CLIENTS, Load};
use crate::karmada::availability::AvailabilityWatch;
use crate::say;
use crate::stage::{self, MEMBERS, Stage, TUTORIAL};

/// How long the clients send queries before and after the end of a replica.
const WHILE: Duration = Duration::from_secs(5);
/// Delay between the signal and the removal of the endpoint. In a cluster the two are not synchronous either.
const ENDPOINT_LEAVES: Duration = Duration::from_secs(1);
/// How long a replica may take to exit after SIGTERM.
const DRAINED: Duration = Duration::from_secs(90);

pub async fn one_of_two_replicas_stops_and_no_query_fails(stage: &mut Stage) -> anyhow::Result<()> {
    let availability = AvailabilityWatch::start(&stage.plane);
    let (load, mut ending) = two_replicas_under_load(stage).await?;
    say("SIGTERM; one second later its endpoint is removed from the Service");
    kill_process(pid(&ending)?, Signal::TERM)?;
    sleep(ENDPOINT_LEAVES).await;
    stage.lead_to_all();
    let status = timeout(DRAINED, ending.ended()).await.context("the replica does not exit")??;
    ensure!(status.success(), "the replica exited with {status}\n{}", ending.log_tail());
    sleep(WHILE).await;
    let (succeeded, failed) = load.counts();
    say(&format!("{succeeded} queries succeeded, {failed} failed"));
    ensure!(failed == 0, "{failed} queries failed: {}", load.last_failure());
    stage.check_steady().await?;
    availability.check_available().await
}

pub async fn one_of_two_replicas_is_killed_and_the_other_takes_over(stage: &mut Stage) -> anyhow::Result<()> {
    let (load, killed) = two_replicas_under_load(stage).await?;
    say("removing the endpoint from the Service, then SIGKILL");
    // In this order. Otherwise clients without a pause could fail any number of times in between.
    stage.lead_to_all();
    drop(killed);
    // The watch starts only now: kube-apiserver takes an interrupted probe for an unavailable API, and the watch causes probes
    // all the time.
    let availability = AvailabilityWatch::start(&stage.plane);
    sleep(WHILE).await;
    let (_, lost) = load.counts();
    sleep(WHILE).await;
    let (succeeded, failed) = load.counts();
    say(&format!("{succeeded} queries succeeded, {failed} failed: {}", load.last_failure()));
    ensure!(lost <= CLIENTS, "more queries failed than were in flight: {lost}, {}", load.last_failure());
    ensure!(failed == lost, "queries still failed later: {}", load.last_failure());
    stage.until_complete(&MEMBERS).await?;
    stage.check_steady().await?;
    availability.check_available().await
}

/// Starts two replicas under load. Returns the one that gets the queries, for its end: kube-apiserver uses one connection for
/// all queries.
async fn two_replicas_under_load(stage: &mut Stage) -> anyhow::Result<(Load, AdapterProcess)> {
    stage.steady().await?;
    say("starting a second replica of the adapter, and 8 clients that query without a pause");
    stage.add_adapter().await?;
    stage.plane.available().await?;
    let before = queries(stage).await?;
    let load = Load::start(&stage.plane.cluster.api, |_| TUTORIAL.to_owned());
    sleep(WHILE).await;
    ensure!(load.counts().1 == 0, "queries failed before: {}", load.last_failure());
    let after = queries(stage).await?;
    let more: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    say(&format!("queries per replica: {more:?}"));
    let busiest = (0..more.len()).max_by_key(|replica| more[*replica]).context("no replica runs")?;
    ensure!(more[busiest] > 0, "no replica received a query");
    Ok((load, stage.adapters.remove(busiest)))
}

/// The number of queries for custom metrics that each replica has responded to since its start.
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
    id.context("the adapter does not run")
}
