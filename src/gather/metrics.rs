//! What members do, counted.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::Outcome;
use crate::process::metrics::{Seconds, seconds};

/// Counters of queries and of what each member made of them.
pub struct GatherMetrics {
    queries: Counter,
    shared: Counter,
    outcomes: Family<MemberOutcome, Counter>,
    seconds: Seconds<MemberLabel>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberOutcome {
    cluster: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabel {
    cluster: String,
}

impl GatherMetrics {
    /// Registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            queries: Counter::default(),
            shared: Counter::default(),
            outcomes: Family::default(),
            seconds: seconds(),
        };
        let registry = registry.sub_registry_with_prefix("karmada_metrics_adapter");
        registry.register("queries", "Queries that were sent to members", metrics.queries.clone());
        let help = "Queries that took the answer of an identical one in flight";
        registry.register("queries_shared", help, metrics.shared.clone());
        let help = "What members made of queries, by cause";
        registry.register("member_outcomes", help, metrics.outcomes.clone());
        let help = "Time until a member's answer was there";
        registry.register("member_request_duration_seconds", help, metrics.seconds.clone());
        metrics
    }

    /// A query was answered by an identical one in flight.
    pub fn shared(&self) {
        self.shared.inc();
    }

    pub(super) fn query(&self) {
        self.queries.inc();
    }

    pub(super) fn member(&self, cluster: &str, outcome: &Outcome, elapsed: Duration) {
        let labels = MemberOutcome { cluster: cluster.to_owned(), outcome: outcome.cause() };
        self.outcomes.get_or_create(&labels).inc();
        let labels = MemberLabel { cluster: cluster.to_owned() };
        self.seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Forgets a cluster that has left.
    pub fn forget(&self, cluster: &str) {
        self.seconds.remove(&MemberLabel { cluster: cluster.to_owned() });
    }
}
