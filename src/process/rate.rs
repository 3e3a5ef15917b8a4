//! How many requests a second this process allows itself.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::config::RateLimit;

/// A token bucket, which is full at first.
pub struct Bucket(DefaultDirectRateLimiter);

impl Bucket {
    /// `None` if the rate is too small to be one.
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
