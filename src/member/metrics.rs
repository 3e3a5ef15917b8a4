//! Metrics of members. A member keeps handles of its cluster's series, so a query needs no lookup. The series are removed with
//! the last member of that name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::group::Group;
use crate::process::metrics::{DurationHistogram, seconds};

/// The series of all members. The default ones belong to no registry.
#[derive(Debug)]
pub struct MemberMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    used_last_known: Family<MemberLabels, Counter>,
    skipped: Family<MemberLabels, Gauge>,
    seconds: DurationHistogram<MemberLabels>,
    /// The series of each cluster, and how many members use them.
    clusters: Mutex<HashMap<Arc<str>, ClusterUse>>,
}

#[derive(Debug)]
struct ClusterUse {
    members: usize,
    series: Arc<ClusterSeries>,
}

/// A member's handles of its cluster's series.
#[derive(Debug)]
pub struct MemberSeries {
    cluster: Arc<ClusterSeries>,
    metrics: Arc<MemberMetrics>,
}

pub struct QueryEnd {
    /// `Found`, `NotFound`, or the cause of a failure.
    pub outcome: &'static str,
    /// Whether the member was skipped (open circuit breaker).
    pub skipped: bool,
    /// Whether last-known values were used.
    pub used_last_known: bool,
    /// Time until the outcome was known.
    pub elapsed: Duration,
}

#[derive(Debug)]
struct ClusterSeries {
    name: Arc<str>,
    /// Series of each [`Group`] that was queried.
    groups: [OnceLock<ApiSeries>; Group::ALL.len()],
}

#[derive(Debug)]
struct ApiSeries {
    labels: MemberLabels,
    seconds: Histogram,
    skipped: Gauge,
    used_last_known: OnceLock<Counter>,
    /// The outcomes seen so far: a few of all that are possible.
    outcomes: Mutex<Vec<(&'static str, Counter)>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    cluster: String,
    group: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    cluster: String,
    group: &'static str,
}

impl Default for MemberMetrics {
    fn default() -> Self {
        Self {
            outcomes: Family::default(),
            used_last_known: Family::default(),
            skipped: Family::default(),
            seconds: seconds(),
            clusters: Mutex::default(),
        }
    }
}

impl MemberMetrics {
    /// Registers the series.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("karmada_metrics_adapter");
        let help = "Outcomes of queries at members: Found, NotFound, or the cause of a failure";
        registry.register("member_outcomes", help, metrics.outcomes.clone());
        let help = "Responses that used a member's last known values";
        registry.register("member_stand_ins", help, metrics.used_last_known.clone());
        let help = "Whether the last query skipped the member because it failed several times in a row";
        registry.register("member_skipped", help, metrics.skipped.clone());
        let help = "Time until the outcome of a query at a member was known";
        registry.register("member_request_duration_seconds", help, metrics.seconds.clone());
        metrics
    }

    /// Handles of a cluster's series. Two members of one name share them, such as a removed member and its successor.
    pub fn series(self: &Arc<Self>, cluster: &Arc<str>) -> MemberSeries {
        let mut clusters = self.clusters.lock().expect("not poisoned");
        let series = || Arc::new(ClusterSeries { name: cluster.clone(), groups: Default::default() });
        let entry = clusters.entry(cluster.clone());
        let in_use = entry.or_insert_with(|| ClusterUse { members: 0, series: series() });
        in_use.members += 1;
        MemberSeries { cluster: in_use.series.clone(), metrics: self.clone() }
    }

    fn handles(&self, cluster: &str, group: Group) -> ApiSeries {
        let labels = MemberLabels { cluster: cluster.to_owned(), group: group.name() };
        ApiSeries {
            seconds: self.seconds.get_or_create_owned(&labels),
            skipped: self.skipped.get_or_create_owned(&labels),
            used_last_known: OnceLock::new(),
            outcomes: Mutex::default(),
            labels,
        }
    }

    fn forget(&self, handles: &ApiSeries) {
        let ApiSeries { labels, outcomes, .. } = handles;
        self.seconds.remove(labels);
        self.skipped.remove(labels);
        self.used_last_known.remove(labels);
        for &(outcome, _) in &*outcomes.lock().expect("not poisoned") {
            self.outcomes.remove(&labels.with(outcome));
        }
    }
}

impl MemberSeries {
    pub fn count(&self, group: Group, end: &QueryEnd) {
        let cluster = &self.cluster;
        let handles =
            cluster.groups[group as usize].get_or_init(|| self.metrics.handles(&cluster.name, group));
        handles.seconds.observe(end.elapsed.as_secs_f64());
        handles.skipped.set(end.skipped.into());
        if end.used_last_known {
            let new = || self.metrics.used_last_known.get_or_create_owned(&handles.labels);
            handles.used_last_known.get_or_init(new).inc();
        }
        let mut outcomes = handles.outcomes.lock().expect("not poisoned");
        if let Some((_, counter)) = outcomes.iter().find(|(outcome, _)| *outcome == end.outcome) {
            counter.inc();
            return;
        }
        let counter = self.metrics.outcomes.get_or_create_owned(&handles.labels.with(end.outcome));
        counter.inc();
        outcomes.push((end.outcome, counter));
    }
}

impl Drop for MemberSeries {
    fn drop(&mut self) {
        let mut clusters = self.metrics.clusters.lock().expect("not poisoned");
        let Some(in_use) = clusters.get_mut(&self.cluster.name) else { return };
        in_use.members -= 1;
        if in_use.members == 0 {
            clusters.remove(&self.cluster.name);
            self.cluster
                .groups
                .iter()
                .filter_map(OnceLock::get)
                .for_each(|handles| self.metrics.forget(handles));
        }
    }
}

impl MemberLabels {
    fn with(&self, outcome: &'static str) -> OutcomeLabels {
        OutcomeLabels { cluster: self.cluster.clone(), group: self.group, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn series_of_a_cluster_are_removed_with_its_last_member() {
        let mut registry = Registry::default();
        let metrics = Arc::new(MemberMetrics::register(&mut registry));
        let count = |cluster: &str| {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a String accepts all text");
            text.lines().filter(|line| line.contains(&format!("cluster=\"{cluster}\""))).count()
        };
        let end = |outcome| QueryEnd {
            outcome,
            skipped: true,
            used_last_known: true,
            elapsed: Duration::from_secs(1),
        };

        let (stays, leaves) = (metrics.series(&"stays".into()), metrics.series(&"leaves".into()));
        for group in Group::ALL {
            for outcome in ["Found", "NotFound", "NoRoom"] {
                stays.count(group, &end(outcome));
                leaves.count(group, &end(outcome));
            }
        }
        let all = count("stays");
        assert!(all > 3 * 5, "{all}");
        assert_eq!(count("leaves"), all);

        let successor = metrics.series(&"leaves".into());
        drop(leaves);
        successor.count(Group::Custom, &end("Found"));
        assert_eq!(count("leaves"), all, "both members of one name share the series");
        drop(successor);
        assert_eq!(count("leaves"), 0);
        assert_eq!(count("stays"), all);
        assert_eq!(metrics.clusters.lock().expect("not poisoned").len(), 1);
    }
}
