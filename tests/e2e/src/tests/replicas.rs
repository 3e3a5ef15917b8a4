//! Two replicas of the adapter, one of which ends while clients ask.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::adapter::AdapterProcess;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
use crate::karmada::availability::AvailabilityWatch;
use crate::say;
use crate::stage::{self, MEMBERS, Stage, TUTORIAL};

/// Clients that ask without a pause.
const CLIENTS: usize = 8;
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

/// Clients that ask the tutorial's query through the control plane until they are dropped.
struct Load {
    seen: Arc<Seen>,
    _clients: Vec<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    failed: AtomicUsize,
    last_failure: Mutex<String>,
}

impl Load {
    fn start(api: &Api) -> Self {
        let seen = Arc::new(Seen::default());
        let client = || AbortOnDropHandle::new(tokio::spawn(ask(api.clone(), seen.clone())));
        let clients = (0..CLIENTS).map(|_| client()).collect();
        Self { seen, _clients: clients }
    }

    /// Queries that were answered with values, and those that were not.
    fn counts(&self) -> (usize, usize) {
        (self.seen.answered.load(Ordering::Relaxed), self.seen.failed.load(Ordering::Relaxed))
    }

    fn last_failure(&self) -> String {
        self.seen.last_failure.lock().expect("no holder panics").clone()
    }
}

async fn ask(api: Api, seen: Arc<Seen>) {
    loop {
        let failure = match api.answer(TUTORIAL).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body))),
            Err(error) => Some(format!("{error:#}")),
        };
        let counter = if failure.is_none() { &seen.answered } else { &seen.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = failure {
            *seen.last_failure.lock().expect("no holder panics") = failure;
        }
    }
}

/// Two replicas of which the one that the queries come to is returned, to be ended: kube-apiserver has one connection for all of them.
async fn two_replicas_under_load(stage: &mut Stage) -> anyhow::Result<(Load, AdapterProcess)> {
    stage.steady().await?;
    say("a second replica of the adapter, and 8 clients that ask without a pause");
    stage.add_adapter().await?;
    stage.plane.available().await?;
    let before = queries(stage).await?;
    let load = Load::start(&stage.plane.cluster.api);
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
