//! An amount of something that may be in use at a time: bytes, requests. The gauge that shows it is the account itself.

use std::sync::atomic::AtomicI64;

use prometheus_client::metrics::gauge::Gauge;
use thiserror::Error;

/// What may be in use at a time. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget {
    limit: i64,
    used: Gauge<i64, AtomicI64>,
}

/// Whether the limit holds for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// It does.
    Bounded,
    /// What is taken counts, and is never refused.
    Exempt,
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    claim: Claim,
    amount: i64,
}

/// There is not enough left.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the limit is reached")]
pub struct Exhausted;

impl Budget {
    /// A budget of so much; 0 means no limit.
    pub fn new(limit: usize) -> Self {
        let limit = if limit == 0 { i64::MAX } else { whole(limit) };
        Self { limit, used: Gauge::default() }
    }

    /// What is in use.
    pub fn gauge(&self) -> Gauge {
        self.used.clone()
    }

    /// A share of nothing, which may grow.
    pub fn share(&self, claim: Claim) -> Share {
        Share { budget: self.clone(), claim, amount: 0 }
    }
}

impl Share {
    /// Takes more.
    ///
    /// # Errors
    /// If that is more than there is; the share stays as it was.
    pub fn grow(&mut self, amount: usize) -> Result<(), Exhausted> {
        let amount = whole(amount);
        let used = self.budget.used.inc_by(amount).saturating_add(amount);
        if self.claim == Claim::Bounded && used > self.budget.limit {
            self.budget.used.dec_by(amount);
            return Err(Exhausted);
        }
        self.amount += amount;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.dec_by(self.amount);
    }
}

fn whole(amount: usize) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_together_stay_within_the_limit_and_are_given_back() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.share(Claim::Bounded), budget.share(Claim::Bounded));
        assert_eq!(one.grow(6), Ok(()));
        assert_eq!(other.grow(5), Err(Exhausted));
        assert_eq!(other.grow(4), Ok(()));
        drop(one);
        assert_eq!(other.grow(6), Ok(()));
        assert_eq!(budget.gauge().get(), 10);
        drop(other);
        assert_eq!(budget.gauge().get(), 0);
    }

    #[test]
    fn what_is_exempt_counts_and_is_never_refused() {
        let budget = Budget::new(10);
        let mut exempt = budget.share(Claim::Exempt);
        assert_eq!(exempt.grow(20), Ok(()));
        assert_eq!(budget.share(Claim::Bounded).grow(1), Err(Exhausted));
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(Budget::new(0).share(Claim::Bounded).grow(usize::MAX), Ok(()));
    }
}
