//! How many connections there may be at a time, how long each may do nothing, and which one goes when another comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

/// A bounded number of places. When all are taken, the connection that has done nothing for longest has to leave, and its place
/// is free once it is closed.
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

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    places: Arc<ConnectionLimit>,
    number: u64,
    activity: Arc<watch::Sender<Activity>>,
    _permit: OwnedSemaphorePermit,
}

/// A request that is being answered on a connection, until its answer has gone out.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    activity: Arc<watch::Sender<Activity>>,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing.
    Idle,
    /// A request's head has begun to come in (HTTP/1.1).
    Head,
    /// It answers so many requests.
    Busy(usize),
}

/// How long a connection may stay in a phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdleLimits {
    pub(super) idle: Duration,
    pub(super) head: Duration,
    /// `None` where requests are bounded one by one.
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

    /// Takes a place, which may have to be left by another connection first. `None` if every one of them is busy, or has to
    /// leave already.
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
        Some(ConnectionSlot { places: self.clone(), number, activity, _permit: permit })
    }

    /// Has the connection leave that has done nothing for longest; whether there is one. None leaves that answers a request.
    pub(super) fn evict(&self) -> bool {
        let taken = self.taken();
        loop {
            let idle = taken.by_number.values().filter_map(|activity| {
                let current = *activity.borrow();
                current.can_be_evicted().then_some((current.since, activity))
            });
            let Some((_, longest)) = idle.min_by_key(|(since, _)| *since) else { return false };
            // A request may have come meanwhile.
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

    fn turn(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, Instant::now());
    }
}

impl ConnectionSlot {
    /// Notes that a request has come; it is being answered until the guard is dropped.
    pub(super) fn begin(&self) -> ActiveRequest {
        self.activity.send_modify(|activity| match &mut activity.phase {
            Phase::Busy(requests) => *requests += 1,
            _ => activity.turn(Phase::Busy(1)),
        });
        ActiveRequest { activity: self.activity.clone() }
    }

    /// Notes that bytes have come in, which begin a request's head if nothing else goes on.
    pub(super) fn received(&self) {
        self.activity.send_if_modified(|activity| {
            let begins = activity.phase == Phase::Idle;
            if begins {
                activity.turn(Phase::Head);
            }
            begins
        });
    }

    /// Begins anew to do nothing, unless a request is being answered.
    pub(super) fn rest(&self) {
        self.activity.send_if_modified(|activity| {
            let rests = !matches!(activity.phase, Phase::Busy(_));
            if rests {
                activity.turn(Phase::Idle);
            }
            rests
        });
    }

    /// Waits until another connection needs the place.
    pub(super) async fn evicted(&self) {
        let mut activity = self.activity.subscribe();
        if activity.wait_for(|activity| activity.is_evicted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the connection has been in one phase for longer than it may, and says in which.
    pub(super) async fn expired(&self, stay: IdleLimits) -> Phase {
        let mut activity = self.activity.subscribe();
        loop {
            let Activity { phase, since, .. } = *activity.borrow_and_update();
            let limit = match phase {
                Phase::Idle => Some(stay.idle),
                Phase::Head => Some(stay.head),
                Phase::Busy(_) => stay.busy,
            };
            let over = async {
                match limit {
                    Some(limit) => sleep_until(since + limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return phase,
                changed = activity.changed() => if changed.is_err() { return phase },
            }
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.places.taken().by_number.remove(&self.number);
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.activity.send_modify(|activity| match &mut activity.phase {
            Phase::Busy(requests) if *requests > 1 => *requests -= 1,
            _ => activity.turn(Phase::Idle),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAY: IdleLimits = IdleLimits {
        idle: Duration::from_millis(30),
        head: Duration::from_millis(10),
        busy: Some(Duration::from_millis(20)),
    };

    #[tokio::test]
    async fn the_connection_that_has_done_nothing_for_longest_makes_room_once_it_is_closed() {
        let places = ConnectionLimit::new(2);
        let (busy, idle) = (places.take().await.expect("room"), places.take().await.expect("room"));
        let _request = busy.begin();
        let mut taking = std::pin::pin!(places.take());
        tokio::select! {
            biased;
            _ = &mut taking => panic!("there are two"),
            () = idle.evicted() => {}
        }
        assert!(places.take().await.is_none(), "one is busy, and one leaves already");
        drop(idle);
        let new = taking.await.expect("the idle one has made room");
        let request = new.begin();
        assert!(places.take().await.is_none(), "none is idle");
        drop(request);
        let (taken, ()) = tokio::join!(places.take(), async {
            new.evicted().await;
            drop(new);
        });
        assert!(taken.is_some());
    }

    #[tokio::test]
    async fn each_phase_has_its_own_time() {
        let places = ConnectionLimit::new(1);
        let place = places.take().await.expect("room");
        let start = Instant::now();
        assert_eq!(place.expired(STAY).await, Phase::Idle);
        assert!(start.elapsed() >= Duration::from_millis(30));
        place.received();
        assert_eq!(place.expired(STAY).await, Phase::Head);
        assert!(start.elapsed() >= Duration::from_millis(40));
        let _request = place.begin();
        place.received();
        assert_eq!(place.expired(STAY).await, Phase::Busy(1));
        assert!(start.elapsed() >= Duration::from_millis(60));
    }
}
