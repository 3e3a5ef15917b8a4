//! Which metrics there are.

use std::collections::{BTreeMap, BTreeSet};

use super::list::Entry;

/// The custom metrics of one member, or of all: for each resource its scope and its metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    resources: BTreeMap<String, Resource>,
}

/// The external metrics of one member, or of all, by name. Where KEDA serves them its placeholder is one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExternalCatalog {
    metrics: BTreeSet<String>,
}

/// What is known of all members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogs {
    /// Their custom metrics.
    pub custom: Catalog,
    /// Their external metrics.
    pub external: ExternalCatalog,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Resource {
    namespaced: bool,
    metrics: BTreeSet<String>,
}

impl Catalog {
    /// Adds all of another catalog. A resource that is namespaced in one is namespaced: two scopes under one
    /// parent make kube-apiserver drop the whole version.
    pub fn merge(&mut self, other: &Self) {
        for (name, resource) in &other.resources {
            match self.resources.get_mut(name) {
                Some(own) => {
                    own.namespaced |= resource.namespaced;
                    own.metrics.extend(resource.metrics.iter().cloned());
                }
                None => {
                    self.resources.insert(name.clone(), resource.clone());
                }
            }
        }
    }

    /// Whether the resource (with its group, such as `jobs.batch`) has the metric.
    pub fn contains(&self, resource: &str, metric: &str) -> bool {
        self.resources.get(resource).is_some_and(|resource| resource.metrics.contains(metric))
    }

    /// How many metrics there are, each counted once for a resource.
    pub fn len(&self) -> usize {
        self.resources.values().map(|resource| resource.metrics.len()).sum()
    }

    /// Whether no metric is known.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Each metric with its resource and whether that is namespaced, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.resources.iter().flat_map(|(name, resource)| {
            let metrics = resource.metrics.iter();
            metrics.map(move |metric| (name.as_str(), metric.as_str(), resource.namespaced))
        })
    }
}

/// Entries that are no subresource are no metrics.
impl FromIterator<Entry> for Catalog {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        let mut resources = BTreeMap::new();
        for Entry { name, namespaced } in entries {
            let Some((parent, metric)) = name.split_once('/') else { continue };
            if parent.is_empty() || metric.is_empty() {
                continue;
            }
            let resource = resources
                .entry(parent.to_owned())
                .or_insert_with(|| Resource { namespaced, metrics: BTreeSet::new() });
            resource.namespaced |= namespaced;
            resource.metrics.insert(metric.to_owned());
        }
        Self { resources }
    }
}

impl ExternalCatalog {
    /// Adds all of another catalog.
    pub fn merge(&mut self, other: &Self) {
        self.metrics.extend(other.metrics.iter().cloned());
    }

    /// How many metrics there are.
    pub fn len(&self) -> usize {
        self.metrics.len()
    }

    /// Whether no metric is known.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// Each metric, sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.metrics.iter().map(String::as_str)
    }
}

/// Subresources are no metrics: a member that serves what we serve lists a placeholder in that shape.
impl FromIterator<Entry> for ExternalCatalog {
    fn from_iter<T: IntoIterator<Item = Entry>>(entries: T) -> Self {
        let names = entries.into_iter().map(|entry| entry.name);
        Self { metrics: names.filter(|name| !name.is_empty() && !name.contains('/')).collect() }
    }
}
