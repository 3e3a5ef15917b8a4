//! How many members there are, and how long changes wait to be taken in.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::process::metrics::{DurationHistogram, seconds};

/// Gauges of the fleet, and the queue of its registry under the name that Karmada's dashboards look for. By
/// default nobody reads them.
pub struct FleetMetrics {
    members: Family<StateLabel, Gauge>,
    snapshots: Counter,
    waited: DurationHistogram<QueueLabel>,
}

/// How many clusters there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterCounts {
    /// Those that are asked.
    pub asked: usize,
    /// Members that are not Ready.
    pub not_ready: usize,
    /// Those that are no members.
    pub outside: usize,
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
        let help = "How long changes of clusters and their Secrets waited to be taken in";
        registry.register("workqueue_queue_duration_seconds", help, metrics.waited.clone());
        let help = "Clusters by standing: asked, not_ready, or outside (no member)";
        registry.register("karmada_metrics_adapter_clusters", help, metrics.members.clone());
        let help = "Snapshots of the fleet: one for all changes that come at about the same time";
        registry.register("karmada_metrics_adapter_fleet_snapshots", help, metrics.snapshots.clone());
        metrics.census(ClusterCounts::default());
        metrics
    }

    pub(super) fn queued(&self, waited: Duration) {
        self.waited.get_or_create(&QueueLabel { name: "fleet" }).observe(waited.as_secs_f64());
    }

    pub(super) fn published(&self, census: ClusterCounts) {
        self.snapshots.inc();
        self.census(census);
    }

    fn census(&self, ClusterCounts { asked, not_ready, outside }: ClusterCounts) {
        for (standing, count) in [("asked", asked), ("not_ready", not_ready), ("outside", outside)] {
            self.members
                .get_or_create(&StateLabel { standing })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
