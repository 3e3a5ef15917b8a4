//! Custom metrics of several clusters as one list.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::Pages;
use crate::api::custom_metrics::{MetricValue, SourceClusters};
use crate::api::memory::{Reserve, Stopped, make_room, push};
use crate::api::page::custom::CustomItemRef;
use crate::api::text::JsonText;
use crate::config::SameNamePods;

/// One item and the cluster that it came from.
#[derive(Clone, Copy)]
struct ClusterItem<'a> {
    cluster: &'a str,
    item: CustomItemRef<'a>,
    namespace: JsonText<'a>,
    name: JsonText<'a>,
}

/// The items of all pages, ordered by namespace, name and cluster. Objects that several clusters share are one
/// item: their values are summed, the timestamp is the oldest and the window the longest; for pods `same_name`
/// may say otherwise. A query `by_name` always yields one item, since clients insist on it.
///
/// # Errors
/// If `reserve` stops it.
pub fn merge<'a>(
    pages: &Pages<'a>,
    same_name: SameNamePods,
    by_name: bool,
    reserve: &mut Reserve<'_>,
) -> Result<Vec<MetricValue<'a>>, Stopped> {
    let count = pages.iter().map(|(_, page)| page.len()).sum();
    let mut tagged: Vec<ClusterItem<'a>> = Vec::new();
    make_room(&mut tagged, count, reserve)?;
    for &(cluster, page) in pages {
        for item in page.custom() {
            let item = ClusterItem { cluster, item, namespace: item.namespace(), name: item.name() };
            push(&mut tagged, item, reserve)?;
        }
    }
    if by_name {
        return if tagged.is_empty() { Ok(Vec::new()) } else { Ok(vec![sum(&tagged, reserve)?]) };
    }
    // A stable sort takes as much again.
    reserve(count * size_of::<ClusterItem<'_>>())?;
    tagged.sort_by(|one, two| one.object(two).then_with(|| one.cluster.cmp(two.cluster)));
    let mut values = Vec::new();
    make_room(&mut values, count, reserve)?;
    for shared in tagged.chunk_by(|one, two| one.object(two).is_eq()) {
        let pods = shared.len() > 1 && shared[0].item.kind() == JsonText::Plain("Pod");
        if pods && same_name == SameNamePods::Separate {
            for of_cluster in shared.chunk_by(|one, two| one.cluster == two.cluster) {
                let value = sum(of_cluster, reserve)?;
                push(&mut values, value, reserve)?;
            }
            continue;
        }
        let is_averaged = pods && same_name == SameNamePods::Average;
        let value = if is_averaged { average(shared, reserve) } else { sum(shared, reserve) }?;
        push(&mut values, value, reserve)?;
    }
    Ok(values)
}

impl ClusterItem<'_> {
    /// Compares the objects: namespace and name first, since they give the answer its order.
    fn object(&self, other: &Self) -> Ordering {
        self.namespace
            .cmp(&other.namespace)
            .then_with(|| self.name.cmp(&other.name))
            .then_with(|| self.item.kind().cmp(&other.item.kind()))
            .then_with(|| group(self.item).cmp(&group(other.item)))
    }
}

/// The items as one; `shared` is never empty and sorted by cluster.
fn sum<'a>(shared: &[ClusterItem<'a>], reserve: &mut Reserve<'_>) -> Result<MetricValue<'a>, Stopped> {
    let [first, others @ ..] = shared else { unreachable!("chunks are never empty") };
    let mut value = MetricValue {
        item: first.item,
        value: Cow::Borrowed(first.item.value()),
        timestamp: first.item.timestamp(),
        window_seconds: first.item.window_seconds(),
        clusters: SourceClusters::One(first.cluster),
    };
    if others.is_empty() {
        return Ok(value);
    }
    let mut clusters = Vec::new();
    push(&mut clusters, first.cluster, reserve)?;
    for other in others {
        value.value.to_mut().add(other.item.value());
        value.timestamp = [value.timestamp, other.item.timestamp()].into_iter().flatten().min();
        value.window_seconds = value.window_seconds.max(other.item.window_seconds());
        if clusters.last() != Some(&other.cluster) {
            push(&mut clusters, other.cluster, reserve)?;
        }
    }
    reserve(value.value.heap_bytes())?;
    if clusters.len() > 1 {
        value.clusters = SourceClusters::Several(clusters);
    }
    Ok(value)
}

fn average<'a>(shared: &[ClusterItem<'a>], reserve: &mut Reserve<'_>) -> Result<MetricValue<'a>, Stopped> {
    let mut value = sum(shared, reserve)?;
    let count = u32::try_from(shared.len()).unwrap_or(u32::MAX);
    value.value = Cow::Owned(value.value.divided_by(count));
    reserve(value.value.heap_bytes())?;
    Ok(value)
}

/// The group in an object's `apiVersion`; the core group is also written `/v1`.
fn group(item: CustomItemRef<'_>) -> Cow<'_, str> {
    let end = |text: &str| text.rfind('/').unwrap_or(0);
    match item.api_version().decode() {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end(text)]),
        Cow::Owned(text) => Cow::Owned(text[..end(&text)].to_owned()),
    }
}

#[cfg(test)]
mod tests;
