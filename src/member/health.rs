//! Circuit breakers of a member: one for its API server and one for each metrics API. After repeated failures to connect or to respond
//! in time, the breaker opens: queries skip the member or that API, so that no response waits for it, and a background task
//! probes it until it responds.
//!
//! A skipped member reports the failure that opened the breaker: unreachable (the whole member) or failing (one API). A response of
//! any status is no such failure.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::failure::{Failure, Skip};
use crate::api::group::Group;
use crate::transport::SendError;

/// This many failures in a row open a breaker.
const FAILURES: u32 = 3;
/// The first and the longest pause between two probes. A member that has recovered is queried again within the longest pause and its
/// jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(800));

/// Sends background requests to a member.
pub(super) trait Probe: Send + Sync + 'static {
    /// The member's name.
    fn cluster(&self) -> &str;

    /// Probes a target: true if it responds. `None` if the member no longer exists.
    fn is_answering(&self, target: &ProbeTarget) -> Option<impl Future<Output = bool> + Send + 'static>;
}

/// The circuit breakers of one member.
#[derive(Default)]
pub(super) struct MemberHealth {
    server: Arc<CircuitBreaker>,
    apis: [Arc<CircuitBreaker>; Group::ALL.len()],
}

#[derive(Default)]
struct CircuitBreaker(Mutex<BreakerState>);

enum BreakerState {
    Closed {
        /// Failures in a row.
        failures: u32,
        /// Time and path of the last response.
        responded_at: Option<(Instant, Arc<str>)>,
    },
    Open {
        skip: Skip,
        _task: AbortOnDropHandle<()>,
    },
}

#[derive(Clone)]
pub(super) enum ProbeTarget {
    /// The API server.
    Server,
    /// A metrics API, by the path of its last response, or by a path that failed.
    Api(Group, Arc<str>),
}

impl Default for BreakerState {
    fn default() -> Self {
        Self::Closed { failures: 0, responded_at: None }
    }
}

impl MemberHealth {
    pub(super) fn skipped(&self, group: Group) -> Option<Skip> {
        self.server.skipped().or_else(|| self.api(group).skipped())
    }

    /// Records the result of a request that was sent at `begun`. `probe` makes the probe if a breaker opens.
    pub(super) fn note<P: Probe>(
        &self,
        probe: impl FnOnce() -> P,
        group: Group,
        path: &Arc<str>,
        begun: Instant,
        failure: Option<&Failure>,
    ) {
        let api = self.api(group);
        let target =
            |answered: Option<Arc<str>>| ProbeTarget::Api(group, answered.unwrap_or_else(|| path.clone()));
        match failure {
            Some(
                failure @ (Failure::NotConnected(_)
                | Failure::Send(SendError::Connect(_) | SendError::NoAnswer(_))),
            ) => {
                self.server.failed(probe, begun, failure, |_| ProbeTarget::Server);
                api.suspected();
            }
            // A broken connection is often the first sign of an API server that shuts down.
            Some(failure @ Failure::Send(SendError::Lost(_))) => {
                api.failed(probe, begun, failure, target);
                self.server.suspected();
            }
            Some(failure @ Failure::Timeout(_)) => api.failed(probe, begun, failure, target),
            Some(failure) if !failure.is_response() => {
                // The request was not sent, or the server closed its connection properly: neither counts.
            }
            None | Some(_) => {
                self.server.responded(path);
                api.responded(path);
            }
        }
    }

    fn api(&self, group: Group) -> &Arc<CircuitBreaker> {
        &self.apis[group as usize]
    }
}

impl CircuitBreaker {
    fn skipped(&self) -> Option<Skip> {
        match &*self.state() {
            BreakerState::Closed { .. } => None,
            BreakerState::Open { skip, .. } => Some(skip.clone()),
        }
    }

    fn responded(&self, path: &Arc<str>) {
        if let BreakerState::Closed { failures, responded_at: answered } = &mut *self.state() {
            *failures = 0;
            *answered = Some((Instant::now(), path.clone()));
        }
    }

    /// A failure that another breaker probably explains: it counts, but does not open this breaker.
    fn suspected(&self) {
        if let BreakerState::Closed { failures, .. } = &mut *self.state() {
            *failures = (*failures + 1).min(FAILURES - 1);
        }
    }

    fn failed<P: Probe>(
        self: &Arc<Self>,
        probe: impl FnOnce() -> P,
        begun: Instant,
        failure: &Failure,
        target: impl FnOnce(Option<Arc<str>>) -> ProbeTarget,
    ) {
        let mut state = self.state();
        let BreakerState::Closed { failures, responded_at: answered } = &mut *state else { return };
        // A target that has responded to other requests since then is not failing as a whole; only some queries take too long.
        if answered.as_ref().is_some_and(|(answered, _)| *answered >= begun) {
            return;
        }
        *failures += 1;
        if *failures >= FAILURES {
            let (probe, target) = (probe(), target(answered.take().map(|(_, path)| path)));
            let (unreachable, cause, message) =
                (failure.is_unreachable(), failure.cause(), failure.to_string());
            tracing::warn!(
                cluster = probe.cluster(),
                what = target.name(),
                cause = cause.name(),
                error = message,
                "cluster is skipped until it responds to background requests"
            );
            let skip = Skip { unreachable, cause, message };
            let task = tokio::spawn(probe_until_response(Arc::downgrade(self), probe, target));
            *state = BreakerState::Open { skip, _task: AbortOnDropHandle::new(task) };
        }
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.0.lock().expect("not poisoned")
    }
}

impl ProbeTarget {
    fn name(&self) -> &'static str {
        match self {
            Self::Server => "API server",
            Self::Api(group, _) => group.name(),
        }
    }

    /// Maximum concurrent probes. A probe of an API server may hang although the next one would succeed. An overloaded metrics API must not
    /// get more load.
    fn attempts(&self) -> usize {
        match self {
            Self::Server => 4,
            Self::Api(..) => 1,
        }
    }
}

/// Probes until there is a response or the member no longer exists.
async fn probe_until_response(breaker: Weak<CircuitBreaker>, probe: impl Probe, target: ProbeTarget) {
    let pauses = ExponentialBuilder::new().with_min_delay(PAUSES.0).with_max_delay(PAUSES.1);
    let mut pauses = pauses.with_jitter().without_max_times().build();
    let mut attempts = FuturesUnordered::new();
    loop {
        let mut pause = std::pin::pin!(sleep(pauses.next().unwrap_or(PAUSES.1)));
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(answered) = attempts.next(), if !attempts.is_empty() => if answered {
                    if let Some(breaker) = breaker.upgrade() {
                        let (cluster, what) = (probe.cluster(), target.name());
                        tracing::info!(cluster, what, "cluster responds again and is queried again");
                        *breaker.state() = BreakerState::default();
                    }
                    return;
                },
            }
        }
        if attempts.len() < target.attempts() {
            let Some(answers) = probe.is_answering(&target) else { return };
            attempts.push(answers);
        }
    }
}
