//! The timer of HTTP/2 pings.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};

/// How late a timer may be that was on time.
const LATE: Duration = Duration::from_millis(100);
/// How long one that was late goes on.
const GRACE: Duration = Duration::from_millis(100);

/// A timer that goes on for a moment if it was late: this process had no CPU then, and what came meanwhile is still to be
/// read. hyper looks for the end of a ping's time before it reads the ping's answer.
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
            if now.saturating_duration_since(self.0.deadline()) < LATE {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(now + GRACE);
        }
    }
}
