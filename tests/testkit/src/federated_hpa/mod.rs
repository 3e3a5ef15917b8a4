//! Karmada's FederatedHPA: the algorithm, pure, and a loop that runs it against a live fleet.
//!
//! The algorithm follows Karmada's `pkg/controllers/federatedhpa` (itself the HorizontalPodAutoscaler's): the
//! scale is read in each cluster, clusters that cannot be read are left out, and what is computed from the rest
//! is calibrated by the share of the replicas that was read. The Go functions are named where they are followed.

mod behavior;
mod division;
mod live;
mod metrics;
mod replicas;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use behavior::{Behavior, Policy, PolicyUnit, ScalingRules, SelectPolicy};
pub use division::divide;
pub use live::{Cluster, ClusterReading, Loop, MetricsQuery, Round, RunningLoop, ScaleTo, Target};
pub use metrics::{MetricsError, milli_value};
pub use replicas::{Phase, Pod, Proposal, ReplicaError};

use behavior::History;

/// What a FederatedHPA asks for; values are in thousandths, as Go's `Quantity.MilliValue` gives them.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Fewest replicas.
    pub min_replicas: i32,
    /// Most replicas.
    pub max_replicas: i32,
    /// The metrics; the highest proposal of all counts.
    pub metrics: Vec<Metric>,
    /// How fast to scale; without it scaling up at most doubles (or goes to 4) in a step.
    pub behavior: Option<Behavior>,
    /// How long scaling down waits where `behavior` does not say (Karmada: 5 minutes).
    pub downscale_stabilization: Duration,
    /// How far usage may be from the target, as a share of it, before anything happens (Karmada: 0.1).
    pub tolerance: f64,
}

/// One metric to scale on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A metric of every pod, compared on average (`type: Pods`).
    Pods {
        /// The metric.
        name: String,
        /// Which of its series (`metric.selector`) as the text of a label selector; empty: all.
        selector: String,
        /// What a pod should have on average, in thousandths.
        average_value: i64,
    },
    /// A metric of one object (`type: Object`).
    Object {
        /// The object's resource with its group, such as `services` or `ingresses.networking.k8s.io`; `namespaces`
        /// means the target's own namespace, whatever `object` says.
        resource: String,
        /// The object's name.
        object: String,
        /// The metric.
        name: String,
        /// As for pods.
        selector: String,
        /// What it is compared with.
        target: ObjectTarget,
    },
}

/// What the metric of an object is compared with, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectTarget {
    /// The value itself.
    Value(i64),
    /// The value divided by the number of replicas.
    AverageValue(i64),
}

/// The scales of the clusters that could be read, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// Wanted replicas (`spec.replicas`).
    pub spec: i32,
    /// Existing replicas (`status.replicas`).
    pub status: i32,
}

/// What was read for one metric, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Values by pod name; of pods that share a name the last counts, as in `GetRawMetric`.
    Pods(std::collections::BTreeMap<String, i64>),
    /// One object's value.
    Object(i64),
}

/// What the algorithm makes of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The replicas to have from now on.
    pub desired: i32,
    /// What the metrics alone would have; none where limits decided without them.
    pub proposed: Option<i32>,
    /// Usage of the metric that decided, as the controller shows it: in thousandths, per pod where it is an
    /// average.
    pub usage: Option<i64>,
    /// Why some metrics could not be used, although others could.
    pub ill: Option<String>,
}

/// Why a round changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// No cluster's scale could be read, or all of them are at zero.
    #[error("failed to get replicas in any of clusters, possibly because all of clusters are not ready")]
    NoReplicas,
    /// No metric could be used, or some could not while the others ask for fewer replicas.
    #[error("invalid metrics ({invalid} invalid out of {total}), first error is: {first}")]
    Metrics {
        /// How many could not be used.
        invalid: usize,
        /// Of how many.
        total: usize,
        /// The first one's error.
        first: String,
    },
}

/// A FederatedHPA with its memory.
#[derive(Debug)]
pub struct FederatedHpa {
    spec: Spec,
    history: History,
}

impl Metric {
    /// A metric of every pod, whatever its series, with what a pod should have on average.
    pub fn pods(name: &str, average_value: i64) -> Self {
        Self::Pods { name: name.to_owned(), selector: String::new(), average_value }
    }
}

impl Spec {
    /// A FederatedHPA on one metric, with Karmada's defaults.
    pub fn new(metric: Metric, replicas: std::ops::RangeInclusive<i32>) -> Self {
        Self {
            min_replicas: *replicas.start(),
            max_replicas: *replicas.end(),
            metrics: vec![metric],
            behavior: None,
            downscale_stabilization: Duration::from_secs(300),
            tolerance: 0.1,
        }
    }

    /// The FederatedHPA of Karmada's tutorial "autoscaling with custom metrics".
    pub fn tutorial() -> Self {
        let metric = Metric::pods("http_requests", 700);
        let behavior = Behavior::with_stabilization(Duration::from_secs(10));
        Self { behavior: Some(behavior), ..Self::new(metric, 1..=10) }
    }
}

impl FederatedHpa {
    /// A FederatedHPA that has decided nothing yet.
    pub fn new(spec: Spec) -> Self {
        Self { spec, history: History::default() }
    }

    /// What it asks for.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether a decision takes the metrics: some replicas could be read, and the template's lie within the limits.
    pub fn needs_metrics(&self, current: i32, scale: Scale) -> bool {
        scale.spec != 0 && self.limit(current).is_none()
    }

    /// Decides how many replicas there should be; `current` is what the template in the control plane wants,
    /// `scale` and `pods` are what could be read, `readings` stand beside the spec's metrics where those are needed.
    ///
    /// Follows `reconcileAutoscaler`.
    ///
    /// # Errors
    /// [`DecisionError`], which leaves everything as it is.
    pub fn decide(
        &mut self,
        now: Instant,
        current: i32,
        scale: Scale,
        pods: &[Pod],
        readings: &[Result<Reading, MetricsError>],
    ) -> Result<Decision, DecisionError> {
        if scale.spec == 0 {
            return Err(DecisionError::NoReplicas);
        }
        self.history.start(current, now);
        let decision = if let Some(desired) = self.limit(current) {
            Decision { desired, proposed: None, usage: None, ill: None }
        } else {
            let (proposal, ill) = self.propose(current, scale, pods, readings)?;
            let desired = self.history.normalize(&self.spec, current, proposal.replicas, now);
            Decision { desired, proposed: Some(proposal.replicas), usage: Some(proposal.usage), ill }
        };
        if decision.desired != current
            && let Some(behavior) = &self.spec.behavior
        {
            self.history.record_change(behavior, current, decision.desired, now);
        }
        Ok(decision)
    }

    /// The limit that `current` lies beyond.
    fn limit(&self, current: i32) -> Option<i32> {
        let Spec { min_replicas, max_replicas, .. } = self.spec;
        if current > max_replicas {
            Some(max_replicas)
        } else {
            (current < min_replicas).then_some(min_replicas)
        }
    }

    /// The highest proposal of all metrics; follows `computeReplicasForMetrics`.
    fn propose(
        &self,
        current: i32,
        scale: Scale,
        pods: &[Pod],
        readings: &[Result<Reading, MetricsError>],
    ) -> Result<(Proposal, Option<String>), DecisionError> {
        let calibration = f64::from(scale.spec) / f64::from(current);
        let calculator =
            replicas::Calculator { tolerance: self.spec.tolerance, calibration, current, scale, pods };
        let mut best: Option<Proposal> = None;
        let mut errors = Vec::new();
        for (metric, reading) in self.spec.metrics.iter().zip(readings) {
            let proposal = match reading {
                Ok(reading) => calculator.replicas(metric, reading).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match proposal {
                Ok(proposal) => match &best {
                    Some(so_far) if so_far.replicas != 0 && so_far.replicas >= proposal.replicas => {}
                    _ => best = Some(proposal),
                },
                Err(error) => errors.push(error),
            }
        }
        let total = self.spec.metrics.len();
        let ill = errors.first().map(|first| DecisionError::Metrics {
            invalid: errors.len(),
            total,
            first: first.clone(),
        });
        match (best, ill) {
            (Some(best), None) => Ok((best, None)),
            (Some(best), Some(ill)) if best.replicas >= current => Ok((best, Some(ill.to_string()))),
            (_, Some(ill)) => Err(ill),
            (None, None) => {
                Err(DecisionError::Metrics { invalid: 0, total, first: "there are no metrics".to_owned() })
            }
        }
    }
}
