//! Replicas from one metric: Karmada's `replica_calculator.go`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Metric, ObjectTarget, Reading, Scale};

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started yet.
    Pending,
    /// Started.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended ill.
    Failed,
    /// Not known to its cluster.
    Unknown,
}

/// What the algorithm needs to know of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Whether its `Ready` condition is true.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What one metric asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Replicas, before limits and stabilization.
    pub replicas: i32,
    /// The usage that the controller shows in the FederatedHPA's status, in thousandths.
    pub usage: i64,
}

/// Why a metric asks for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// No pod was read.
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    /// None of the values belongs to a pod that counts.
    #[error("did not receive metrics for any ready pods")]
    NoMetrics,
    /// The reading is of another kind than the metric.
    #[error("the reading is not of the metric's kind: read the metric that the spec names")]
    WrongReading,
}

/// What all metrics of a round are judged with.
pub(super) struct Calculator<'a> {
    pub(super) tolerance: f64,
    /// The share of the wanted replicas that could be read.
    pub(super) calibration: f64,
    /// What the template wants.
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

    /// Follows `calcPlainMetricReplicas`. A value whose pod was not read stays in the average, as there.
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

        // A pod without a value must not push further in the direction that the others point to.
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

    /// Follows `GetObjectPerPodMetricReplicas`, which calibrates twice when the ratio is out of tolerance.
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

/// Follows `groupPods` for anything but CPU.
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

/// Follows `GetMetricUsageRatio`, whose average is a whole number of thousandths.
fn usage_ratio(values: &BTreeMap<String, i64>, target: i64) -> (f64, i64) {
    let total: i128 = values.values().map(|value| i128::from(*value)).sum();
    let usage = (total / values.len().max(1) as i128) as i64;
    (usage as f64 / target as f64, usage)
}

fn round_up(replicas: f64) -> i32 {
    replicas.ceil() as i32
}
