//! Metrics of queries to all members.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::api::group::Group;

/// Counters of queries. The default ones belong to no registry.
#[derive(Default)]
pub struct GatherMetrics {
    queries: Family<GroupLabel, Counter>,
    shared: Family<GroupLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabel {
    group: &'static str,
}

impl From<Group> for GroupLabel {
    fn from(group: Group) -> Self {
        Self { group: group.name() }
    }
}

impl GatherMetrics {
    /// Registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("karmada_metrics_adapter");
        registry.register("queries", "Queries sent to members", metrics.queries.clone());
        let help = "Queries that shared the response of an identical query in flight";
        registry.register("queries_shared", help, metrics.shared.clone());
        metrics
    }

    /// Counts a query that shares the response of an identical query in flight.
    pub fn shared(&self, group: Group) {
        self.shared.get_or_create(&group.into()).inc();
    }

    pub(super) fn query(&self, group: Group) {
        self.queries.get_or_create(&group.into()).inc();
    }
}
