//! Custom metrics of several clusters as one list.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::api::custom_metrics::{Clusters, MetricValue};
use crate::api::page::Page;
use crate::api::page::custom::{ItemRef, items};
use crate::api::text::Text;
use crate::config::SameNamePods;

/// One item and the cluster that it came from.
#[derive(Clone, Copy)]
struct Tagged<'a> {
    cluster: &'a str,
    item: ItemRef<'a>,
    namespace: Text<'a>,
    name: Text<'a>,
}

/// The items of all pages, ordered by namespace, name and cluster. Objects that several clusters share are one
/// item: their values are summed, the timestamp is the oldest and the window the longest; for pods `same_name`
/// may say otherwise. A query `by_name` always yields one item, since clients insist on it.
pub fn merge<'a>(
    pages: &'a [(Arc<str>, Arc<Page>)],
    same_name: SameNamePods,
    by_name: bool,
) -> Vec<MetricValue<'a>> {
    let mut tagged: Vec<Tagged<'a>> = Vec::with_capacity(pages.iter().map(|(_, page)| page.len()).sum());
    for (cluster, page) in pages {
        tagged.extend(items(page).map(|item| Tagged {
            cluster,
            item,
            namespace: item.namespace(),
            name: item.name(),
        }));
    }
    if by_name {
        return tagged.split_first().map(|_| sum(&tagged)).into_iter().collect();
    }
    tagged.sort_by(|one, two| one.object(two).then_with(|| one.cluster.cmp(two.cluster)));
    let mut values = Vec::with_capacity(tagged.len());
    for shared in tagged.chunk_by(|one, two| one.object(two).is_eq()) {
        let pods = shared.len() > 1 && shared[0].item.kind() == Text::Plain("Pod");
        match same_name {
            SameNamePods::Separate if pods => {
                values.extend(shared.chunk_by(|one, two| one.cluster == two.cluster).map(sum));
            }
            SameNamePods::Average if pods => values.push(average(shared)),
            _ => values.push(sum(shared)),
        }
    }
    values
}

impl Tagged<'_> {
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
fn sum<'a>(shared: &[Tagged<'a>]) -> MetricValue<'a> {
    let [first, others @ ..] = shared else { unreachable!("chunks are never empty") };
    let mut value = MetricValue {
        item: first.item,
        value: Cow::Borrowed(first.item.value()),
        timestamp: first.item.timestamp(),
        window_seconds: first.item.window_seconds(),
        clusters: Clusters::One(first.cluster),
    };
    if others.is_empty() {
        return value;
    }
    let mut clusters = vec![first.cluster];
    for other in others {
        value.value.to_mut().add(other.item.value());
        value.timestamp = [value.timestamp, other.item.timestamp()].into_iter().flatten().min();
        value.window_seconds = value.window_seconds.max(other.item.window_seconds());
        if clusters.last() != Some(&other.cluster) {
            clusters.push(other.cluster);
        }
    }
    if clusters.len() > 1 {
        value.clusters = Clusters::Several(clusters);
    }
    value
}

fn average<'a>(shared: &[Tagged<'a>]) -> MetricValue<'a> {
    let mut value = sum(shared);
    let count = u32::try_from(shared.len()).unwrap_or(u32::MAX);
    value.value = Cow::Owned(value.value.divided_by(count));
    value
}

/// The group in an object's `apiVersion`; the core group is also written `/v1`.
fn group(item: ItemRef<'_>) -> Cow<'_, str> {
    let end = |text: &str| text.rfind('/').unwrap_or(0);
    match item.api_version().decode() {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end(text)]),
        Cow::Owned(text) => Cow::Owned(text[..end(&text)].to_owned()),
    }
}

#[cfg(test)]
mod tests;
