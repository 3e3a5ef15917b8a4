//! Watches that outlive whatever ends one: another client, a history that is gone, a connection that has died.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures::StreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::Clients;

/// How long to wait after the first trouble, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A watch that goes on until it is dropped.
pub struct Watch {
    distrust: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

/// How everything is watched.
pub struct Watcher<T> {
    clients: Clients,
    timeout: Duration,
    queue: mpsc::Sender<(Instant, T)>,
}

impl<T: Send + 'static> Watcher<T> {
    /// Watches through the current client, `timeout` at a time, whose events go into `queue`.
    pub fn new(clients: Clients, timeout: Duration, queue: mpsc::Sender<(Instant, T)>) -> Self {
        Self { clients, timeout, queue }
    }

    /// Begins a watch. Troubles are logged, and it goes on; `what` says in a log what needs to be
    /// permitted: `secrets in the namespace x`.
    pub fn begin<K>(
        &self,
        what: String,
        selected: watcher::Config,
        api: impl Fn(Client) -> Api<K> + Send + 'static,
        into_change: impl Fn(Event<K>) -> T + Send + 'static,
    ) -> Watch
    where
        K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    {
        let (mut clients, queue) = (self.clients.clone(), self.queue.clone());
        // The API counts in seconds.
        let seconds = u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        let distrust = Arc::new(Notify::new());
        let distrusted = distrust.clone();
        let watching = async move {
            let mut troubles = WatchErrors { what, said: None, pauses: pauses() };
            let config = selected.timeout(seconds);
            loop {
                let mut events = std::pin::pin!(watcher(api(clients.renewed()), config.clone()));
                loop {
                    let event = tokio::select! {
                        event = events.next() => event,
                        () = clients.changed() => break,
                        () = distrusted.notified() => {
                            tracing::warn!(what = troubles.what, "a list lacked what exists; listing again");
                            sleep(BACKOFF.1).await;
                            break;
                        }
                    };
                    match event {
                        Some(Ok(event)) => {
                            // A list begins before anything has come of it.
                            if !matches!(event, Event::Init) {
                                troubles.end();
                            }
                            if queue.send((Instant::now(), into_change(event))).await.is_err() {
                                return;
                            }
                        }
                        Some(Err(error)) => {
                            sleep(troubles.note(&error)).await;
                            // kube's watcher would ask for the same revision for ever.
                            if is_gone(&error) {
                                break;
                            }
                        }
                        None => break,
                    }
                }
            }
        };
        Watch { distrust, _task: AbortOnDropHandle::new(tokio::spawn(watching)) }
    }
}

impl Watch {
    /// What was listed last is not the truth: it has to be listed again, after a while.
    pub fn suspect(&self) {
        self.distrust.notify_one();
    }
}

/// Says what is wrong once, until it is well again.
struct WatchErrors {
    what: String,
    said: Option<String>,
    pauses: ExponentialBackoff,
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .with_jitter()
        .without_max_times()
        .build()
}

impl WatchErrors {
    /// Says how long to wait.
    fn note(&mut self, error: &watcher::Error) -> Duration {
        let what = &self.what;
        let text = error.to_string();
        if self.said.as_ref() == Some(&text) {
            tracing::debug!(what, error = text, "watching the control plane failed again");
        } else if is_forbidden(error) {
            tracing::warn!(
                error = text,
                "watching the control plane is forbidden; grant this user the verbs get, list and watch on {what}"
            );
        } else {
            tracing::warn!(what, error = text, "watching the control plane failed; trying again");
        }
        self.said = Some(text);
        self.pauses.next().unwrap_or(BACKOFF.1)
    }

    fn end(&mut self) {
        self.pauses = pauses();
        if self.said.take().is_some() {
            tracing::info!(what = self.what, "watching the control plane works again");
        }
    }
}

/// Whether the error is this status of the API server.
pub fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(error) if is_status(error, 410))
}

fn is_forbidden(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    matches!(error, InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) if is_status(error, 403))
}
