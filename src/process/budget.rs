//! Limits for the use of a resource, such as bytes or requests. The Prometheus gauge is also the counter that the limit is
//! checked against.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;
use tokio::sync::Notify;

use crate::api::memory::Stopped;

/// A limit and the amount in use. Clones share both.
#[derive(Clone, Debug)]
pub struct Budget {
    limit: i64,
    used: Gauge<i64, AtomicI64>,
    pressure: Arc<Notify>,
}

/// A part of a budget. Dropping it returns the amount to the budget.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    amount: i64,
    /// The maximum of `amount`.
    max: i64,
}

/// A value and the share of the memory budget that it uses.
#[derive(Debug)]
pub struct Reserved<T> {
    // The value is dropped before its share is returned.
    value: T,
    share: Share,
}

/// Why a share cannot grow.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Exhausted {
    /// Not enough of the budget is left.
    #[error("the limit is reached")]
    Budget,
    /// The share has a limit of its own, independent of the rest of the budget.
    #[error("the limit of one share is reached")]
    Share,
}

impl Budget {
    /// Creates a budget. 0 means no limit.
    pub fn new(limit: usize) -> Self {
        let limit = if limit == 0 { i64::MAX } else { clamped(limit) };
        Self { limit, used: Gauge::default(), pressure: Arc::default() }
    }

    /// The gauge of the amount in use.
    pub fn gauge(&self) -> Gauge {
        self.used.clone()
    }

    /// Waits for the next `Share::grow` that uses more than half of the budget or would exceed the budget. The caller should
    /// then release what it does not need.
    pub async fn wait_for_pressure(&self) {
        self.pressure.notified().await;
    }

    /// An empty share that can grow.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), amount: 0, max: i64::MAX }
    }

    /// An empty share that can grow to half of the budget.
    pub fn share_of_half(&self) -> Share {
        Share { budget: self.clone(), amount: 0, max: self.limit / 2 }
    }
}

impl Share {
    /// Takes `amount` more from the budget.
    ///
    /// # Errors
    /// If the budget or the limit of the share would be exceeded. The share is then unchanged.
    pub fn grow(&mut self, amount: usize) -> Result<(), Exhausted> {
        if amount == 0 {
            return Ok(());
        }
        let (amount, limit) = (clamped(amount), self.budget.limit);
        if self.amount.checked_add(amount).is_none_or(|amount| amount > self.max) {
            return Err(Exhausted::Share);
        }
        // One atomic step: a share that requests too much must not make others fail in the meantime.
        let add = |used: i64| used.checked_add(amount).filter(|used| *used <= limit);
        let used = self.budget.used.inner().fetch_update(Relaxed, Relaxed, add);
        if used.ok().is_none_or(|before| before + amount > limit / 2) {
            self.budget.pressure.notify_waiters();
        }
        used.map_err(|_| Exhausted::Budget)?;
        self.amount += amount;
        Ok(())
    }

    /// Returns everything above `amount` to the budget.
    pub fn shrink_to(&mut self, amount: usize) {
        let surplus = self.amount - clamped(amount);
        if surplus > 0 {
            self.budget.used.dec_by(surplus);
            self.amount -= surplus;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.dec_by(self.amount);
    }
}

impl<T> Reserved<T> {
    /// Combines a value with its share.
    pub fn new(value: T, share: Share) -> Self {
        Self { value, share }
    }

    /// Splits into the value and its share.
    pub fn into_parts(self) -> (T, Share) {
        (self.value, self.share)
    }
}

impl Reserved<Vec<u8>> {
    /// Releases the spare capacity of `bytes`, and shrinks `share` to the rest.
    pub fn fitted(mut bytes: Vec<u8>, mut share: Share) -> Self {
        bytes.shrink_to_fit();
        share.shrink_to(bytes.capacity());
        Self { value: bytes, share }
    }
}

impl<T> Deref for Reserved<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl AsRef<[u8]> for Reserved<Vec<u8>> {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

impl From<Exhausted> for Stopped {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Budget => Self::NoMemory,
            Exhausted::Share => Self::LimitExceeded,
        }
    }
}

fn clamped(amount: usize) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use bytes::Bytes;

    use super::*;

    #[test]
    fn shares_stay_within_the_limit_and_are_returned() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert_eq!(one.grow(6), Ok(()));
        assert_eq!(other.grow(5), Err(Exhausted::Budget));
        assert_eq!(other.grow(4), Ok(()));
        one.shrink_to(7);
        one.shrink_to(2);
        assert_eq!(budget.gauge().get(), 6);
        drop(one);
        assert_eq!(other.grow(6), Ok(()));
        assert_eq!(budget.gauge().get(), 10);
        drop(other);
        assert_eq!(budget.gauge().get(), 0);
    }

    #[test]
    fn bytes_return_their_share_with_the_last_part() {
        let budget = Budget::new(1000);
        let (mut body, mut share) = (Vec::with_capacity(600), budget.share());
        assert_eq!(share.grow(600), Ok(()));
        body.extend_from_slice(&[7; 100]);
        let mut body = Bytes::from_owner(Reserved::fitted(body, share));
        assert_eq!(budget.gauge().get(), 100);
        let part = body.split_to(10);
        drop(body);
        assert_eq!(budget.gauge().get(), 100);
        drop(part);
        assert_eq!(budget.gauge().get(), 0);
    }

    #[test]
    fn share_of_half_leaves_the_other_half() {
        let budget = Budget::new(10);
        let mut share = budget.share_of_half();
        assert_eq!(share.grow(6), Err(Exhausted::Share));
        assert_eq!((share.grow(5), share.grow(1)), (Ok(()), Err(Exhausted::Share)));
        assert_eq!(budget.share().grow(5), Ok(()));
    }

    #[tokio::test]
    async fn pressure_is_notified_when_more_than_half_is_in_use() {
        let budget = Budget::new(10);
        let mut share = budget.share();
        let mut pressure = pin!(budget.wait_for_pressure());
        assert_eq!((share.grow(5), futures::poll!(&mut pressure)), (Ok(()), Poll::Pending));
        assert_eq!((share.grow(1), futures::poll!(&mut pressure)), (Ok(()), Poll::Ready(())));
        let mut pressure = pin!(budget.wait_for_pressure());
        assert_eq!(futures::poll!(&mut pressure), Poll::Pending);
        assert_eq!((share.grow(9), futures::poll!(&mut pressure)), (Err(Exhausted::Budget), Poll::Ready(())));
    }

    #[test]
    fn zero_means_no_limit() {
        assert_eq!(Budget::new(0).share().grow(usize::MAX), Ok(()));
    }
}
