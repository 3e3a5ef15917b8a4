//! Clients that ask without a pause.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
use crate::stage::MEMBERS;

/// How many there are.
pub const CLIENTS: usize = 8;

/// Clients that ask through the control plane until they are dropped.
pub struct Load {
    seen: Arc<Seen>,
    _clients: Vec<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Seen {
    asked: AtomicUsize,
    answered: AtomicUsize,
    failed: AtomicUsize,
    last_failure: Mutex<String>,
}

impl Load {
    /// `path` is given another number for each query.
    pub fn start(api: &Api, path: fn(usize) -> String) -> Self {
        let seen = Arc::new(Seen::default());
        let client = || AbortOnDropHandle::new(tokio::spawn(ask(api.clone(), path, seen.clone())));
        let clients = (0..CLIENTS).map(|_| client()).collect();
        Self { seen, _clients: clients }
    }

    /// Queries that were answered with the values of all members, and those that were not.
    pub fn counts(&self) -> (usize, usize) {
        (self.seen.answered.load(Ordering::Relaxed), self.seen.failed.load(Ordering::Relaxed))
    }

    pub fn last_failure(&self) -> String {
        self.seen.last_failure.lock().expect("no holder panics").clone()
    }
}

async fn ask(api: Api, path: fn(usize) -> String, seen: Arc<Seen>) {
    loop {
        let number = seen.asked.fetch_add(1, Ordering::Relaxed);
        let failure = match api.answer(&path(number)).await {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body);
                let is_whole = MEMBERS.iter().all(|member| text.contains(member));
                let (status, warnings) = (answer.status, answer.warnings());
                let is_well = status.is_success() && warnings.is_empty() && is_whole;
                (!is_well).then(|| format!("{status}: {warnings:?}: {text}"))
            }
            Err(error) => Some(format!("{error:#}")),
        };
        let counter = if failure.is_none() { &seen.answered } else { &seen.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = failure {
            *seen.last_failure.lock().expect("no holder panics") = failure;
        }
    }
}
