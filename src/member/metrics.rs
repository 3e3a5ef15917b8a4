//! What members make of queries, counted. The handles of a cluster's series are kept with its member, so that a query looks
//! none of them up; the series go with the last member of that name.

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

/// The series of all members; by default nobody reads them.
#[derive(Debug)]
pub struct MemberMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    stood_in: Family<MemberLabels, Counter>,
    skipped: Family<MemberLabels, Gauge>,
    seconds: DurationHistogram<MemberLabels>,
    /// Those that a member has handles of.
    clusters: Mutex<HashMap<Arc<str>, Arc<ClusterSeries>>>,
}

/// A member's handles on its cluster's series.
#[derive(Debug)]
pub struct MemberSeries {
    cluster: Arc<ClusterSeries>,
    metrics: Arc<MemberMetrics>,
}

/// How one query ended at a member.
pub struct QueryEnd {
    /// `Found`, `NotFound`, or the cause of a failure.
    pub outcome: &'static str,
    /// Whether it was not asked, since it failed again and again.
    pub skipped: bool,
    /// Whether its last known values stood in.
    pub stood_in: bool,
    /// Time until that was known.
    pub elapsed: Duration,
}

#[derive(Debug)]
struct ClusterSeries {
    name: Arc<str>,
    /// Those of each [`Group`] that it was queried for.
    groups: [OnceLock<ApiSeries>; Group::ALL.len()],
}

#[derive(Debug)]
struct ApiSeries {
    labels: MemberLabels,
    seconds: Histogram,
    skipped: Gauge,
    stood_in: OnceLock<Counter>,
    /// A few of all outcomes that there can be.
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
            stood_in: Family::default(),
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
        let help = "What members made of queries, by cause";
        registry.register("member_outcomes", help, metrics.outcomes.clone());
        let help = "Answers in which a member's last known values stood in";
        registry.register("member_stand_ins", help, metrics.stood_in.clone());
        let help = "Whether a member was skipped by the last query, since it failed again and again";
        registry.register("member_skipped", help, metrics.skipped.clone());
        let help = "Time until a member's answer was there";
        registry.register("member_request_duration_seconds", help, metrics.seconds.clone());
        metrics
    }

    /// Handles on a cluster's series. Two members of one name, such as one that left and one that came, share them.
    pub fn series(self: &Arc<Self>, cluster: &Arc<str>) -> MemberSeries {
        let mut clusters = self.clusters.lock().expect("no holder panics");
        let new = || Arc::new(ClusterSeries { name: cluster.clone(), groups: Default::default() });
        let cluster = clusters.entry(cluster.clone()).or_insert_with(new).clone();
        MemberSeries { cluster, metrics: self.clone() }
    }

    fn handles(&self, cluster: &str, group: Group) -> ApiSeries {
        let labels = MemberLabels { cluster: cluster.to_owned(), group: group.name() };
        ApiSeries {
            seconds: self.seconds.get_or_create_owned(&labels),
            skipped: self.skipped.get_or_create_owned(&labels),
            stood_in: OnceLock::new(),
            outcomes: Mutex::default(),
            labels,
        }
    }

    fn forget(&self, handles: &ApiSeries) {
        let ApiSeries { labels, outcomes, .. } = handles;
        self.seconds.remove(labels);
        self.skipped.remove(labels);
        self.stood_in.remove(labels);
        for &(outcome, _) in &*outcomes.lock().expect("no holder panics") {
            self.outcomes.remove(&labels.with(outcome));
        }
    }
}

impl MemberSeries {
    /// Counts a query.
    pub fn count(&self, group: Group, ended: &QueryEnd) {
        let cluster = &self.cluster;
        let handles =
            cluster.groups[group as usize].get_or_init(|| self.metrics.handles(&cluster.name, group));
        handles.seconds.observe(ended.elapsed.as_secs_f64());
        handles.skipped.set(ended.skipped.into());
        if ended.stood_in {
            let new = || self.metrics.stood_in.get_or_create_owned(&handles.labels);
            handles.stood_in.get_or_init(new).inc();
        }
        let mut outcomes = handles.outcomes.lock().expect("no holder panics");
        if let Some((_, counter)) = outcomes.iter().find(|(outcome, _)| *outcome == ended.outcome) {
            counter.inc();
            return;
        }
        let counter = self.metrics.outcomes.get_or_create_owned(&handles.labels.with(ended.outcome));
        counter.inc();
        outcomes.push((ended.outcome, counter));
    }
}

impl Drop for MemberSeries {
    fn drop(&mut self) {
        let mut clusters = self.metrics.clusters.lock().expect("no holder panics");
        // One is in the map and one is here.
        if Arc::strong_count(&self.cluster) == 2 {
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
    fn every_series_of_a_cluster_goes_with_its_last_member() {
        let mut registry = Registry::default();
        let metrics = Arc::new(MemberMetrics::register(&mut registry));
        let shown = |cluster: &str| {
            let mut text = String::new();
            encode(&mut text, &registry).expect("memory takes all text");
            text.lines().filter(|line| line.contains(&format!("cluster=\"{cluster}\""))).count()
        };
        let ended =
            |outcome| QueryEnd { outcome, skipped: true, stood_in: true, elapsed: Duration::from_secs(1) };

        let (stays, leaves) = (metrics.series(&"stays".into()), metrics.series(&"leaves".into()));
        for group in Group::ALL {
            for outcome in ["Found", "NotFound", "NoRoom"] {
                stays.count(group, &ended(outcome));
                leaves.count(group, &ended(outcome));
            }
        }
        let all = shown("stays");
        assert!(all > 3 * 5, "{all}");
        assert_eq!(shown("leaves"), all);

        let came_back = metrics.series(&"leaves".into());
        drop(leaves);
        came_back.count(Group::Custom, &ended("Found"));
        assert_eq!(shown("leaves"), all, "the series of one name are those of both members");
        drop(came_back);
        assert_eq!(shown("leaves"), 0);
        assert_eq!(shown("stays"), all);
        assert_eq!(metrics.clusters.lock().expect("no holder panics").len(), 1);
    }
}
