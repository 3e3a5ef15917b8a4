//! Watches: a stream of JSON lines that follows the store's history.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, Sleep, interval_at, sleep};

use super::resources::Resource;
use super::selection::Selection;
use super::store::{Change, Position};
use crate::control_plane::Plane;
use crate::control_plane::reply::Failure;
use crate::https::{Body, streamed};

/// Interval of bookmarks on a watch without events.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// Switches with which tests control all watches.
pub(crate) struct Switches {
    drops: watch::Sender<u64>,
    silent: watch::Sender<bool>,
    /// Watches that started before an increment send nothing any more.
    stalls: watch::Sender<u64>,
    bookmarks: watch::Sender<u64>,
    /// Whether a watch from an expired revision is rejected at once.
    refuse_gone: AtomicBool,
}

/// The parameters of a watch.
pub(crate) struct Options {
    pub(crate) resource: &'static Resource,
    pub(crate) selection: Selection,
    /// The revision to start after. `None` starts with an ADDED event for each existing object.
    pub(crate) after: Option<u64>,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Duration,
    /// Whether the existing objects are omitted at the start.
    pub(crate) begin_empty: bool,
}

type Lines = mpsc::Sender<io::Result<Bytes>>;

/// A running watch.
struct Watching {
    options: Options,
    lines: Lines,
    position: watch::Receiver<Position>,
    compactions: u64,
    sent: u64,
    silent: watch::Receiver<bool>,
    bookmarks: watch::Receiver<u64>,
    bookmark: Interval,
    end: Pin<Box<Sleep>>,
}

/// The next step of a watch.
enum Due {
    Changes,
    Bookmark,
    End,
}

/// Reason for the end of a watch.
enum End {
    /// A normal end.
    Whole,
    /// The connection or stream must be reset.
    Broken,
}

impl Switches {
    pub(crate) fn new() -> Self {
        Self {
            drops: watch::Sender::new(0),
            silent: watch::Sender::new(false),
            stalls: watch::Sender::new(0),
            bookmarks: watch::Sender::new(0),
            refuse_gone: AtomicBool::new(false),
        }
    }

    pub(crate) fn drop_all(&self) {
        self.drops.send_modify(|drops| *drops += 1);
    }

    pub(crate) fn silence(&self, silent: bool) {
        self.silent.send_replace(silent);
    }

    pub(crate) fn stall(&self) {
        self.stalls.send_modify(|stalls| *stalls += 1);
    }

    pub(crate) fn bookmark(&self) {
        self.bookmarks.send_modify(|bookmarks| *bookmarks += 1);
    }

    pub(crate) fn refuse_gone(&self) {
        self.refuse_gone.store(true, Ordering::Relaxed);
    }

    pub(crate) fn refuses_gone(&self) -> bool {
        self.refuse_gone.load(Ordering::Relaxed)
    }
}

/// Starts a watch. It ends at its timeout, when the client leaves, or by a switch.
pub(crate) fn begin(plane: Arc<Plane>, options: Options) -> Body {
    let (lines, mut received) = mpsc::channel(64);
    let position = plane.store.position();
    let compactions = position.borrow().compactions;
    let watching = Watching {
        lines: lines.clone(),
        compactions,
        sent: options.after.unwrap_or_default(),
        silent: plane.watches.silent.subscribe(),
        bookmarks: plane.watches.bookmarks.subscribe(),
        bookmark: interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY),
        end: Box::pin(sleep(options.timeout)),
        position,
        options,
    };
    let mut drops = plane.watches.drops.subscribe();
    let mut stalls = plane.watches.stalls.subscribe();
    tokio::spawn(async move {
        let end = tokio::select! {
            // A change after a switch must not be sent before the switch takes effect.
            biased;
            () = lines.closed() => return,
            _ = drops.changed() => End::Broken,
            _ = stalls.changed() => return lines.closed().await,
            end = watching.run(&plane) => end,
        };
        if matches!(end, End::Broken) {
            let _ = lines
                .send(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the watch was dropped")))
                .await;
        }
    });
    streamed(futures::stream::poll_fn(move |context| received.poll_recv(context)))
}

impl Watching {
    async fn run(mut self, plane: &Plane) -> End {
        if self.options.after.is_none() && self.begin(plane).await.is_none() {
            return End::Whole;
        }
        let mut due = Due::Changes;
        loop {
            // While watches are silent, due steps wait.
            if self.silent.wait_for(|silent| !silent).await.is_err() || self.catch_up(plane).await.is_none() {
                return End::Whole;
            }
            match due {
                Due::Changes => {}
                Due::Bookmark => self.send_bookmark().await,
                Due::End => {
                    self.send_bookmark().await;
                    return End::Whole;
                }
            }
            due = tokio::select! {
                changed = self.position.changed() => if changed.is_ok() { Due::Changes } else { Due::End },
                _ = self.silent.changed() => Due::Changes,
                _ = self.bookmarks.changed() => Due::Bookmark,
                _ = self.bookmark.tick() => Due::Bookmark,
                () = &mut self.end => Due::End,
            };
        }
    }

    /// Sends the existing objects. `None` if the client has left.
    async fn begin(&mut self, plane: &Plane) -> Option<()> {
        let snapshot = plane.store.snapshot(self.options.resource, None).ok()?;
        self.sent = snapshot.revision;
        if !self.options.begin_empty {
            for object in snapshot.objects.values().filter(|object| self.options.selection.matches(object)) {
                self.send("ADDED", object).await?;
            }
        }
        Some(())
    }

    /// Sends the changes since the last event. `None` if the watch is over.
    async fn catch_up(&mut self, plane: &Plane) -> Option<()> {
        let position = *self.position.borrow_and_update();
        let changes = match plane.store.changes_after(self.sent) {
            Ok(changes) if position.compactions == self.compactions => changes,
            outcome => {
                let oldest = outcome
                    .err()
                    .unwrap_or(super::store::RevisionError::Expired { oldest: position.revision });
                self.send("ERROR", &Failure::revision(self.sent, &oldest).status()).await;
                return None;
            }
        };
        for change in changes {
            self.sent = change.revision;
            if let Some((kind, object)) = event(&change, &self.options) {
                self.send(kind, &object).await?;
            }
        }
        Some(())
    }

    async fn send_bookmark(&mut self) {
        if self.options.bookmarks {
            let resource = self.options.resource;
            let bookmark = json!({
                "kind": resource.kind,
                "apiVersion": resource.api_version(),
                "metadata": {"resourceVersion": self.sent.to_string(), "creationTimestamp": null},
            });
            self.send("BOOKMARK", &bookmark).await;
        }
    }

    async fn send(&self, kind: &str, object: &Value) -> Option<()> {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.lines.send(Ok(Bytes::from(line))).await.ok()
    }
}

/// The event of a change for a watch. An object that no longer matches is DELETED, an object that starts to match is ADDED.
/// Follows the watch cache's `convertToWatchEvent`.
fn event(change: &Change, options: &Options) -> Option<(&'static str, Value)> {
    if change.key.0 != options.resource.plural {
        return None;
    }
    let matching =
        |object: &Option<Arc<Value>>| object.clone().filter(|object| options.selection.matches(object));
    match (matching(&change.before), matching(&change.after)) {
        (None, Some(after)) => Some(("ADDED", Value::clone(&after))),
        (Some(_), Some(after)) => Some(("MODIFIED", Value::clone(&after))),
        (Some(before), None) => {
            let mut last = Value::clone(&before);
            last["metadata"]["resourceVersion"] = json!(change.revision.to_string());
            Some(("DELETED", last))
        }
        (None, None) => None,
    }
}
