//! `custom.metrics.k8s.io`: the list in this server's responses.

use std::borrow::Cow;

use super::codec::protobuf::Writer;
use super::codec::{EncodeItem, EncodeList, MAX_EXPANSION, MAX_OVERHEAD, json};
use super::group::Group;
use super::memory::{Reserve, Stopped};
use super::meta::{Expression, LabelSelector};
use super::page::custom::CustomItemRef;
use super::quantity::Quantity;
use super::text::JsonText;
use super::time::Timestamp;

/// The API group.
pub const GROUP: &str = Group::Custom.name();

const KIND: &str = "MetricValueList";

/// A version of the API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// `v1beta1`: an item has the fields `metricName`, `window` and `selector`.
    V1Beta1,
    /// `v1beta2`, the preferred version: an item has the fields `metric.name`, `metric.selector` and `windowSeconds`.
    V1Beta2,
}

/// A `MetricValueList`.
pub struct MetricValueList<'a> {
    /// The version to encode.
    pub version: Version,
    /// The values.
    pub items: Vec<MetricValue<'a>>,
    /// Key of the label that names the clusters of each item. `None`: items do not name their clusters.
    pub cluster_label: Option<&'a str>,
}

/// One value of the response. The description of the object and of the metric comes from the first member that has the
/// item.
#[derive(Clone, Debug)]
pub struct MetricValue<'a> {
    /// The item that describes the object and the metric.
    pub item: CustomItemRef<'a>,
    /// The value: the item's own value, or the merged value of several clusters.
    pub value: Cow<'a, Quantity>,
    /// The timestamp of the oldest merged value.
    pub timestamp: Option<Timestamp>,
    /// The longest window of the merged values, in seconds.
    pub window_seconds: Option<i64>,
    /// The clusters that have the object, sorted by name; never empty.
    pub clusters: SourceClusters<'a>,
}

/// The clusters that a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceClusters<'a> {
    /// One cluster. This is the case for nearly all values.
    One(&'a str),
    /// Several clusters, sorted by name.
    Several(Vec<&'a str>),
}

impl Version {
    /// Both versions, the preferred version first.
    pub const ALL: [Self; 2] = [Self::V1Beta2, Self::V1Beta1];

    /// The other version.
    pub fn other(self) -> Self {
        match self {
            Self::V1Beta1 => Self::V1Beta2,
            Self::V1Beta2 => Self::V1Beta1,
        }
    }

    /// Parses the version in a request path; `None` if it is unknown.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// The name in a request path.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Beta2 => "v1beta2",
        }
    }

    /// Group and version, as in `apiVersion`.
    pub fn group_version(self) -> &'static str {
        match self {
            Self::V1Beta1 => "custom.metrics.k8s.io/v1beta1",
            Self::V1Beta2 => "custom.metrics.k8s.io/v1beta2",
        }
    }
}

impl EncodeList for MetricValueList<'_> {
    fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        // Measured: an item of a pod with its cluster label has about 300 bytes.
        json::list(KIND, self.version.group_version(), &self.items, 320, reserve, |out, value| {
            value.write_json(out, self.version, self.cluster_label);
        })
    }

    fn to_protobuf(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        Writer::list(self.version.group_version(), KIND, (1, 2), &self.items, 192, reserve, |out, value| {
            value.write_protobuf(out, self.version, self.cluster_label);
        })
    }
}

impl EncodeItem for MetricValue<'_> {
    fn max_bytes(&self) -> usize {
        let clusters = match &self.clusters {
            SourceClusters::One(cluster) => cluster.len(),
            SourceClusters::Several(clusters) => clusters.iter().map(|cluster| cluster.len() + 1).sum(),
        };
        MAX_EXPANSION * (self.item.bytes() + self.value.heap_bytes() + clusters) + MAX_OVERHEAD
    }
}

impl<'a> MetricValue<'a> {
    fn write_json(&self, out: &mut Vec<u8>, version: Version, cluster_label: Option<&'a str>) {
        let item = self.item;
        out.extend_from_slice(br#"{"describedObject":{"#);
        json::string_unless_empty(out, "kind", item.kind());
        json::string_unless_empty(out, "namespace", item.namespace());
        json::string_unless_empty(out, "name", item.name());
        json::string_unless_empty(out, "uid", item.uid());
        json::string_unless_empty(out, "apiVersion", item.api_version());
        json::string_unless_empty(out, "resourceVersion", item.resource_version());
        json::string_unless_empty(out, "fieldPath", item.field_path());
        let (name, window) = match version {
            Version::V1Beta1 => (&br#"},"metricName":"#[..], "window"),
            Version::V1Beta2 => (&br#"},"metric":{"name":"#[..], "windowSeconds"),
        };
        out.extend_from_slice(name);
        json::string(out, item.metric());
        if version == Version::V1Beta2 {
            self.write_selector(out, cluster_label);
            out.push(b'}');
        }
        json::key(out, "timestamp");
        Timestamp::write_json(self.timestamp, out);
        if let Some(seconds) = self.window_seconds {
            json::key(out, window);
            json::display(out, seconds);
        }
        json::display(out, format_args!(",\"value\":\"{}\"", self.value));
        if version == Version::V1Beta1 {
            self.write_selector(out, cluster_label);
        }
        out.push(b'}');
    }

    fn write_selector(&self, out: &mut Vec<u8>, cluster_label: Option<&'a str>) {
        json::key(out, "selector");
        match self.selector(cluster_label) {
            Some(mut selector) => selector.write_json(out),
            None => out.extend_from_slice(b"null"),
        }
    }

    fn write_protobuf(&self, out: &mut Writer, version: Version, cluster_label: Option<&'a str>) {
        let item = self.item;
        out.message(1, |object| {
            object.text(1, item.kind());
            object.text(2, item.namespace());
            object.text(3, item.name());
            object.text(4, item.uid());
            object.text(5, item.api_version());
            object.text(6, item.resource_version());
            object.text(7, item.field_path());
        });
        let selector = |out: &mut Writer, field| {
            if let Some(mut selector) = self.selector(cluster_label) {
                out.message(field, |out| selector.write_protobuf(out));
            }
        };
        match version {
            Version::V1Beta1 => out.text(2, item.metric()),
            Version::V1Beta2 => out.message(2, |metric| {
                metric.text(1, item.metric());
                selector(metric, 2);
            }),
        }
        out.message(3, |out| Timestamp::write_protobuf(self.timestamp, out));
        if let Some(seconds) = self.window_seconds {
            out.number(4, seconds);
        }
        out.quantity(5, &self.value);
        if version == Version::V1Beta1 {
            selector(out, 6);
        }
    }

    /// The metric's own selector, extended by the clusters: one cluster is a label, several clusters are a requirement.
    fn selector(&self, cluster_label: Option<&'a str>) -> Option<LabelSelector<'a>> {
        let own = self.item.selector();
        let Some(label) = cluster_label.map(JsonText::Plain) else { return own };
        let mut selector = own.unwrap_or_default();
        // A member that is itself a federation may have added the same label. The label of this server replaces it.
        selector.match_labels.retain(|(key, _)| *key != label);
        match &self.clusters {
            SourceClusters::One(cluster) => selector.match_labels.push((label, JsonText::Plain(cluster))),
            SourceClusters::Several(clusters) => {
                let values = clusters.iter().copied().map(JsonText::Plain).collect();
                let operator = JsonText::Plain("In");
                selector.match_expressions.push(Expression { key: label, operator, values });
            }
        }
        Some(selector)
    }
}
