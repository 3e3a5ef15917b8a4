//! What members do, counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::outcome::Outcome;
use crate::api::group::Group;
use crate::fleet::Fleet;
use crate::member::Failure;
use crate::process::metrics::{Seconds, seconds};

/// After that hardly any query is left that began before.
const QUERIES_END: Duration = Duration::from_secs(10);

/// Counters of queries and of what each member made of them.
pub struct GatherMetrics {
    queries: Family<GroupLabel, Counter>,
    shared: Family<GroupLabel, Counter>,
    outcomes: Family<MemberOutcome, Counter>,
    stood_in: Family<MemberLabels, Counter>,
    skipped: Family<MemberLabels, Gauge>,
    seconds: Seconds<MemberLabels>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabel {
    group: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberOutcome {
    cluster: String,
    group: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    cluster: String,
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
        let metrics = Self {
            queries: Family::default(),
            shared: Family::default(),
            outcomes: Family::default(),
            stood_in: Family::default(),
            skipped: Family::default(),
            seconds: seconds(),
        };
        let registry = registry.sub_registry_with_prefix("karmada_metrics_adapter");
        registry.register("queries", "Queries that were sent to members", metrics.queries.clone());
        let help = "Queries that took the answer of an identical one in flight";
        registry.register("queries_shared", help, metrics.shared.clone());
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

    /// A query was answered by an identical one in flight.
    pub fn shared(&self, group: Group) {
        self.shared.get_or_create(&group.into()).inc();
    }

    pub(super) fn query(&self, group: Group) {
        self.queries.get_or_create(&group.into()).inc();
    }

    pub(super) fn member(&self, cluster: &str, group: Group, outcome: &Outcome, elapsed: Duration) {
        let group = group.name();
        let labels = MemberOutcome { cluster: cluster.to_owned(), group, outcome: outcome.name() };
        self.outcomes.get_or_create(&labels).inc();
        let labels = MemberLabels { cluster: cluster.to_owned(), group };
        self.seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
        let skipped = matches!(outcome.failure(), Some(Failure::Skipped(_)));
        self.skipped.get_or_create(&labels).set(skipped.into());
        if matches!(outcome, Outcome::StoodIn { .. }) {
            self.stood_in.get_or_create(&labels).inc();
        }
    }

    /// Forgets clusters as they leave the fleet, and once more when the queries that still knew them have ended.
    /// Runs until the fleet ends.
    pub async fn forget_leavers(self: Arc<Self>, mut fleet: watch::Receiver<Arc<Fleet>>) {
        let (mut known, mut left) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let clusters: BTreeSet<Arc<str>> =
                fleet.borrow_and_update().entries().map(|entry| entry.cluster().clone()).collect();
            left.extend(known.difference(&clusters).cloned());
            left.retain(|cluster| !clusters.contains(cluster));
            left.iter().for_each(|cluster| self.forget(cluster));
            known = clusters;
            tokio::select! {
                changed = fleet.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(QUERIES_END), if !left.is_empty() => {
                    left.iter().for_each(|cluster| self.forget(cluster));
                    left.clear();
                }
            }
        }
    }

    fn forget(&self, cluster: &str) {
        for group in Group::ALL.map(Group::name) {
            for outcome in Outcome::names() {
                self.outcomes.remove(&MemberOutcome { cluster: cluster.to_owned(), group, outcome });
            }
            let labels = MemberLabels { cluster: cluster.to_owned(), group };
            self.stood_in.remove(&labels);
            self.skipped.remove(&labels);
            self.seconds.remove(&labels);
        }
    }
}
