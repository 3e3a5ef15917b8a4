//! The timer for HTTP/2 pings.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// A timer that fires later than this after its deadline is late.
const LATE_AFTER: Duration = Duration::from_millis(100);
/// How long a late timer is extended.
const EXTENSION: Duration = Duration::from_millis(100);

/// A timer that is extended if it fires late. A late timer means that this process had no CPU, so it has not yet read the
/// frames that arrived in the meantime. hyper checks the timeout of a ping before it reads the response to the ping.
#[derive(Clone, Copy, Debug)]
pub(super) struct GraceTimer;

struct GraceSleep(Pin<Box<tokio::time::Sleep>>);

impl Timer for GraceTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(GraceSleep(Box::pin(tokio::time::sleep_until(deadline.into()))))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<GraceSleep>() {
            Some(mut sleep) => sleep.0.as_mut().reset(deadline.into()),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}

impl Sleep for GraceSleep {}

impl Future for GraceSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.0.as_mut().poll(context));
            let now = tokio::time::Instant::now();
            if now.saturating_duration_since(self.0.deadline()) < LATE_AFTER {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(now + EXTENSION);
        }
    }
}
