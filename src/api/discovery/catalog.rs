//! The lists of known metrics.

use std::iter;
use std::sync::Arc;

use super::list::DiscoveryEntry;

/// The metrics of one member or of all members: sorted by name, without duplicates. Members that list the same entry share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    entries: Box<[Arc<DiscoveryEntry>]>,
}

/// The known metrics of all members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogs {
    /// Custom metrics.
    pub custom: Catalog,
    /// External metrics. If a member uses KEDA, the list contains KEDA's placeholder.
    pub external: Catalog,
}

impl Catalog {
    /// Creates a catalog. If entries with the same name have different scopes, the entry is namespaced.
    pub fn new(mut entries: Vec<Arc<DiscoveryEntry>>) -> Self {
        entries.sort_unstable();
        entries.dedup_by(|one, other| one.name == other.name);
        Self { entries: entries.into() }
    }

    /// Whether the catalog has exactly these entries. `entries` must be sorted.
    pub fn entries_equal(&self, entries: &[DiscoveryEntry]) -> bool {
        self.entries.iter().map(AsRef::as_ref).eq(entries)
    }

    /// The union of several catalogs.
    pub fn union<'a>(catalogs: impl Iterator<Item = &'a Self>) -> Self {
        let mut entries: Vec<&Arc<DiscoveryEntry>> = catalogs.flat_map(|catalog| &*catalog.entries).collect();
        // Most members share their entries. Comparing addresses is faster than comparing names.
        entries.sort_unstable_by_key(|entry| Arc::as_ptr(entry));
        entries.dedup_by_key(|entry| Arc::as_ptr(entry));
        Self::new(entries.into_iter().cloned().collect())
    }

    /// Whether the catalog has the custom metric for the resource. `resource` includes the group, such as `jobs.batch`.
    pub fn contains(&self, resource: &str, metric: &str) -> bool {
        let name = || resource.bytes().chain(iter::once(b'/')).chain(metric.bytes());
        self.entries.binary_search_by(|entry| entry.name.bytes().cmp(name())).is_ok()
    }

    /// Number of metrics. A custom metric counts once for each of its resources.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// All metrics.
    pub fn entries(&self) -> &[Arc<DiscoveryEntry>] {
        &self.entries
    }
}
