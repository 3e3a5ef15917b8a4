//! Rate limit for requests that this process sends.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::RateLimit;

/// A token bucket. At the start it is full.
pub struct Bucket(DefaultDirectRateLimiter);

impl Bucket {
    /// `None` means no limit: the rate or the burst is 0 or cannot be represented.
    pub fn new(RateLimit { qps, burst }: RateLimit) -> Option<Self> {
        let period = Duration::try_from_secs_f64(1.0 / f64::from(qps)).ok()?;
        let quota = Quota::with_period(period)?.allow_burst(NonZeroU32::new(burst)?);
        Some(Self(RateLimiter::direct(quota)))
    }

    /// Waits for a token and takes it.
    pub async fn token(&self) {
        while let Err(early) = self.0.check() {
            tokio::time::sleep(early.wait_time_from(DefaultClock::default().now())).await;
        }
    }
}
