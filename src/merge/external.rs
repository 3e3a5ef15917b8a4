//! Merges external metrics of several clusters into one list.

use std::borrow::Cow;

use super::Pages;
use crate::api::external_metrics::ExternalMetricValue;
use crate::api::memory::{Reserve, Stopped, push};
use crate::api::meta::KeyValue;
use crate::api::page::external::ExternalItemRef;
use crate::api::quantity::Quantity;
use crate::api::text::JsonText;
use crate::config::ExternalMerge;

/// One series of one cluster.
struct ExternalSeries<'a> {
    cluster: &'a str,
    item: ExternalItemRef<'a>,
    /// Labels without the cluster label, sorted by key.
    labels: Vec<KeyValue<'a>>,
}

/// Merges the series of all pages, ordered by metric, labels and cluster. Series stay separate unless `rule` merges those with
/// equal labels. `cluster_label` names the cluster of each series; for several clusters it has their names, separated by commas.
///
/// # Errors
/// If `reserve` stops the merge.
pub fn merge<'a>(
    pages: &Pages<'a>,
    rule: ExternalMerge,
    cluster_label: Option<&'a str>,
    reserve: &mut Reserve<'_>,
) -> Result<Vec<ExternalMetricValue<'a>>, Stopped> {
    let mut all: Vec<ExternalSeries<'a>> = Vec::new();
    for &(cluster, page) in pages {
        for item in page.external() {
            let item = ExternalSeries { cluster, item, labels: labels(item, cluster_label) };
            reserve(item.labels.capacity() * size_of::<KeyValue<'_>>())?;
            push(&mut all, item, reserve)?;
        }
    }
    // Pages are ordered by cluster, and a stable sort keeps that order. It allocates as much memory again.
    reserve(all.len() * size_of::<ExternalSeries<'_>>())?;
    all.sort_by(|one, other| one.series().cmp(&other.series()));
    let alike = |one: &ExternalSeries<'a>, other: &ExternalSeries<'a>| {
        rule != ExternalMerge::Each && one.series() == other.series()
    };
    let mut values = Vec::new();
    for group in all.chunk_by(alike) {
        let value = one(group, rule, cluster_label, reserve)?;
        push(&mut values, value, reserve)?;
    }
    Ok(values)
}

/// The labels of the item's series, without a cluster label that the member set itself.
fn labels<'a>(item: ExternalItemRef<'a>, cluster_label: Option<&str>) -> Vec<KeyValue<'a>> {
    let mut labels = item.labels();
    labels.retain(|(key, _)| cluster_label.is_none_or(|label| *key != JsonText::Plain(label)));
    labels.sort_unstable();
    labels
}

impl<'a> ExternalSeries<'a> {
    fn series(&self) -> (JsonText<'a>, &[KeyValue<'a>]) {
        (self.item.metric(), &self.labels)
    }
}

/// Merges series into one value. `series` is not empty.
fn one<'a>(
    group: &[ExternalSeries<'a>],
    rule: ExternalMerge,
    cluster_label: Option<&'a str>,
    reserve: &mut Reserve<'_>,
) -> Result<ExternalMetricValue<'a>, Stopped> {
    let first = &group[0];
    let values = || group.iter().map(|all| all.item.value());
    let value = match rule {
        _ if group.len() == 1 => Cow::Borrowed(first.item.value()),
        ExternalMerge::Each | ExternalMerge::Sum => Cow::Owned(sum(values())),
        ExternalMerge::Max => Cow::Borrowed(values().max().unwrap_or(first.item.value())),
        ExternalMerge::Min => Cow::Borrowed(values().min().unwrap_or(first.item.value())),
        ExternalMerge::Average => {
            let count = u32::try_from(group.len()).unwrap_or(u32::MAX);
            Cow::Owned(sum(values()).divide_rounding_up(count))
        }
    };
    let clusters = clusters(group, reserve)?;
    reserve(
        value.heap_bytes()
            + (first.labels.len() + 1) * size_of::<(JsonText<'_>, Cow<'_, str>)>()
            + first.item.bytes()
            + clusters.len(),
    )?;
    let mut labels = Vec::with_capacity(first.labels.len() + 1);
    labels.extend(first.labels.iter().map(|(key, value)| (*key, value.decode())));
    if let Some(label) = cluster_label {
        let label = JsonText::Plain(label);
        let at = labels.partition_point(|(key, _)| *key < label);
        labels.insert(at, (label, clusters));
    }
    Ok(ExternalMetricValue {
        item: first.item,
        labels,
        value,
        timestamp: group.iter().filter_map(|all| all.item.timestamp()).min(),
        window_seconds: group.iter().filter_map(|all| all.item.window_seconds()).max(),
    })
}

fn sum<'a>(values: impl Iterator<Item = &'a Quantity>) -> Quantity {
    values.fold(Quantity::ZERO, |mut sum, value| {
        sum.add(value);
        sum
    })
}

fn clusters<'a>(group: &[ExternalSeries<'a>], reserve: &mut Reserve<'_>) -> Result<Cow<'a, str>, Stopped> {
    let mut names: Vec<&'a str> = Vec::new();
    for all in group {
        if names.last() != Some(&all.cluster) {
            push(&mut names, all.cluster, reserve)?;
        }
    }
    Ok(match names[..] {
        [name] => Cow::Borrowed(name),
        _ => Cow::Owned(names.join(",")),
    })
}
