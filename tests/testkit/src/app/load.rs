//! Requests at a steady rate, round robin over the ready replicas of all members.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::deployment::Endpoints;
use super::replica::fetch;

/// Maximum of concurrent requests. A further request counts as failed.
const CONCURRENCY: usize = 256;
/// Timeout of a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How far the sender may fall behind its rate and still catch up. It drops a larger backlog.
const BACKLOG: Duration = Duration::from_millis(200);

/// A load generator for the application. Drop stops it.
#[derive(Debug)]
pub struct LoadGenerator {
    rate: watch::Sender<f64>,
    tally: Arc<Tally>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
}

impl LoadGenerator {
    /// Starts an idle generator for the replicas of these Deployments.
    pub fn start(targets: Vec<Endpoints>) -> Self {
        let rate = watch::Sender::new(0.0);
        let tally = Arc::new(Tally::default());
        let task = AbortOnDropHandle::new(tokio::spawn(run(targets, rate.subscribe(), tally.clone())));
        Self { rate, tally, _task: task }
    }

    /// Sets the total rate in requests per second. 0 stops the load.
    pub fn set_rate(&self, requests_a_second: f64) {
        self.rate.send_replace(requests_a_second);
    }

    /// Number of requests with a response.
    pub fn done(&self) -> u64 {
        self.tally.done.load(Ordering::Relaxed)
    }

    /// Number of failed requests: no replica was ready, too many requests were in flight, or an error.
    pub fn failed(&self) -> u64 {
        self.tally.failed.load(Ordering::Relaxed)
    }
}

async fn run(targets: Vec<Endpoints>, mut rate: watch::Receiver<f64>, tally: Arc<Tally>) {
    let mut requests = JoinSet::new();
    let mut next = Instant::now();
    for turn in 0_usize.. {
        let Some(pause) = wait_for_turn(&mut rate, &mut requests, &mut next).await else { return };
        let now = Instant::now();
        next = next.max(now.checked_sub(BACKLOG).unwrap_or(now)) + pause;
        let replicas: Vec<SocketAddr> = targets.iter().flat_map(|target| target.borrow().clone()).collect();
        if replicas.is_empty() || requests.len() >= CONCURRENCY {
            tally.failed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        requests.spawn(request(replicas[turn % replicas.len()], tally.clone()));
    }
}

/// Waits until `next`, or less if the rate rose. Returns the interval to the next request, `None` when the generator is
/// dropped.
async fn wait_for_turn(
    rate: &mut watch::Receiver<f64>,
    requests: &mut JoinSet<()>,
    next: &mut Instant,
) -> Option<Duration> {
    loop {
        let pause = Duration::try_from_secs_f64(1.0 / *rate.borrow_and_update()).ok();
        if let Some(pause) = pause {
            *next = (*next).min(Instant::now() + pause);
        }
        let turn = async {
            match pause {
                Some(_) => sleep_until(*next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = rate.changed() => {
                changed.ok()?;
                if pause.is_none() {
                    *next = Instant::now(); // idle time causes no backlog
                }
            }
            () = turn => return pause,
            Some(_) = requests.join_next() => {}
        }
    }
}

async fn request(address: SocketAddr, tally: Arc<Tally>) {
    let counter = match timeout(REQUEST_TIMEOUT, fetch(address, "/")).await {
        Ok(Ok(_)) => &tally.done,
        _ => &tally.failed,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}
