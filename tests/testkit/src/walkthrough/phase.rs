//! The phases of the walkthrough: their order and duration.

use std::time::Duration;

/// A phase of the walkthrough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// One replica, no load.
    Idle,
    /// Load, until the maximum of replicas is reached.
    ScaleOut,
    /// Load on all replicas.
    Steady,
    /// Load, and the API server of one member is frozen.
    Frozen,
    /// Load, and the API server responds again.
    Thawed,
    /// No load, until one replica is left.
    ScaleIn,
    /// No load, one replica: final state.
    Settled,
    /// The walkthrough is over.
    Done,
}

/// Decides whether a phase is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Duration of the phase so far.
    pub(super) lasted: Duration,
    /// The desired replicas of the template.
    pub(super) replicas: i32,
    pub(super) fewest: i32,
    pub(super) most: i32,
}

const ORDER: [Phase; 7] = [
    Phase::Idle,
    Phase::ScaleOut,
    Phase::Steady,
    Phase::Frozen,
    Phase::Thawed,
    Phase::ScaleIn,
    Phase::Settled,
];

impl Phase {
    /// The current phase: the next one when this one is over.
    pub(super) fn advance(self, progress: Progress) -> Self {
        let over = match self {
            Self::ScaleOut => progress.replicas >= progress.most || progress.lasted >= self.limit(),
            Self::ScaleIn => progress.replicas <= progress.fewest || progress.lasted >= self.limit(),
            Self::Done => false,
            _ => progress.lasted >= self.expected(),
        };
        if over { self.next() } else { self }
    }

    /// Approximate time until the end, `lasted` into this phase.
    pub(super) fn remaining(self, lasted: Duration) -> Duration {
        let later = ORDER.iter().skip_while(|phase| **phase != self).skip(1);
        self.expected().saturating_sub(lasted) + later.map(|phase| phase.expected()).sum::<Duration>()
    }

    /// Whether the load generator is on.
    pub(super) fn has_load(self) -> bool {
        matches!(self, Self::ScaleOut | Self::Steady | Self::Frozen | Self::Thawed)
    }

    /// Description of the phase.
    pub(super) fn title(self, frozen: &str) -> String {
        match self {
            Self::Idle => "no load".to_owned(),
            Self::ScaleOut => "load: scaling out".to_owned(),
            Self::Steady => "load".to_owned(),
            Self::Frozen => format!("load, and {frozen} is frozen"),
            Self::Thawed => format!("load, {frozen} responds again"),
            Self::ScaleIn => "no load: scaling in".to_owned(),
            Self::Settled | Self::Done => "no load, scaled in".to_owned(),
        }
    }

    fn next(self) -> Self {
        ORDER.iter().copied().skip_while(|phase| *phase != self).nth(1).unwrap_or(Self::Done)
    }

    /// Duration of the phase: exact, or estimated from the FederatedHPA's windows.
    fn expected(self) -> Duration {
        Duration::from_secs(match self {
            Self::Idle => 7,
            // 10 s of stabilization, 15 s of the policies' period, and the delay of the rates.
            Self::ScaleOut => 28,
            Self::Steady => 18,
            // At least two rounds, each as long as the timeout of a member that does not respond.
            Self::Frozen => 14,
            Self::Thawed => 20,
            Self::ScaleIn => 13,
            Self::Settled => 8,
            Self::Done => 0,
        })
    }

    /// Time limit of a phase that waits for replicas. After it the summary reports the missing replicas.
    fn limit(self) -> Duration {
        self.expected() * 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, replicas: i32) -> Progress {
        Progress { lasted: Duration::from_secs(seconds), replicas, fewest: 1, most: 10 }
    }

    #[test]
    fn phases_end_by_time_or_by_replicas() {
        assert_eq!(Phase::Idle.advance(after(6, 1)), Phase::Idle);
        assert_eq!(Phase::Idle.advance(after(7, 1)), Phase::ScaleOut);
        assert_eq!(Phase::ScaleOut.advance(after(40, 9)), Phase::ScaleOut);
        assert_eq!(Phase::ScaleOut.advance(after(2, 10)), Phase::Steady);
        assert_eq!(Phase::ScaleIn.advance(after(2, 1)), Phase::Settled);
        assert_eq!(Phase::Settled.advance(after(8, 1)), Phase::Done);
        assert_eq!(Phase::Done.advance(after(99, 1)), Phase::Done);
    }

    #[test]
    fn waiting_for_replicas_has_a_limit() {
        assert_eq!(Phase::ScaleOut.advance(after(84, 1)), Phase::Steady);
        assert_eq!(Phase::ScaleIn.advance(after(39, 10)), Phase::Settled);
    }

    #[test]
    fn walkthrough_takes_less_than_two_minutes() {
        let whole = Phase::Idle.remaining(Duration::ZERO);
        assert!((90..110).contains(&whole.as_secs()), "{whole:?}");
        assert_eq!(Phase::Settled.remaining(Duration::from_secs(9)), Duration::ZERO);
    }
}
