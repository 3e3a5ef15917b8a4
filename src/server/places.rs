//! How many connections there may be at a time, how long each may do nothing, and which one goes when another comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A bounded number of places. When all are taken, the connection that has done nothing for longest makes room.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    by_number: BTreeMap<u64, Arc<watch::Sender<Activity>>>,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    activity: Arc<watch::Sender<Activity>>,
}

/// A request that is being answered on a connection, until its answer has gone out.
#[derive(Debug)]
pub(super) struct Busy {
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
    /// Nothing, and it has to make room.
    Evicted,
}

/// How long a connection may stay in a phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stay {
    pub(super) idle: Duration,
    pub(super) head: Duration,
    /// `None` where requests are bounded one by one.
    pub(super) busy: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Activity {
    phase: Phase,
    since: Instant,
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: Mutex::default() })
    }

    /// Takes a place; `None` if every one of them is busy.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let activity = Activity { phase: Phase::Idle, since: Instant::now() };
        let activity = Arc::new(watch::Sender::new(activity));
        let mut taken = self.taken();
        if taken.by_number.len() >= self.limit && !taken.evict() {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        taken.by_number.insert(number, activity.clone());
        Some(Place { places: self.clone(), number, activity })
    }

    /// Makes the one go that has done nothing for longest.
    pub(super) fn evict(&self) {
        self.taken().evict();
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Whether one could go.
    fn evict(&mut self) -> bool {
        let idle = self.by_number.iter().filter_map(|(number, activity)| {
            let Activity { phase, since } = *activity.borrow();
            matches!(phase, Phase::Idle | Phase::Head).then_some((since, *number))
        });
        let Some((_, longest)) = idle.min() else { return false };
        if let Some(activity) = self.by_number.remove(&longest) {
            turn(&activity, Phase::Evicted);
        }
        true
    }
}

impl Place {
    /// Notes that a request has come; it is being answered until the guard is dropped.
    pub(super) fn begin(&self) -> Busy {
        self.activity.send_modify(|activity| match &mut activity.phase {
            Phase::Busy(requests) => *requests += 1,
            _ => *activity = Activity { phase: Phase::Busy(1), since: Instant::now() },
        });
        Busy { activity: self.activity.clone() }
    }

    /// Notes that bytes have come in, which begin a request's head if nothing else goes on.
    pub(super) fn received(&self) {
        if self.activity.borrow().phase == Phase::Idle {
            turn(&self.activity, Phase::Head);
        }
    }

    /// Begins anew to do nothing, unless a request is being answered.
    pub(super) fn rest(&self) {
        if !matches!(self.activity.borrow().phase, Phase::Busy(_)) {
            turn(&self.activity, Phase::Idle);
        }
    }

    /// Waits until the connection has been in one phase for longer than it may, and says in which.
    pub(super) async fn overstayed(&self, stay: Stay) -> Phase {
        let mut activity = self.activity.subscribe();
        loop {
            let Activity { phase, since } = *activity.borrow_and_update();
            let limit = match phase {
                Phase::Idle => Some(stay.idle),
                Phase::Head => Some(stay.head),
                Phase::Busy(_) => stay.busy,
                Phase::Evicted => return phase,
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

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().by_number.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.send_modify(|activity| match &mut activity.phase {
            Phase::Busy(requests) if *requests > 1 => *requests -= 1,
            _ => *activity = Activity { phase: Phase::Idle, since: Instant::now() },
        });
    }
}

fn turn(activity: &watch::Sender<Activity>, phase: Phase) {
    activity.send_replace(Activity { phase, since: Instant::now() });
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAY: Stay = Stay {
        idle: Duration::from_millis(30),
        head: Duration::from_millis(10),
        busy: Some(Duration::from_millis(20)),
    };
    const FOREVER: Stay =
        Stay { idle: Duration::from_secs(3600), head: Duration::from_secs(3600), busy: None };

    #[tokio::test]
    async fn the_connection_that_has_done_nothing_for_longest_makes_room() {
        let places = Places::new(2);
        let (busy, idle) = (places.take().expect("room"), places.take().expect("room"));
        let _request = busy.begin();
        let new = places.take().expect("the idle one makes room");
        assert_eq!(idle.overstayed(FOREVER).await, Phase::Evicted);
        drop(idle);
        let request = new.begin();
        assert!(places.take().is_none(), "none is idle");
        drop(request);
        assert!(places.take().is_some());
    }

    #[tokio::test]
    async fn each_phase_has_its_own_time() {
        let places = Places::new(1);
        let place = places.take().expect("room");
        let start = Instant::now();
        assert_eq!(place.overstayed(STAY).await, Phase::Idle);
        assert!(start.elapsed() >= Duration::from_millis(30));
        place.received();
        assert_eq!(place.overstayed(STAY).await, Phase::Head);
        assert!(start.elapsed() >= Duration::from_millis(40));
        let _request = place.begin();
        place.received();
        assert_eq!(place.overstayed(STAY).await, Phase::Busy(1));
        assert!(start.elapsed() >= Duration::from_millis(60));
    }
}
