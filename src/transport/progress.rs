//! How far an attempt at a request has come.

use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How far an attempt has come, kept by whoever makes it and read when its time is over: that says why there is no
/// response.
#[derive(Debug)]
pub struct Progress(Mutex<ProgressState>);

/// A stage of an attempt. One that is repeated on another connection begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits until one of the connections or streams that there may be is free.
    Waiting,
    /// It waits for a connection that is being made.
    Connecting,
    /// The request was sent.
    Sent,
    /// The response has begun.
    Reading,
    /// The response is there and waits for a processor that reads it.
    Received,
    /// The server has refused its credentials, and it waits for newer ones.
    Refused,
}

#[derive(Debug)]
struct ProgressState {
    stage: Stage,
    since: Instant,
    /// How long it was [`Stage::Waiting`] before.
    waited: Duration,
}

impl Progress {
    /// What it has come to.
    pub fn stage(&self) -> Stage {
        self.state().stage
    }

    /// How long it has been [`Stage::Waiting`], all in all.
    pub fn waited(&self) -> Duration {
        let state = self.state();
        state.waited + state.waiting()
    }

    /// Notes a stage.
    pub fn set(&self, stage: Stage) {
        let mut state = self.state();
        let waited = state.waited + state.waiting();
        *state = ProgressState { stage, since: Instant::now(), waited };
    }

    fn state(&self) -> MutexGuard<'_, ProgressState> {
        self.0.lock().expect("no holder panics")
    }
}

impl ProgressState {
    fn waiting(&self) -> Duration {
        if self.stage == Stage::Waiting { self.since.elapsed() } else { Duration::ZERO }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(ProgressState {
            stage: Stage::Waiting,
            since: Instant::now(),
            waited: Duration::ZERO,
        }))
    }
}
