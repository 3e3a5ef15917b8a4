//! Replicas for one metric: Karmada's `replica_calculator.go`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Metric, ObjectTarget, Reading, Scale};

/// The phase of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet.
    Pending,
    /// Started.
    Running,
    /// Ended successfully.
    Succeeded,
    /// Ended with a failure.
    Failed,
    /// Unknown to its cluster.
    Unknown,
}

/// The properties of a pod that the algorithm needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Whether its `Ready` condition is true.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// The proposal of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Replicas, before limits and stabilization.
    pub replicas: i32,
    /// The usage in the FederatedHPA's status, in thousandths.
    pub usage: i64,
}

/// Reason why a metric has no proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// No pod was read.
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    /// No value belongs to a ready pod.
    #[error("did not receive metrics for any ready pods")]
    NoMetrics,
    /// The reading has a different kind than the metric.
    #[error("the kind of the reading is wrong: read the metric that the spec names")]
    WrongReading,
}

/// Common inputs for all metrics of a round.
pub(super) struct Calculator<'a> {
    pub(super) tolerance: f64,
    /// The share of the desired replicas that could be read.
    pub(super) calibration: f64,
    /// The desired replicas of the template.
    pub(super) current: i32,
    pub(super) scale: Scale,
    pub(super) pods: &'a [Pod],
}

struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

impl Calculator<'_> {
    /// Follows `computeReplicasForMetric`.
    pub(super) fn replicas(&self, metric: &Metric, reading: &Reading) -> Result<Proposal, ReplicaError> {
        match (metric, reading) {
            (Metric::Pods { average_value, .. }, Reading::Pods(values)) => {
                self.for_pods(values.clone(), *average_value)
            }
            (Metric::Object { target: ObjectTarget::Value(target), .. }, Reading::Object(usage)) => {
                self.for_object_value(*usage, *target)
            }
            (Metric::Object { target: ObjectTarget::AverageValue(target), .. }, Reading::Object(usage)) => {
                Ok(self.for_object_average(*usage, *target))
            }
            _ => Err(ReplicaError::WrongReading),
        }
    }

    /// Follows `calcPlainMetricReplicas`. A value stays in the average even if its pod was not read, as in Karmada.
    fn for_pods(&self, mut values: BTreeMap<String, i64>, target: i64) -> Result<Proposal, ReplicaError> {
        if self.pods.is_empty() {
            return Err(ReplicaError::NoPods);
        }
        let groups = group_pods(self.pods, &values);
        values.retain(|pod, _| {
            !groups.ignored.contains(pod.as_str()) && !groups.unready.contains(pod.as_str())
        });
        if values.is_empty() {
            return Err(ReplicaError::NoMetrics);
        }
        let (ratio, usage) = usage_ratio(&values, target);
        let propose = |replicas| Ok(Proposal { replicas, usage });
        let unready_count = !groups.unready.is_empty() && ratio > 1.0;
        if !unready_count && groups.missing.is_empty() {
            return propose(if self.is_tolerable(ratio) {
                self.current
            } else {
                round_up(ratio * groups.ready as f64 / self.calibration)
            });
        }

        // A pod without a value must not increase the change.
        if ratio != 1.0 {
            let assumed = if ratio < 1.0 { target } else { 0 };
            values.extend(groups.missing.iter().map(|pod| ((*pod).to_owned(), assumed)));
        }
        if unready_count {
            values.extend(groups.unready.iter().map(|pod| ((*pod).to_owned(), 0)));
        }
        let (assumed_ratio, _) = usage_ratio(&values, target);
        let turned = (ratio < 1.0 && assumed_ratio > 1.0) || (ratio > 1.0 && assumed_ratio < 1.0);
        if self.is_tolerable(assumed_ratio) || turned {
            return propose(self.current);
        }
        let replicas = round_up(assumed_ratio * values.len() as f64 / self.calibration);
        let turned = (assumed_ratio < 1.0 && replicas > self.current)
            || (assumed_ratio > 1.0 && replicas < self.current);
        propose(if turned { self.current } else { replicas })
    }

    /// Follows `GetObjectMetricReplicas` and `getUsageRatioReplicaCount`.
    fn for_object_value(&self, usage: i64, target: i64) -> Result<Proposal, ReplicaError> {
        let ratio = usage as f64 / target as f64;
        let propose = |replicas| Ok(Proposal { replicas, usage });
        if self.current == 0 {
            return propose(round_up(ratio));
        }
        if self.is_tolerable(ratio) {
            return propose(self.current);
        }
        if self.pods.is_empty() {
            return Err(ReplicaError::NoPods);
        }
        let ready = self.pods.iter().filter(|pod| pod.phase == Phase::Running && pod.ready).count();
        propose(round_up(ratio * ready as f64 / self.calibration))
    }

    /// Follows `GetObjectPerPodMetricReplicas`, which calibrates twice if the ratio is out of tolerance.
    fn for_object_average(&self, usage: i64, target: i64) -> Proposal {
        let status = f64::from(self.scale.status);
        let (usage, target) = (usage as f64, target as f64);
        let replicas = if self.is_tolerable(usage / (target * status)) {
            status
        } else {
            (usage / target / self.calibration).ceil()
        };
        Proposal { replicas: round_up(replicas / self.calibration), usage: (usage / status).ceil() as i64 }
    }

    fn is_tolerable(&self, ratio: f64) -> bool {
        (1.0 - ratio).abs() <= self.tolerance
    }
}

/// Follows `groupPods` for metrics other than CPU.
fn group_pods<'a>(pods: &'a [Pod], values: &BTreeMap<String, i64>) -> Groups<'a> {
    let mut groups =
        Groups { ready: 0, unready: BTreeSet::new(), missing: BTreeSet::new(), ignored: BTreeSet::new() };
    for pod in pods {
        if pod.deleting || pod.phase == Phase::Failed {
            groups.ignored.insert(&pod.name);
        } else if pod.phase == Phase::Pending {
            groups.unready.insert(&pod.name);
        } else if !values.contains_key(&pod.name) {
            groups.missing.insert(&pod.name);
        } else {
            groups.ready += 1;
        }
    }
    groups
}

/// Follows `GetMetricUsageRatio`. Its average is a whole number of thousandths.
fn usage_ratio(values: &BTreeMap<String, i64>, target: i64) -> (f64, i64) {
    let total: i128 = values.values().map(|value| i128::from(*value)).sum();
    let usage = (total / values.len().max(1) as i128) as i64;
    (usage as f64 / target as f64, usage)
}

fn round_up(replicas: f64) -> i32 {
    replicas.ceil() as i32
}
