//! Which metrics there are.

use std::iter;
use std::sync::Arc;

use super::list::DiscoveryEntry;

/// The metrics of one member, or of all, sorted by name and each once. Members that list the same entry share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    entries: Box<[Arc<DiscoveryEntry>]>,
}

/// What is known of all members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogs {
    /// Their custom metrics.
    pub custom: Catalog,
    /// Their external metrics. Where KEDA serves them its placeholder is one of them.
    pub external: Catalog,
}

impl Catalog {
    /// These entries. One that is listed as namespaced and not is namespaced.
    pub fn new(mut entries: Vec<Arc<DiscoveryEntry>>) -> Self {
        entries.sort_unstable();
        entries.dedup_by(|one, other| one.name == other.name);
        Self { entries: entries.into() }
    }

    /// Whether these, which are sorted, are its entries.
    pub fn is_of(&self, entries: &[DiscoveryEntry]) -> bool {
        self.entries.iter().map(AsRef::as_ref).eq(entries)
    }

    /// All that several have.
    pub fn union<'a>(catalogs: impl Iterator<Item = &'a Self>) -> Self {
        let mut entries: Vec<&Arc<DiscoveryEntry>> = catalogs.flat_map(|catalog| &*catalog.entries).collect();
        // Most members list the same, which is faster to see by its address than by its name.
        entries.sort_unstable_by_key(|entry| Arc::as_ptr(entry));
        entries.dedup_by_key(|entry| Arc::as_ptr(entry));
        Self::new(entries.into_iter().cloned().collect())
    }

    /// Whether the resource (with its group, such as `jobs.batch`) has the custom metric.
    pub fn contains(&self, resource: &str, metric: &str) -> bool {
        let name = || resource.bytes().chain(iter::once(b'/')).chain(metric.bytes());
        self.entries.binary_search_by(|entry| entry.name.bytes().cmp(name())).is_ok()
    }

    /// How many metrics there are; custom ones are counted once for a resource.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no metric is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Each metric.
    pub fn entries(&self) -> &[Arc<DiscoveryEntry>] {
        &self.entries
    }
}
