//! Watches that restart after each interruption: a new client, a resource version that is gone (410), a dead connection.

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

/// The delay after the first error, and the maximum delay.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A watch that runs until it is dropped.
pub struct Watch {
    relist: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

/// Starts watches with common settings.
pub struct Watcher<T> {
    clients: Clients,
    timeout: Duration,
    queue: mpsc::Sender<(Instant, T)>,
}

impl<T: Send + 'static> Watcher<T> {
    /// The watches use the current client and send their events to `queue`. The API server ends each watch request after
    /// `timeout`, then the watch continues with a new request.
    pub fn new(clients: Clients, timeout: Duration, queue: mpsc::Sender<(Instant, T)>) -> Self {
        Self { clients, timeout, queue }
    }

    /// Starts a watch. Errors are logged, and the watch continues. `what` names the watched objects in the log, for example
    /// `secrets in the namespace x`.
    pub fn start<K>(
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
        // The API takes whole seconds.
        let seconds = u32::try_from(self.timeout.as_secs()).unwrap_or(u32::MAX).max(1);
        let relist = Arc::new(Notify::new());
        let relist_requested = relist.clone();
        let watching = async move {
            let mut errors = WatchErrors { what, logged: None, delays: delays() };
            let config = selected.timeout(seconds);
            loop {
                let mut events = std::pin::pin!(watcher(api(clients.latest()), config.clone()));
                loop {
                    let event = tokio::select! {
                        event = events.next() => event,
                        () = clients.changed() => break,
                        () = relist_requested.notified() => {
                            tracing::warn!(
                                what = errors.what,
                                "an existing object is missing from the list; listing again"
                            );
                            sleep(BACKOFF.1).await;
                            break;
                        }
                    };
                    match event {
                        Some(Ok(event)) => {
                            // `Init` comes before the API server has responded to the list request.
                            if !matches!(event, Event::Init) {
                                errors.clear();
                            }
                            if queue.send((Instant::now(), into_change(event))).await.is_err() {
                                return;
                            }
                        }
                        Some(Err(error)) => {
                            sleep(errors.note(&error)).await;
                            // kube's watcher would request the same resource version forever.
                            if is_gone(&error) {
                                break;
                            }
                        }
                        None => break,
                    }
                }
            }
        };
        Watch { relist, _task: AbortOnDropHandle::new(tokio::spawn(watching)) }
    }
}

impl Watch {
    /// Reports that an existing object is missing from the last list. The watch lists again after 5 s.
    pub fn request_relist(&self) {
        self.relist.notify_one();
    }
}

/// Logs an error once, until the watch works again or the error changes.
struct WatchErrors {
    what: String,
    logged: Option<String>,
    delays: ExponentialBackoff,
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(BACKOFF.0)
        .with_max_delay(BACKOFF.1)
        .with_jitter()
        .without_max_times()
        .build()
}

impl WatchErrors {
    /// Logs the error. Returns the delay until the next try.
    fn note(&mut self, error: &watcher::Error) -> Duration {
        let what = &self.what;
        let text = error.to_string();
        if self.logged.as_ref() == Some(&text) {
            tracing::debug!(what, error = text, "watching the control plane failed again");
        } else if is_forbidden(error) {
            tracing::warn!(
                error = text,
                "watching the control plane is forbidden; grant this user the verbs get, list and watch on {what}"
            );
        } else {
            tracing::warn!(what, error = text, "watching the control plane failed; trying again");
        }
        self.logged = Some(text);
        self.delays.next().unwrap_or(BACKOFF.1)
    }

    /// Resets the delay. Logs that the watch works again if an error was logged before.
    fn clear(&mut self) {
        self.delays = delays();
        if self.logged.take().is_some() {
            tracing::info!(what = self.what, "watching the control plane works again");
        }
    }
}

/// Whether the error is a `Status` of the API server with this code.
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
