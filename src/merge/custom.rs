//! Merges custom metrics of several clusters into one list.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::Pages;
use crate::api::custom_metrics::{MetricValue, SourceClusters};
use crate::api::memory::{Reserve, Stopped, push, reserve_capacity};
use crate::api::page::custom::CustomItemRef;
use crate::api::text::JsonText;
use crate::config::SameNamePods;

#[derive(Clone, Copy)]
struct ClusterItem<'a> {
    cluster: &'a str,
    item: CustomItemRef<'a>,
    namespace: JsonText<'a>,
    name: JsonText<'a>,
}

/// Merges the items of all pages, ordered by namespace, name and cluster. An object that several clusters have becomes one
/// item: the sum of the values, the oldest timestamp, the longest window. For pods, `same_name` may select another rule. A query
/// `by_name` always yields one item, as clients require.
///
/// # Errors
/// If `reserve` stops the merge.
pub fn merge<'a>(
    pages: &Pages<'a>,
    same_name: SameNamePods,
    by_name: bool,
    reserve: &mut Reserve<'_>,
) -> Result<Vec<MetricValue<'a>>, Stopped> {
    let count = pages.iter().map(|(_, page)| page.len()).sum();
    let mut tagged: Vec<ClusterItem<'a>> = Vec::new();
    reserve_capacity(&mut tagged, count, reserve)?;
    for &(cluster, page) in pages {
        for item in page.custom() {
            let item = ClusterItem { cluster, item, namespace: item.namespace(), name: item.name() };
            push(&mut tagged, item, reserve)?;
        }
    }
    if by_name {
        return match &tagged[..] {
            [] => Ok(Vec::new()),
            shared if is_pods(shared) && same_name == SameNamePods::Average => {
                Ok(vec![average(shared, reserve)?])
            }
            shared => Ok(vec![sum(shared, reserve)?]),
        };
    }
    // A stable sort allocates as much memory again.
    reserve(count * size_of::<ClusterItem<'_>>())?;
    tagged.sort_by(|one, two| one.object(two).then_with(|| one.cluster.cmp(two.cluster)));
    let mut values = Vec::new();
    reserve_capacity(&mut values, count, reserve)?;
    for shared in tagged.chunk_by(|one, two| one.object(two).is_eq()) {
        let pods = is_pods(shared);
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
    /// Compares objects. Namespace and name come first: they are the order of the list.
    fn object(&self, other: &Self) -> Ordering {
        self.namespace
            .cmp(&other.namespace)
            .then_with(|| self.name.cmp(&other.name))
            .then_with(|| self.item.kind().cmp(&other.item.kind()))
            .then_with(|| group(self.item).cmp(&group(other.item)))
    }
}

/// Whether these are pods of several clusters with one name.
fn is_pods(shared: &[ClusterItem<'_>]) -> bool {
    shared.len() > 1 && shared[0].item.kind() == JsonText::Plain("Pod")
}

/// Sums the items of one object. `shared` is not empty and sorted by cluster.
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
    value.value = Cow::Owned(value.value.divide_rounding_up(count));
    reserve(value.value.heap_bytes())?;
    Ok(value)
}

/// The group in an object's `apiVersion`. The core group is written `v1` or `/v1`.
fn group(item: CustomItemRef<'_>) -> Cow<'_, str> {
    let end = |text: &str| text.rfind('/').unwrap_or(0);
    match item.api_version().decode() {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end(text)]),
        Cow::Owned(text) => Cow::Owned(text[..end(&text)].to_owned()),
    }
}

#[cfg(test)]
mod tests;
