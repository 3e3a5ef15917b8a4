//! Limits over time: stabilization windows and the policies of `behavior`.

use std::time::{Duration, Instant};

use super::Spec;

/// Scaling rules for both directions (`spec.behavior`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behavior {
    /// Scaling up.
    pub scale_up: ScalingRules,
    /// Scaling down.
    pub scale_down: ScalingRules,
}

/// Scaling rules for one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalingRules {
    /// Stabilization window: the most cautious recommendation in it is used.
    pub stabilization: Duration,
    /// Selects the policy that applies.
    pub select: SelectPolicy,
    /// The maximum change within a period.
    pub policies: Vec<Policy>,
}

/// Selects one of several policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectPolicy {
    /// The policy that allows the largest change.
    Max,
    /// The policy that allows the smallest change.
    Min,
    /// No scaling in this direction.
    Disabled,
}

/// The maximum change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The maximum change, in `unit`.
    pub value: i32,
    /// The unit of `value`.
    pub unit: PolicyUnit,
    /// The length of the period.
    pub period: Duration,
}

/// The unit of a policy's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyUnit {
    /// Pods.
    Pods,
    /// Percent of the replicas at the start of the period.
    Percent,
}

/// Recommendations and changes of earlier rounds.
#[derive(Debug, Default)]
pub(super) struct History {
    recommendations: Vec<(Instant, i32)>,
    /// Scale-ups: time and added replicas.
    ups: Vec<(Instant, i32)>,
    /// Scale-downs: time and removed replicas.
    downs: Vec<(Instant, i32)>,
}

impl Behavior {
    /// Kubernetes' default policies (`GenerateHPAScaleUpRules` and `GenerateHPAScaleDownRules`) with one
    /// stabilization window for both directions.
    pub fn with_stabilization(stabilization: Duration) -> Self {
        let policy = |value, unit| Policy { value, unit, period: Duration::from_secs(15) };
        let rules = |policies| ScalingRules { stabilization, select: SelectPolicy::Max, policies };
        Self {
            scale_up: rules(vec![policy(4, PolicyUnit::Pods), policy(100, PolicyUnit::Percent)]),
            scale_down: rules(vec![policy(100, PolicyUnit::Percent)]),
        }
    }
}

impl History {
    /// Follows `recordInitialRecommendation`.
    pub(super) fn start(&mut self, current: i32, now: Instant) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Follows `storeScaleEvent`. Removes events that are older than the period of every policy.
    pub(super) fn record_change(&mut self, behavior: &Behavior, from: i32, to: i32, now: Instant) {
        let (events, rules) = if to > from {
            (&mut self.ups, &behavior.scale_up)
        } else {
            (&mut self.downs, &behavior.scale_down)
        };
        let longest = rules.policies.iter().map(|policy| policy.period).max().unwrap_or_default();
        events.retain(|(at, _)| now.duration_since(*at) <= longest);
        events.push((now, (to - from).abs()));
    }

    /// Applies all limits to the replicas that the metrics propose.
    pub(super) fn normalize(&mut self, spec: &Spec, current: i32, desired: i32, now: Instant) -> i32 {
        match &spec.behavior {
            Some(behavior) => {
                let stable = self.stabilize(behavior, current, desired, now);
                self.limit_rate(behavior, spec, current, stable, now)
            }
            None => {
                let stable = self.stabilize_down(spec.downscale_stabilization, desired, now);
                limit_step(spec, current, stable)
            }
        }
    }

    /// The highest recommendation in the window. Follows `stabilizeRecommendation`.
    fn stabilize_down(&mut self, window: Duration, desired: i32, now: Instant) -> i32 {
        self.recommendations.retain(|(at, _)| now.duration_since(*at) <= window);
        self.recommendations.push((now, desired));
        self.recommendations.iter().map(|(_, replicas)| *replicas).max().unwrap_or(desired)
    }

    /// The current replicas, changed only as far as all recommendations in the windows agree. Follows
    /// `stabilizeRecommendationWithBehaviors`.
    fn stabilize(&mut self, behavior: &Behavior, current: i32, desired: i32, now: Instant) -> i32 {
        let up_window = behavior.scale_up.stabilization;
        let down_window = behavior.scale_down.stabilization;
        let (mut lowest, mut highest) = (desired, desired);
        for (at, replicas) in &self.recommendations {
            let age = now.duration_since(*at);
            if age < up_window {
                lowest = lowest.min(*replicas);
            }
            if age < down_window {
                highest = highest.max(*replicas);
            }
        }
        self.recommendations.retain(|(at, _)| now.duration_since(*at) <= up_window.max(down_window));
        self.recommendations.push((now, desired));
        current.max(lowest).min(highest)
    }

    /// Follows `convertDesiredReplicasWithBehaviorRate`.
    fn limit_rate(&self, behavior: &Behavior, spec: &Spec, current: i32, desired: i32, now: Instant) -> i32 {
        if desired > current {
            let limit = self.most(&behavior.scale_up, current, now).max(current);
            desired.min(limit.min(spec.max_replicas))
        } else if desired < current {
            let limit = self.fewest(&behavior.scale_down, current, now).min(current);
            desired.max(limit.max(spec.min_replicas))
        } else {
            desired
        }
    }

    /// Follows `calculateScaleUpLimitWithScalingRules`.
    fn most(&self, rules: &ScalingRules, current: i32, now: Instant) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.at_start_of(policy.period, current, now);
            match policy.unit {
                PolicyUnit::Pods => start.saturating_add(policy.value),
                // Rounded up. Otherwise one replica could never grow.
                PolicyUnit::Percent => {
                    (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32
                }
            }
        });
        match rules.select {
            SelectPolicy::Max => limits.max().unwrap_or(i32::MIN),
            SelectPolicy::Min => limits.min().unwrap_or(i32::MAX),
            SelectPolicy::Disabled => current,
        }
    }

    /// Follows `calculateScaleDownLimitWithBehaviors`.
    fn fewest(&self, rules: &ScalingRules, current: i32, now: Instant) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.at_start_of(policy.period, current, now);
            match policy.unit {
                PolicyUnit::Pods => start.saturating_sub(policy.value),
                PolicyUnit::Percent => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        });
        match rules.select {
            SelectPolicy::Max => limits.min().unwrap_or(i32::MAX),
            SelectPolicy::Min => limits.max().unwrap_or(i32::MIN),
            SelectPolicy::Disabled => current,
        }
    }

    /// The replicas at the start of the period. Uses `getReplicasChangePerPeriod`.
    fn at_start_of(&self, period: Duration, current: i32, now: Instant) -> i32 {
        let changed = |events: &[(Instant, i32)]| -> i32 {
            events.iter().filter(|(at, _)| now.duration_since(*at) < period).map(|(_, change)| change).sum()
        };
        current - changed(&self.ups) + changed(&self.downs)
    }
}

/// Follows `convertDesiredReplicasWithRules` and `calculateScaleUpLimit`.
fn limit_step(spec: &Spec, current: i32, desired: i32) -> i32 {
    let step = current.saturating_mul(2).max(4);
    let most = spec.max_replicas.min(step);
    if desired < spec.min_replicas { spec.min_replicas } else { desired.min(most) }
}
