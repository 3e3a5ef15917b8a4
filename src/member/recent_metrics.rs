//! Custom metrics that a member had lately, although its discovery does not list them: metrics of which it has returned values, and
//! metrics that its list no longer has.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::api::discovery::DiscoveryEntry;

/// How long a metric is remembered.
const RECENT: Duration = Duration::from_secs(10 * 60);
/// Maximum metrics of one member that are remembered. Clients choose their names.
const MAX_METRICS: usize = 1_000;
/// Maximum metrics of one member that are added to its catalog.
const MAX_LISTED: usize = 100;

/// The recent metrics of one member.
#[derive(Default)]
pub(super) struct RecentMetrics {
    /// By the hash of the name. If two names have the same hash, both count as recent.
    metrics: HashMap<u64, RecentMetric>,
    hasher: RandomState,
    /// Until then, the member may have had more metrics than are remembered.
    overflow_until: Option<Instant>,
}

struct RecentMetric {
    until: Instant,
    /// The entry for the catalog, if the metric is added to it.
    entry: Option<DiscoveryEntry>,
}

impl RecentMetrics {
    pub(super) fn is_empty(&self) -> bool {
        self.metrics.is_empty() && self.overflow_until.is_none()
    }

    /// Whether the member may have had the metric (`pods/http_requests`) lately.
    pub(super) fn may_have(&self, name: &str) -> bool {
        let now = Instant::now();
        self.overflow_until.is_some_and(|until| until > now)
            || self.metrics.get(&self.hasher.hash_one(name)).is_some_and(|metric| metric.until > now)
    }

    /// Remembers a metric. Returns its entry if the catalog must list it; `entry` is `None` for a metric that is not.
    pub(super) fn add(&mut self, name: &str, entry: Option<DiscoveryEntry>) -> Option<DiscoveryEntry> {
        let until = Instant::now() + RECENT;
        let hash = self.hasher.hash_one(name);
        if let Some(known) = self.metrics.get_mut(&hash) {
            known.until = until;
            return known.entry.clone().filter(|_| entry.is_some());
        }
        if self.metrics.len() >= MAX_METRICS {
            self.forget_expired();
        }
        if self.metrics.len() >= MAX_METRICS {
            self.overflow_until = Some(until);
            return None;
        }
        let listed = self.metrics.values().filter(|metric| metric.entry.is_some()).count();
        let entry = entry.filter(|_| listed < MAX_LISTED);
        self.metrics.insert(hash, RecentMetric { until, entry: entry.clone() });
        entry
    }

    /// The entries for the catalog, without those that are in the member's own list.
    pub(super) fn entries(&mut self, listed: &[DiscoveryEntry]) -> Vec<DiscoveryEntry> {
        self.forget_expired();
        for entry in listed {
            self.metrics.remove(&self.hasher.hash_one(&*entry.name));
        }
        self.metrics.values().filter_map(|metric| metric.entry.clone()).collect()
    }

    fn forget_expired(&mut self) {
        let now = Instant::now();
        self.metrics.retain(|_, metric| metric.until > now);
        self.overflow_until = self.overflow_until.filter(|until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Option<DiscoveryEntry> {
        DiscoveryEntry::custom_metric("pods", name, true)
    }

    #[test]
    fn metric_is_recent_until_the_member_lists_it() {
        let mut recent = RecentMetrics::default();
        assert!(!recent.may_have("pods/one"));
        assert_eq!(recent.add("pods/one", entry("one")), entry("one"));
        recent.add("pods/former", None);
        assert!(recent.may_have("pods/one") && recent.may_have("pods/former"));
        assert_eq!(recent.entries(&[]), [entry("one").expect("a valid name")]);
        let listed = entry("one").expect("a valid name");
        assert!(recent.entries(&[listed]).is_empty());
        assert!(!recent.may_have("pods/one"));
    }

    #[test]
    fn with_more_metrics_than_are_remembered_any_metric_may_be_recent() {
        let mut recent = RecentMetrics::default();
        let listed = (0..2 * MAX_METRICS)
            .filter(|number| recent.add(&format!("pods/{number}"), entry(&number.to_string())).is_some());
        assert_eq!(listed.count(), MAX_LISTED);
        assert_eq!(recent.metrics.len(), MAX_METRICS);
        assert!(recent.may_have("pods/unknown"));
    }
}
