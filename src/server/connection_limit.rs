//! Connection limit: counts connections, limits how long each phase of a connection may take, and evicts idle connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

/// Connection limit. When it is reached, the connection that is idle for longest is evicted. Closing it frees its slot.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    free: Arc<Semaphore>,
    taken: Mutex<SlotTable>,
}

#[derive(Debug, Default)]
struct SlotTable {
    next: u64,
    by_number: BTreeMap<u64, Arc<watch::Sender<Activity>>>,
}

/// The slot of one connection. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    limit: Arc<ConnectionLimit>,
    number: u64,
    activity: Arc<watch::Sender<Activity>>,
    _permit: OwnedSemaphorePermit,
}

/// A request in flight on a connection. It is dropped when the response is sent.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    activity: Arc<watch::Sender<Activity>>,
}

/// Phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request.
    Idle,
    /// The head of a request is being received (HTTP/1.1).
    Head,
    /// The number of requests in flight.
    Busy(usize),
}

/// Maximum duration of each phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct PhaseLimits {
    pub(super) idle: Duration,
    pub(super) head: Duration,
    /// `None` if each request has its own timeout.
    pub(super) busy: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Activity {
    phase: Phase,
    since: Instant,
    is_evicted: bool,
}

impl ConnectionLimit {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { free, taken: Mutex::default() })
    }

    /// Takes a slot. If none is free, evicts a connection and waits until it is closed. `None` if every connection has requests
    /// in flight or is evicted already.
    pub(super) async fn take(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if self.evict() => self.free.clone().acquire_owned().await.ok()?,
            Err(_) => return None,
        };
        let activity = Activity { phase: Phase::Idle, since: Instant::now(), is_evicted: false };
        let activity = Arc::new(watch::Sender::new(activity));
        let mut taken = self.taken();
        let number = taken.next;
        taken.next += 1;
        taken.by_number.insert(number, activity.clone());
        Some(ConnectionSlot { limit: self.clone(), number, activity, _permit: permit })
    }

    /// Evicts the connection that has had no request in flight for longest. Returns whether there is one. A connection with a
    /// request in flight is never evicted.
    pub(super) fn evict(&self) -> bool {
        let taken = self.taken();
        loop {
            let idle = taken.by_number.values().filter_map(|activity| {
                let current = *activity.borrow();
                current.can_be_evicted().then_some((current.since, activity))
            });
            let Some((_, longest)) = idle.min_by_key(|(since, _)| *since) else { return false };
            // A request may have arrived in the meantime.
            let evicted = longest.send_if_modified(|activity| {
                let can_be_evicted = activity.can_be_evicted();
                activity.is_evicted |= can_be_evicted;
                can_be_evicted
            });
            if evicted {
                return true;
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, SlotTable> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    fn can_be_evicted(&self) -> bool {
        !self.is_evicted && !matches!(self.phase, Phase::Busy(_))
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, Instant::now());
    }
}

impl ConnectionSlot {
    /// Counts a request as in flight until the guard is dropped.
    pub(super) fn begin_request(&self) -> ActiveRequest {
        self.activity.send_modify(|activity| match &mut activity.phase {
            Phase::Busy(requests) => *requests += 1,
            _ => activity.enter(Phase::Busy(1)),
        });
        ActiveRequest { activity: self.activity.clone() }
    }

    /// Called for received bytes: if the connection is idle, they start a request's head.
    pub(super) fn received(&self) {
        self.activity.send_if_modified(|activity| {
            let is_idle = activity.phase == Phase::Idle;
            if is_idle {
                activity.enter(Phase::Head);
            }
            is_idle
        });
    }

    /// Restarts the idle phase, unless requests are in flight.
    pub(super) fn set_idle(&self) {
        self.activity.send_if_modified(|activity| {
            let is_idle = !matches!(activity.phase, Phase::Busy(_));
            if is_idle {
                activity.enter(Phase::Idle);
            }
            is_idle
        });
    }

    /// Waits until the connection is evicted.
    pub(super) async fn evicted(&self) {
        let mut activity = self.activity.subscribe();
        if activity.wait_for(|activity| activity.is_evicted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the current phase exceeds its limit. Returns this phase.
    pub(super) async fn expired(&self, limits: PhaseLimits) -> Phase {
        let mut activity = self.activity.subscribe();
        loop {
            let Activity { phase, since, .. } = *activity.borrow_and_update();
            let limit = match phase {
                Phase::Idle => Some(limits.idle),
                Phase::Head => Some(limits.head),
                Phase::Busy(_) => limits.busy,
            };
            let timeout = async {
                match limit {
                    Some(limit) => sleep_until(since + limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timeout => return phase,
                changed = activity.changed() => if changed.is_err() { return phase },
            }
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.limit.taken().by_number.remove(&self.number);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.activity.send_modify(|activity| match &mut activity.phase {
            Phase::Busy(requests) if *requests > 1 => *requests -= 1,
            _ => activity.enter(Phase::Idle),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PhaseLimits = PhaseLimits {
        idle: Duration::from_millis(30),
        head: Duration::from_millis(10),
        busy: Some(Duration::from_millis(20)),
    };

    #[tokio::test]
    async fn longest_idle_connection_is_evicted() {
        let limit = ConnectionLimit::new(2);
        let (busy, idle) =
            (limit.take().await.expect("a free slot"), limit.take().await.expect("a free slot"));
        let _request = busy.begin_request();
        let mut taking = std::pin::pin!(limit.take());
        tokio::select! {
            biased;
            _ = &mut taking => panic!("two connections are open"),
            () = idle.evicted() => {}
        }
        assert!(limit.take().await.is_none(), "one is busy and one is evicted");
        drop(idle);
        let new = taking.await.expect("the slot of the idle connection");
        let request = new.begin_request();
        assert!(limit.take().await.is_none(), "no connection is idle");
        drop(request);
        let (taken, ()) = tokio::join!(limit.take(), async {
            new.evicted().await;
            drop(new);
        });
        assert!(taken.is_some());
    }

    #[tokio::test]
    async fn each_phase_has_its_own_limit() {
        let limit = ConnectionLimit::new(1);
        let slot = limit.take().await.expect("a free slot");
        let start = Instant::now();
        assert_eq!(slot.expired(LIMITS).await, Phase::Idle);
        assert!(start.elapsed() >= Duration::from_millis(30));
        slot.received();
        assert_eq!(slot.expired(LIMITS).await, Phase::Head);
        assert!(start.elapsed() >= Duration::from_millis(40));
        let _request = slot.begin_request();
        slot.received();
        assert_eq!(slot.expired(LIMITS).await, Phase::Busy(1));
        assert!(start.elapsed() >= Duration::from_millis(60));
    }
}
