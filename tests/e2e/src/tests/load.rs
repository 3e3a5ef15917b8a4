//! Clients that send queries without a pause.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio_util::task::AbortOnDropHandle;

use crate::api::Api;
use crate::stage::MEMBERS;

/// The number of clients.
pub const CLIENTS: usize = 8;

/// Clients that query the control plane until they are dropped.
pub struct Load {
    seen: Arc<Seen>,
    _clients: Vec<AbortOnDropHandle<()>>,
}

#[derive(Default)]
struct Seen {
    sent: AtomicUsize,
    succeeded: AtomicUsize,
    failed: AtomicUsize,
    last_failure: Mutex<String>,
}

impl Load {
    /// Starts the clients. `path` gets a different number for each query.
    pub fn start(api: &Api, path: fn(usize) -> String) -> Self {
        let seen = Arc::new(Seen::default());
        let client = || AbortOnDropHandle::new(tokio::spawn(send_queries(api.clone(), path, seen.clone())));
        let clients = (0..CLIENTS).map(|_| client()).collect();
        Self { seen, _clients: clients }
    }

    /// The numbers of successful queries, with the values of all members, and of failed queries.
    pub fn counts(&self) -> (usize, usize) {
        (self.seen.succeeded.load(Ordering::Relaxed), self.seen.failed.load(Ordering::Relaxed))
    }

    pub fn last_failure(&self) -> String {
        self.seen.last_failure.lock().expect("not poisoned").clone()
    }
}

async fn send_queries(api: Api, path: fn(usize) -> String, seen: Arc<Seen>) {
    loop {
        let number = seen.sent.fetch_add(1, Ordering::Relaxed);
        let failure = match api.answer(&path(number)).await {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer.body);
                let has_all_members = MEMBERS.iter().all(|member| text.contains(member));
                let (status, warnings) = (answer.status, answer.warnings());
                let is_complete = status.is_success() && warnings.is_empty() && has_all_members;
                (!is_complete).then(|| format!("{status}: {warnings:?}: {text}"))
            }
            Err(error) => Some(format!("{error:#}")),
        };
        let counter = if failure.is_none() { &seen.succeeded } else { &seen.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(failure) = failure {
            *seen.last_failure.lock().expect("not poisoned") = failure;
        }
    }
}
