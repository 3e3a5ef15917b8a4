//! `custom.metrics.k8s.io`: the list that this server answers with.

use std::borrow::Cow;

use super::codec::json;
use super::meta::LabelSelector;
use super::page::ItemRef;
use super::quantity::Quantity;
use super::text::Text;
use super::time::Timestamp;

/// The API group.
pub const GROUP: &str = "custom.metrics.k8s.io";

/// A version of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// `v1beta1`: `metricName`, `window` and `selector` beside the value.
    V1Beta1,
    /// `v1beta2`: the preferred one, with `metric.name`, `metric.selector` and `windowSeconds`.
    V1Beta2,
}

/// One value of the answer. What describes the object and the metric is read through the item of the first member
/// that has it.
#[derive(Clone, Debug)]
pub struct MetricValue<'a> {
    /// Whose object and metric this is.
    pub item: ItemRef<'a>,
    /// The value: the item's own, or one that was made of several clusters' values.
    pub value: Cow<'a, Quantity>,
    /// When the oldest of the values was taken.
    pub timestamp: Option<Timestamp>,
    /// The longest of the windows, in seconds.
    pub window_seconds: Option<i64>,
    /// The clusters that have the object, in their order; never empty.
    pub clusters: Clusters<'a>,
}

/// The clusters that a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clusters<'a> {
    /// A single one, as for nearly all values.
    One(&'a str),
    /// Several, sorted by name.
    Several(Vec<&'a str>),
}

impl Version {
    /// Both, the preferred one first.
    pub const ALL: [Self; 2] = [Self::V1Beta2, Self::V1Beta1];

    /// The version that a path names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// As it stands in a path.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Beta2 => "v1beta2",
        }
    }

    /// Group and version, as they stand in `apiVersion`.
    pub fn group_version(self) -> &'static str {
        match self {
            Self::V1Beta1 => "custom.metrics.k8s.io/v1beta1",
            Self::V1Beta2 => "custom.metrics.k8s.io/v1beta2",
        }
    }
}

/// Encodes a `MetricValueList` as JSON. `cluster_label` is the key under which each item names its clusters, if it
/// names them at all.
pub fn to_json(version: Version, items: &[MetricValue<'_>], cluster_label: Option<&str>) -> Vec<u8> {
    // Measured: an item of a pod with its tag has about 300 bytes.
    let mut out = Vec::with_capacity(128 + items.len() * 320);
    out.extend_from_slice(br#"{"kind":"MetricValueList","apiVersion":""#);
    out.extend_from_slice(version.group_version().as_bytes());
    out.extend_from_slice(br#"","metadata":{},"items":["#);
    json::separated(&mut out, items, |out, value| value.write_json(out, version, cluster_label));
    out.extend_from_slice(b"]}\n");
    out
}

impl MetricValue<'_> {
    fn write_json(&self, out: &mut Vec<u8>, version: Version, cluster_label: Option<&str>) {
        let item = self.item;
        out.extend_from_slice(br#"{"describedObject":{"#);
        json::non_empty(out, "kind", item.kind());
        json::non_empty(out, "namespace", item.namespace());
        json::non_empty(out, "name", item.name());
        json::non_empty(out, "uid", item.uid());
        json::non_empty(out, "apiVersion", item.api_version());
        json::non_empty(out, "resourceVersion", item.resource_version());
        json::non_empty(out, "fieldPath", item.field_path());
        let (name, window) = match version {
            Version::V1Beta1 => (&br#"},"metricName":"#[..], &br#","window":"#[..]),
            Version::V1Beta2 => (&br#"},"metric":{"name":"#[..], &br#","windowSeconds":"#[..]),
        };
        out.extend_from_slice(name);
        json::string(out, item.metric());
        if version == Version::V1Beta2 {
            self.write_selector(out, cluster_label);
            out.push(b'}');
        }
        out.extend_from_slice(br#","timestamp":"#);
        match self.timestamp {
            Some(timestamp) => json::display(out, format_args!("\"{timestamp}\"")),
            None => out.extend_from_slice(b"null"),
        }
        if let Some(seconds) = self.window_seconds {
            out.extend_from_slice(window);
            json::display(out, seconds);
        }
        json::display(out, format_args!(",\"value\":\"{}\"", self.value));
        if version == Version::V1Beta1 {
            self.write_selector(out, cluster_label);
        }
        out.push(b'}');
    }

    /// The metric's own selector, joined with the clusters: one cluster as a label, several as a requirement.
    fn write_selector(&self, out: &mut Vec<u8>, cluster_label: Option<&str>) {
        out.extend_from_slice(br#","selector":"#);
        let selector = self.item.selector();
        if selector.is_none() && cluster_label.is_none() {
            out.extend_from_slice(b"null");
            return;
        }
        let LabelSelector { mut match_labels, match_expressions } = selector.unwrap_or_default();
        let mut several: &[&str] = &[];
        if let Some(label) = cluster_label {
            // A member that is itself a federation may have tagged its values; ours is the outer one.
            match_labels.retain(|(key, _)| *key != Text::Plain(label));
            match &self.clusters {
                Clusters::One(cluster) => match_labels.push((Text::Plain(label), Text::Plain(cluster))),
                Clusters::Several(clusters) => several = clusters,
            }
        }
        match_labels.sort_unstable();
        out.push(b'{');
        if !match_labels.is_empty() {
            out.extend_from_slice(br#""matchLabels":{"#);
            json::separated(out, match_labels, |out, (key, value)| {
                json::string(out, key);
                out.push(b':');
                json::string(out, value);
            });
            out.push(b'}');
        }
        let own = match_expressions.iter().map(|own| (own.key, own.operator, &own.values[..]));
        let clusters: Vec<Text<'_>> = several.iter().copied().map(Text::Plain).collect();
        let tag = cluster_label
            .filter(|_| !clusters.is_empty())
            .map(|label| (Text::Plain(label), Text::Plain("In"), &clusters[..]));
        let mut expressions = own.chain(tag).peekable();
        if expressions.peek().is_some() {
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            out.extend_from_slice(br#""matchExpressions":["#);
            json::separated(out, expressions, |out, (key, operator, values)| {
                out.extend_from_slice(br#"{"key":"#);
                json::string(out, key);
                out.extend_from_slice(br#","operator":"#);
                json::string(out, operator);
                if !values.is_empty() {
                    out.extend_from_slice(br#","values":["#);
                    json::separated(out, values, |out, value| json::string(out, *value));
                    out.push(b']');
                }
                out.push(b'}');
            });
            out.push(b']');
        }
        out.push(b'}');
    }
}
