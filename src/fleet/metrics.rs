//! Metrics of the fleet: clusters by state, snapshots, and the queue of changes.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::process::metrics::{DurationHistogram, seconds};

/// Metrics of the fleet. The queue has the metric name that Karmada's dashboards use. The default ones belong to no registry.
pub struct FleetMetrics {
    members: Family<StateLabel, Gauge>,
    snapshots: Counter,
    waited: DurationHistogram<QueueLabel>,
}

/// Number of clusters by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterCounts {
    pub queried: usize,
    /// Members that are not Ready.
    pub not_ready: usize,
    /// Clusters that are not members.
    pub unusable: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    standing: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    name: &'static str,
}

impl Default for FleetMetrics {
    fn default() -> Self {
        Self { members: Family::default(), snapshots: Counter::default(), waited: seconds() }
    }
}

impl FleetMetrics {
    /// Registers the gauges.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Time that changes of clusters and their Secrets waited in the queue";
        registry.register("workqueue_queue_duration_seconds", help, metrics.waited.clone());
        let help = "Clusters by standing: asked (queried), not_ready, or outside (not usable)";
        registry.register("karmada_metrics_adapter_clusters", help, metrics.members.clone());
        let help = "Published snapshots of the fleet; changes at about the same time share one";
        registry.register("karmada_metrics_adapter_fleet_snapshots", help, metrics.snapshots.clone());
        metrics.set_counts(ClusterCounts::default());
        metrics
    }

    pub(super) fn queued(&self, waited: Duration) {
        self.waited.get_or_create(&QueueLabel { name: "fleet" }).observe(waited.as_secs_f64());
    }

    pub(super) fn published(&self, counts: ClusterCounts) {
        self.snapshots.inc();
        self.set_counts(counts);
    }

    fn set_counts(&self, ClusterCounts { queried: asked, not_ready, unusable: outside }: ClusterCounts) {
        for (standing, count) in [("asked", asked), ("not_ready", not_ready), ("outside", outside)] {
            self.members
                .get_or_create(&StateLabel { standing })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
