//! Progress of one attempt to send a request.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Progress of one attempt to send a request. After a timeout, the last stage is the reason why there is no response.
#[derive(Debug)]
pub struct Progress(Mutex<ProgressState>);

/// A stage of an attempt. A retry on another connection starts again at [`Stage::Waiting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The request waits until its rate limit allows it.
    Throttled,
    /// The request waits for a free connection or stream, or for the permit to begin a TLS handshake.
    Waiting,
    /// The request waits for a connection that is being established.
    Connecting,
    /// The request was sent.
    Sent,
    /// The head of the response was received.
    Reading,
    /// The response was received and waits for a free processor, which parses it.
    Received,
    /// The server rejected the credentials, and the request waits for newer credentials.
    WaitingForCredentials,
}

#[derive(Debug)]
struct ProgressState {
    stage: Stage,
    since: Instant,
    /// Earlier time in [`Stage::Waiting`].
    waited: Duration,
    /// Earlier time in [`Stage::Throttled`].
    throttled: Duration,
}

impl Progress {
    /// The current stage.
    pub fn stage(&self) -> Stage {
        self.state().stage
    }

    /// Total time in [`Stage::Waiting`].
    pub fn waited(&self) -> Duration {
        let state = self.state();
        state.waited + state.time_in(Stage::Waiting)
    }

    /// Total time in [`Stage::Throttled`].
    pub fn throttled(&self) -> Duration {
        let state = self.state();
        state.throttled + state.time_in(Stage::Throttled)
    }

    /// Enters a stage.
    pub fn set(&self, stage: Stage) {
        let mut state = self.state();
        *state = ProgressState {
            stage,
            since: Instant::now(),
            waited: state.waited + state.time_in(Stage::Waiting),
            throttled: state.throttled + state.time_in(Stage::Throttled),
        };
    }

    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.0.lock().expect("not poisoned")
    }
}

impl ProgressState {
    /// Time in the current stage, if that is `stage`.
    fn time_in(&self, stage: Stage) -> Duration {
        if self.stage == stage { self.since.elapsed() } else { Duration::ZERO }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(ProgressState {
            stage: Stage::Waiting,
            since: Instant::now(),
            waited: Duration::ZERO,
            throttled: Duration::ZERO,
        }))
    }
}
