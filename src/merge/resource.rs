//! Merges CPU and memory metrics of several clusters into one list.

use super::Pages;
use crate::api::field_selector::FieldSelector;
use crate::api::memory::{Reserve, Stopped, push};
use crate::api::page::resource::ResourceItemRef;
use crate::api::resource_metrics::ObjectMetrics;
use crate::api::selector::Selector;
use crate::api::text::JsonText;

/// Merges the objects of all pages that both selectors match, ordered by namespace, name and cluster. The annotation
/// `cluster_label` names the cluster of each object. Members receive the selectors too, but may ignore field selectors. An object
/// without labels always matches the label selector: old versions of metrics-server select by the pod's labels but omit them in
/// its metrics.
///
/// # Errors
/// If `reserve` stops the merge.
pub fn merge<'a>(
    pages: &Pages<'a>,
    labels: &Selector,
    fields: &FieldSelector,
    cluster_label: Option<&'a str>,
    reserve: &mut Reserve<'_>,
) -> Result<Vec<ObjectMetrics<'a>>, Stopped> {
    let mut objects = Vec::new();
    for &(cluster, page) in pages {
        for item in page.resources() {
            // Also for objects that do not match, so that a merge without a caller stops.
            reserve(0)?;
            if is_chosen(item, labels, fields) {
                let cluster = cluster_label.map(|label| (label, cluster));
                let object = ObjectMetrics { item, cluster };
                push(&mut objects, (item.namespace(), item.name(), object), reserve)?;
            }
        }
    }
    // Pages are ordered by cluster, and a stable sort keeps that order. It allocates as much memory again.
    reserve(objects.len() * size_of::<(JsonText<'_>, JsonText<'_>, ObjectMetrics<'_>)>())?;
    objects.sort_by(|one, other| (one.0, one.1).cmp(&(other.0, other.1)));
    reserve(objects.len() * size_of::<ObjectMetrics<'_>>())?;
    Ok(objects.into_iter().map(|(_, _, object)| object).collect())
}

/// Whether both selectors match an object.
pub fn is_chosen(item: ResourceItemRef<'_>, labels: &Selector, fields: &FieldSelector) -> bool {
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
