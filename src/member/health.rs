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
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::transport::Transport;
use super::{Failure, Member};
use crate::api::group::Group;
use crate::process::budget::Claim;

/// How many failures in a row it takes.
const FAILURES: u32 = 3;
/// The first and the longest pause between two attempts in the background. A member is taken back within the
/// longest one and its jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(800));

/// Why a member is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Whether its API server could not be reached, or only its metrics API failed.
    pub unreachable: bool,
    /// The failure that led to it.
    pub cause: String,
}

/// The state of one member: of its API server, and of each metrics API behind it.
#[derive(Default)]
pub(super) struct Health {
    server: Breaker,
    apis: [Breaker; Group::ALL.len()],
}

/// What is asked as long as it answers, and skipped when it has failed again and again.
#[derive(Default)]
struct Breaker(Mutex<State>);

enum State {
    Asked {
        /// How many in a row.
        failures: u32,
        /// When it last answered, and to what.
        answered: Option<(Instant, Arc<str>)>,
    },
    Skipped {
        skip: Skip,
        _looking: AbortOnDropHandle<()>,
    },
}

/// What is looked after.
#[derive(Clone)]
enum Patient {
    /// The API server.
    Server,
    /// A metrics API, by the path that it answered last, else by one that it failed to answer.
    Api(Group, Arc<str>),
}

impl Default for State {
    fn default() -> Self {
        Self::Asked { failures: 0, answered: None }
    }
}

impl Health {
    pub(super) fn skipped(&self, group: Group) -> Option<Skip> {
        self.server.skipped().or_else(|| self.api(group).skipped())
    }

    pub(super) fn note(
        &self,
        member: &Arc<Member>,
        group: Group,
        path: &Arc<str>,
        begun: Instant,
        failure: Option<&Failure>,
    ) {
        let api = self.api(group);
        let patient =
            |answered: Option<Arc<str>>| Patient::Api(group, answered.unwrap_or_else(|| path.clone()));
        match failure {
            Some(failure @ (Failure::Connect(_) | Failure::Silent)) => {
                self.server.failed(member, begun, failure, |_| Patient::Server);
                api.suspected();
            }
            // A connection that breaks is often the first that is seen of an API server that ends.
            Some(failure @ Failure::Lost(_)) => {
                api.failed(member, begun, failure, patient);
                self.server.suspected();
            }
            Some(failure @ Failure::Timeout(_)) => api.failed(member, begun, failure, patient),
            // What was not asked says nothing.
            Some(Failure::NotReady | Failure::Skipped(_) | Failure::Throttled | Failure::NoRoom(_)) => {}
            _ => {
                self.server.answered(path);
                api.answered(path);
            }
        }
    }

    fn of(&self, patient: &Patient) -> &Breaker {
        match patient {
            Patient::Server => &self.server,
            Patient::Api(group, _) => self.api(*group),
        }
    }

    fn api(&self, group: Group) -> &Breaker {
        &self.apis[group as usize]
    }
}

impl Breaker {
    fn skipped(&self) -> Option<Skip> {
        match &*self.state() {
            State::Asked { .. } => None,
            State::Skipped { skip, .. } => Some(skip.clone()),
        }
    }

    fn answered(&self, path: &Arc<str>) {
        if let State::Asked { failures, answered } = &mut *self.state() {
            *failures = 0;
            *answered = Some((Instant::now(), path.clone()));
        }
    }

    /// A failure in its row that is more likely somebody else's: it does not end the row, nor is it the last of one.
    fn suspected(&self) {
        if let State::Asked { failures, .. } = &mut *self.state() {
            *failures = (*failures + 1).min(FAILURES - 1);
        }
    }

    fn failed(
        &self,
        member: &Arc<Member>,
        begun: Instant,
        failure: &Failure,
        patient: impl FnOnce(Option<Arc<str>>) -> Patient,
    ) {
        let mut state = self.state();
        let State::Asked { failures, answered } = &mut *state else { return };
        // What has answered others since is not to blame as a whole: some questions take it too long.
        if answered.as_ref().is_some_and(|(answered, _)| *answered >= begun) {
            return;
        }
        *failures += 1;
        if *failures >= FAILURES {
            let patient = patient(answered.take().map(|(_, path)| path));
            let skip = Skip { unreachable: failure.is_unreachable(), cause: failure.to_string() };
            let (cluster, what, cause) = (member.name(), patient.name(), &skip.cause);
            tracing::warn!(cluster, what, cause, "cluster is skipped until it answers in the background");
            let looking = tokio::spawn(look_after(Arc::downgrade(member), patient));
            *state = State::Skipped { skip, _looking: AbortOnDropHandle::new(looking) };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }
}

impl Patient {
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

    async fn answers(&self, transport: &Transport) -> bool {
        match self {
            Self::Server => transport.probe().await.is_ok(),
            Self::Api(_, path) => transport.get(path, super::ACCEPT, Claim::Bounded).await.is_ok(),
        }
    }
}

/// Asks again and again, on new connections where none answered, until somebody does.
async fn look_after(member: Weak<Member>, patient: Patient) {
    let pauses = ExponentialBuilder::new().with_min_delay(PAUSES.0).with_max_delay(PAUSES.1);
    let mut pauses = pauses.with_jitter().without_max_times().build();
    let mut attempts = FuturesUnordered::new();
    loop {
        let mut pause = std::pin::pin!(sleep(pauses.next().unwrap_or(PAUSES.1)));
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(answered) = attempts.next(), if !attempts.is_empty() => if answered {
                    if let Some(member) = member.upgrade() {
                        let (cluster, what) = (member.name(), patient.name());
                        tracing::info!(cluster, what, "cluster answers again and is asked again");
                        *member.health.of(&patient).state() = State::default();
                    }
                    return;
                },
            }
        }
        // An attempt keeps no member alive that has left the fleet.
        let Some((transport, limit)) = member.upgrade().map(|member| (member.transport(), member.timeout))
        else {
            return;
        };
        if attempts.len() < patient.attempts() {
            let patient = patient.clone();
            attempts.push(async move { timeout(limit, patient.answers(&transport)).await.unwrap_or(false) });
        }
    }
}
