//! Karmada's FederatedHPA: the algorithm without I/O, and a loop that runs it against a live fleet.
//!
//! The algorithm follows Karmada's `pkg/controllers/federatedhpa`, which follows the HorizontalPodAutoscaler. The scale is read
//! in each cluster, and clusters that cannot be read are left out. The result for the other clusters is calibrated by the share
//! of the replicas that was read. Comments name the Go functions that the code follows.

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

/// The spec of a FederatedHPA. Values are in thousandths, as from Go's `Quantity.MilliValue`.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Minimum of replicas.
    pub min_replicas: i32,
    /// Maximum of replicas.
    pub max_replicas: i32,
    /// The metrics. The highest proposal wins.
    pub metrics: Vec<Metric>,
    /// Scaling rules. Without them a scale-up at most doubles the replicas (or goes to 4) in one step.
    pub behavior: Option<Behavior>,
    /// Stabilization window of scale-downs if `behavior` sets none (Karmada: 5 minutes).
    pub downscale_stabilization: Duration,
    /// Tolerance: deviation of the usage from the target, as a fraction of it, without scaling (Karmada: 0.1).
    pub tolerance: f64,
}

/// One metric to scale on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// A metric of every pod, compared by its average (`type: Pods`).
    Pods {
        /// The name of the metric.
        name: String,
        /// Selects series (`metric.selector`), as the text of a label selector. Empty selects all.
        selector: String,
        /// The target average per pod, in thousandths.
        average_value: i64,
    },
    /// A metric of one object (`type: Object`).
    Object {
        /// The object's resource with its group, for example `services` or `ingresses.networking.k8s.io`. `namespaces` means
        /// the target's own namespace; `object` is ignored then.
        resource: String,
        /// The object's name.
        object: String,
        /// The name of the metric.
        name: String,
        /// As for pods.
        selector: String,
        /// The target.
        target: ObjectTarget,
    },
}

/// The target for a metric of an object, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectTarget {
    /// Target for the value itself.
    Value(i64),
    /// Target for the value divided by the number of replicas.
    AverageValue(i64),
}

/// The sum of the scales of the clusters that could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// Desired replicas (`spec.replicas`).
    pub spec: i32,
    /// Existing replicas (`status.replicas`).
    pub status: i32,
}

/// The values of one metric, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Values by pod name. If pods share a name, the last value wins, as in `GetRawMetric`.
    Pods(std::collections::BTreeMap<String, i64>),
    /// One object's value.
    Object(i64),
}

/// The result of the algorithm for one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The new number of replicas.
    pub desired: i32,
    /// The proposal of the metrics before limits. `None` if limits decided without metrics.
    pub proposed: Option<i32>,
    /// Usage of the metric that decided, as in the controller's status: in thousandths, per pod if it is an average.
    pub usage: Option<i64>,
    /// Error of the failed metrics, if other metrics could be used.
    pub metrics_error: Option<String>,
}

/// Reason why a round changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// No cluster's scale could be read, or all scales are zero.
    #[error("failed to get replicas in any of clusters, possibly because all of clusters are not ready")]
    NoReplicas,
    /// No metric could be used, or some failed while the others propose fewer replicas.
    #[error("invalid metrics ({invalid} invalid out of {total}), first error is: {first}")]
    Metrics {
        /// Number of failed metrics.
        invalid: usize,
        /// Number of all metrics.
        total: usize,
        /// Error of the first failed metric.
        first: String,
    },
}

/// A FederatedHPA with its history.
#[derive(Debug)]
pub struct FederatedHpa {
    spec: Spec,
    history: History,
}

impl Metric {
    /// A metric of every pod, without a selector, with a target average per pod.
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
    /// A FederatedHPA without history.
    pub fn new(spec: Spec) -> Self {
        Self { spec, history: History::default() }
    }

    /// The spec.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether a decision needs the metrics: some replicas could be read, and the template's replicas are within the limits.
    pub fn needs_metrics(&self, current: i32, scale: Scale) -> bool {
        scale.spec != 0 && self.limit(current).is_none()
    }

    /// Decides on the number of replicas. `current` is the desired number of the template in the control plane. `scale` and
    /// `pods` are from the readable clusters. `readings` are in the order of the spec's metrics, if metrics are needed.
    ///
    /// Follows `reconcileAutoscaler`.
    ///
    /// # Errors
    /// [`DecisionError`]: the replicas stay unchanged.
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
            Decision { desired, proposed: None, usage: None, metrics_error: None }
        } else {
            let (proposal, ill) = self.propose(current, scale, pods, readings)?;
            let desired = self.history.normalize(&self.spec, current, proposal.replicas, now);
            Decision {
                desired,
                proposed: Some(proposal.replicas),
                usage: Some(proposal.usage),
                metrics_error: ill,
            }
        };
        if decision.desired != current
            && let Some(behavior) = &self.spec.behavior
        {
            self.history.record_change(behavior, current, decision.desired, now);
        }
        Ok(decision)
    }

    /// The limit that `current` violates.
    fn limit(&self, current: i32) -> Option<i32> {
        let Spec { min_replicas, max_replicas, .. } = self.spec;
        if current > max_replicas {
            Some(max_replicas)
        } else {
            (current < min_replicas).then_some(min_replicas)
        }
    }

    /// The highest proposal of all metrics. Follows `computeReplicasForMetrics`.
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
