//! Whether a member is worth asking: one that fails again and again is skipped, so that no answer waits for it, and
//! asked in the background until it answers.
//!
//! It is skipped as what it was: unreachable, if its API server did not answer; ill, if only its metrics API did
//! not. Failures that come at once, such as an HTTP status, cost nobody time and skip nothing.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Failure, Member};
use crate::process::budget::Claim;

/// How many failures in a row it takes.
const FAILURES: u32 = 3;
/// The first and the longest pause between two attempts in the background. A member is taken back within the
/// longest one and its jitter.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(800));
/// How many attempts may be under way: one that hangs must not keep the next from succeeding.
const ATTEMPTS: usize = 4;

/// Why a member is not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// Whether its API server could not be reached, or only its metrics API failed.
    pub unreachable: bool,
    /// The failure that led to it.
    pub cause: String,
}

/// The state of one member.
#[derive(Default)]
pub(super) struct Health {
    state: Mutex<State>,
}

enum State {
    Asked { failures: u32 },
    Skipped { skip: Skip, _looking: AbortOnDropHandle<()> },
}

impl Default for State {
    fn default() -> Self {
        Self::Asked { failures: 0 }
    }
}

impl Health {
    pub(super) fn skipped(&self) -> Option<Skip> {
        match &*self.state() {
            State::Asked { .. } => None,
            State::Skipped { skip, .. } => Some(skip.clone()),
        }
    }

    pub(super) fn note(
        &self,
        member: &Arc<Member>,
        path: impl FnOnce() -> String,
        failure: Option<&Failure>,
    ) {
        let costly = failure.filter(|failure| {
            matches!(failure, Failure::Connect(_) | Failure::Silent | Failure::Lost(_) | Failure::Timeout(_))
        });
        let mut state = self.state();
        let State::Asked { failures } = &mut *state else { return };
        let Some(failure) = costly else {
            *failures = 0;
            return;
        };
        *failures += 1;
        if *failures >= FAILURES {
            let skip = Skip { unreachable: failure.is_unreachable(), cause: failure.to_string() };
            tracing::warn!(
                cluster = member.name(),
                unreachable = skip.unreachable,
                cause = skip.cause,
                "cluster is skipped until it answers in the background"
            );
            let looking = look_after(Arc::downgrade(member), skip.unreachable, path());
            *state = State::Skipped { skip, _looking: AbortOnDropHandle::new(tokio::spawn(looking)) };
        }
    }

    fn recovered(&self, name: &str) {
        tracing::info!(cluster = name, "cluster answers again and is asked again");
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// Asks again and again, on new connections where none answered, until somebody does.
async fn look_after(member: Weak<Member>, unreachable: bool, path: String) {
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
                        member.health.recovered(member.name());
                    }
                    return;
                },
            }
        }
        let Some(member) = member.upgrade() else { return };
        if attempts.len() < ATTEMPTS {
            let path = path.clone();
            attempts.push(async move { answers(&member, unreachable, &path).await });
        }
    }
}

async fn answers(member: &Member, unreachable: bool, path: &str) -> bool {
    let transport = member.transport();
    if unreachable {
        return timeout(member.timeout, transport.probe()).await.is_ok_and(|probed| probed.is_ok());
    }
    timeout(member.timeout, transport.get(path, super::ACCEPT, Claim::Exempt))
        .await
        .is_ok_and(|reply| reply.is_ok())
}
