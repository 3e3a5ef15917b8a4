//! Whether a member is worth asking: one that fails again and again is skipped, so that no answer waits for it, and
//! asked in the background until it answers.
//!
//! It is skipped as what it was: unreachable, if its API server did not answer; ill, if only a metrics API did
//! not, and then for that API alone. Failures that come at once, such as an HTTP status, cost nobody time and skip nothing.

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

/// How many failures in a row it takes.
const FAILURES: u32 = 3;
/// The first and the longest pause between two attempts in the background. A member is taken back within the
/// longest one and its jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(800));

/// Asks a member again in the background.
pub(super) trait Probe: Send + Sync + 'static {
    /// The member's name.
    fn cluster(&self) -> &str;

    /// Whether what is skipped answers. `None` once the member has left.
    fn is_answering(&self, target: &ProbeTarget) -> Option<impl Future<Output = bool> + Send + 'static>;
}

/// The state of one member: of its API server, and of each metrics API behind it.
#[derive(Default)]
pub(super) struct MemberHealth {
    server: Arc<CircuitBreaker>,
    apis: [Arc<CircuitBreaker>; Group::ALL.len()],
}

/// What is asked as long as it answers, and skipped when it has failed again and again.
#[derive(Default)]
struct CircuitBreaker(Mutex<BreakerState>);

enum BreakerState {
    Closed {
        /// How many in a row.
        failures: u32,
        /// When it last answered, and to what.
        answered: Option<(Instant, Arc<str>)>,
    },
    Open {
        skip: Skip,
        _looking: AbortOnDropHandle<()>,
    },
}

/// What is asked in the background.
#[derive(Clone)]
pub(super) enum ProbeTarget {
    /// The API server.
    Server,
    /// A metrics API, by the path that it answered last, else by one that it failed to answer.
    Api(Group, Arc<str>),
}

impl Default for BreakerState {
    fn default() -> Self {
        Self::Closed { failures: 0, answered: None }
    }
}

impl MemberHealth {
    pub(super) fn skipped(&self, group: Group) -> Option<Skip> {
        self.server.skipped().or_else(|| self.api(group).skipped())
    }

    /// Takes note of how a request for a path of an API ended that began at `begun`. `probe` makes what asks in the
    /// background, if that is needed.
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
            // A connection that breaks is often the first that is seen of an API server that ends.
            Some(failure @ Failure::Send(SendError::Lost(_))) => {
                api.failed(probe, begun, failure, target);
                self.server.suspected();
            }
            Some(failure @ Failure::Timeout(_)) => api.failed(probe, begun, failure, target),
            // What was not asked says nothing, and a server that closes its connections properly is well.
            Some(
                Failure::NotReady
                | Failure::Skipped(_)
                | Failure::Throttled
                | Failure::NoRoom(_)
                | Failure::Busy(_)
                | Failure::Unread(_)
                | Failure::Send(SendError::Closed | SendError::Url(_)),
            ) => {}
            None
            | Some(
                Failure::Status { .. }
                | Failure::TooLarge(_)
                | Failure::TooMuchMemory
                | Failure::TooManyMetrics
                | Failure::Malformed(_),
            ) => {
                self.server.answered(path);
                api.answered(path);
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

    fn answered(&self, path: &Arc<str>) {
        if let BreakerState::Closed { failures, answered } = &mut *self.state() {
            *failures = 0;
            *answered = Some((Instant::now(), path.clone()));
        }
    }

    /// A failure in its row that is more likely somebody else's: it does not end the row, nor is it the last of one.
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
        let BreakerState::Closed { failures, answered } = &mut *state else { return };
        // What has answered others since is not to blame as a whole: some questions take it too long.
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
                "cluster is skipped until it answers in the background"
            );
            let skip = Skip { unreachable, cause, message };
            let looking = tokio::spawn(probe_until_answered(Arc::downgrade(self), probe, target));
            *state = BreakerState::Open { skip, _looking: AbortOnDropHandle::new(looking) };
        }
    }

    fn state(&self) -> MutexGuard<'_, BreakerState> {
        self.0.lock().expect("no holder panics")
    }
}

impl ProbeTarget {
    fn name(&self) -> &'static str {
        match self {
            Self::Server => "API server",
            Self::Api(group, _) => group.name(),
        }
    }

    /// How many attempts may be under way: one that hangs on the way to an API server must not keep the next from
    /// succeeding, and a metrics API that is overloaded must not be asked more than it was.
    fn attempts(&self) -> usize {
        match self {
            Self::Server => 4,
            Self::Api(..) => 1,
        }
    }
}

/// Asks again and again until there is an answer, or the member has left.
async fn probe_until_answered(breaker: Weak<CircuitBreaker>, probe: impl Probe, target: ProbeTarget) {
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
                        tracing::info!(cluster, what, "cluster answers again and is asked again");
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
