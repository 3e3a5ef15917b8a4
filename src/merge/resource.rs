//! CPU and memory of several clusters as one list.

use super::Pages;
use crate::api::field_selector::FieldSelector;
use crate::api::page::resource::{ItemRef, items};
use crate::api::resource_metrics::ObjectMetrics;
use crate::api::selector::Selector;

/// The objects of all pages that both selectors accept, ordered by namespace, name and cluster; `cluster_label` is the
/// annotation that names each one's cluster. Members are sent the selectors too, and may pass over those for fields.
/// An object without labels is believed to have been chosen by its member: old versions of metrics-server choose by the
/// labels of the pod and leave them out of its metrics.
pub fn merge<'a>(
    pages: &'a Pages,
    labels: &Selector,
    fields: &FieldSelector,
    cluster_label: Option<&'a str>,
) -> Vec<ObjectMetrics<'a>> {
    let mut objects = Vec::with_capacity(pages.iter().map(|(_, page)| page.len()).sum());
    for (cluster, page) in pages {
        let chosen = items(page).filter(|item| is_chosen(*item, labels, fields));
        objects.extend(chosen.map(|item| (item.namespace(), item.name(), &**cluster, item)));
    }
    // Pages come in the order of their clusters, and a stable sort keeps it.
    objects.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
    objects
        .into_iter()
        .map(|(_, _, cluster, item)| ObjectMetrics {
            item,
            cluster: cluster_label.map(|label| (label, cluster)),
        })
        .collect()
}

fn is_chosen(item: ItemRef<'_>, labels: &Selector, fields: &FieldSelector) -> bool {
    if !fields.is_empty() && !fields.matches(&item.name().decode(), &item.namespace().decode()) {
        return false;
    }
    if labels.is_empty() {
        return true;
    }
    let metadata = item.metadata();
    if metadata.labels.is_empty() {
        return true;
    }
    let own: Vec<_> = metadata.labels.iter().map(|(key, value)| (key.decode(), value.decode())).collect();
    labels.matches(|key| own.iter().find(|(name, _)| name == key).map(|(_, value)| &**value))
}
