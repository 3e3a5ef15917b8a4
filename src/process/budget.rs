//! An amount of something that may be in use at a time: bytes, requests. The gauge that shows it is the account itself.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;
use tokio::sync::Notify;

use crate::api::memory::Stopped;

/// What may be in use at a time. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    limit: i64,
    used: Gauge<i64, AtomicI64>,
    short: Arc<Notify>,
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    amount: i64,
    /// How much it may grow to.
    most: i64,
}

/// A value together with the share of the memory budget that it takes.
#[derive(Debug)]
pub struct Reserved<T> {
    // Dropped before its share is given back.
    value: T,
    share: Share,
}

/// Why a share cannot grow.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Exhausted {
    /// There is not enough left in the budget.
    #[error("the limit is reached")]
    Budget,
    /// This share may not have more, whatever is left.
    #[error("one share may not have that much")]
    Share,
}

impl Budget {
    /// A budget of so much; 0 means no limit.
    pub fn new(limit: usize) -> Self {
        let limit = if limit == 0 { i64::MAX } else { clamped(limit) };
        Self { limit, used: Gauge::default(), short: Arc::default() }
    }

    /// What is in use.
    pub fn gauge(&self) -> Gauge {
        self.used.clone()
    }

    /// Waits until somebody takes more, after which more than half is in use: who can do without it should give it back.
    pub async fn is_short(&self) {
        self.short.notified().await;
    }

    /// A share of nothing, which may grow.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), amount: 0, most: i64::MAX }
    }

    /// A share of nothing, which may grow to half of the budget.
    pub fn share_of_half(&self) -> Share {
        Share { budget: self.clone(), amount: 0, most: self.limit / 2 }
    }
}

impl Share {
    /// Takes more.
    ///
    /// # Errors
    /// If that is more than there is, or than it may have; the share stays as it was.
    pub fn grow(&mut self, amount: usize) -> Result<(), Exhausted> {
        if amount == 0 {
            return Ok(());
        }
        let (amount, limit) = (clamped(amount), self.budget.limit);
        if self.amount.checked_add(amount).is_none_or(|amount| amount > self.most) {
            return Err(Exhausted::Share);
        }
        // In one step: a share that asks for too much does not make others fail meanwhile.
        let more = |used: i64| used.checked_add(amount).filter(|used| *used <= limit);
        let used = self.budget.used.inner().fetch_update(Relaxed, Relaxed, more);
        if used.ok().is_none_or(|before| before + amount > limit / 2) {
            self.budget.short.notify_waiters();
        }
        used.map_err(|_| Exhausted::Budget)?;
        self.amount += amount;
        Ok(())
    }

    /// Gives back all but `amount`; nothing if it has no more than that.
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
    /// A value and its share.
    pub fn new(value: T, share: Share) -> Self {
        Self { value, share }
    }

    /// The two apart.
    pub fn into_parts(self) -> (T, Share) {
        (self.value, self.share)
    }
}

impl Reserved<Vec<u8>> {
    /// Bytes without spare memory; of `share` stays what they take.
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
            Exhausted::Share => Self::TooMuch,
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
    fn shares_together_stay_within_the_limit_and_are_given_back() {
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
    fn bytes_give_their_share_back_with_their_last_part() {
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
    fn a_share_of_half_leaves_the_other_half() {
        let budget = Budget::new(10);
        let mut share = budget.share_of_half();
        assert_eq!(share.grow(6), Err(Exhausted::Share));
        assert_eq!((share.grow(5), share.grow(1)), (Ok(()), Err(Exhausted::Share)));
        assert_eq!(budget.share().grow(5), Ok(()));
    }

    #[tokio::test]
    async fn whoever_can_do_without_is_told_when_more_than_half_is_in_use() {
        let budget = Budget::new(10);
        let mut share = budget.share();
        let mut short = pin!(budget.is_short());
        assert_eq!((share.grow(5), futures::poll!(&mut short)), (Ok(()), Poll::Pending));
        assert_eq!((share.grow(1), futures::poll!(&mut short)), (Ok(()), Poll::Ready(())));
        let mut short = pin!(budget.is_short());
        assert_eq!(futures::poll!(&mut short), Poll::Pending);
        assert_eq!((share.grow(9), futures::poll!(&mut short)), (Err(Exhausted::Budget), Poll::Ready(())));
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(Budget::new(0).share().grow(usize::MAX), Ok(()));
    }
}
