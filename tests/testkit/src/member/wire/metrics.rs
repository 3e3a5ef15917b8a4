//! `custom.metrics.k8s.io`: `MetricValueList` in both versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Format, json, string_map};
use crate::protobuf::Message;
use crate::timestamp;

/// A version of the custom metrics API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1beta1`
    V1Beta1,
    /// `v1beta2`
    V1Beta2,
}

/// A list of metric values in one of the two versions.
#[derive(Clone, Debug)]
pub struct MetricValueList {
    /// The version of the encoding.
    pub version: Version,
    /// Empty in responses of prometheus-adapter.
    pub metadata: ListMeta,
    /// The values.
    pub items: Vec<MetricValue>,
}

/// `metav1.ListMeta`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    /// Deprecated and unused in Kubernetes, but still in its types.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub self_link: String,
    /// The `resourceVersion` of the list.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
}

/// One value of one object.
#[derive(Clone, Debug)]
pub struct MetricValue {
    /// The object that the value describes.
    pub described_object: ObjectReference,
    /// The metric's name.
    pub metric: String,
    /// The metric selector of the query.
    pub selector: Option<LabelSelector>,
    /// Time of the measurement in seconds since 1970.
    pub timestamp: Option<i64>,
    /// Length of the measurement window in seconds.
    pub window: Option<i64>,
    /// A quantity, sent unchanged.
    pub value: String,
}

/// `corev1.ObjectReference`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field_path: String,
}

/// `metav1.LabelSelector`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct LabelSelector {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// `metav1.LabelSelectorRequirement`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct LabelSelectorRequirement {
    pub key: String,
    pub operator: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListJson<'a, Item> {
    kind: &'static str,
    api_version: String,
    metadata: &'a ListMeta,
    items: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct V1Beta1Json<'a> {
    described_object: &'a ObjectReference,
    metric_name: &'a str,
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<i64>,
    value: &'a str,
    selector: &'a Option<LabelSelector>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct V1Beta2Json<'a> {
    described_object: &'a ObjectReference,
    metric: IdentifierJson<'a>,
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_seconds: Option<i64>,
    value: &'a str,
}

#[derive(Serialize)]
struct IdentifierJson<'a> {
    name: &'a str,
    selector: &'a Option<LabelSelector>,
}

/// An item of either version, for parsing.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EitherJson {
    described_object: ObjectReference,
    metric: Option<IdentifierOwned>,
    metric_name: Option<String>,
    timestamp: Option<String>,
    #[serde(alias = "windowSeconds")]
    window: Option<i64>,
    value: String,
    selector: Option<LabelSelector>,
}

#[derive(Deserialize)]
struct IdentifierOwned {
    name: String,
    selector: Option<LabelSelector>,
}

impl Version {
    /// `v1beta1` or `v1beta2`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Beta2 => "v1beta2",
        }
    }

    /// The group and the version.
    pub fn api_version(self) -> String {
        format!("custom.metrics.k8s.io/{}", self.name())
    }
}

impl MetricValueList {
    /// An empty list.
    pub fn new(version: Version) -> Self {
        Self { version, metadata: ListMeta::default(), items: Vec::new() }
    }

    /// Parses a list of either version, so that a recorded JSON response can be sent as protobuf.
    ///
    /// # Errors
    /// If the object is not a `MetricValueList`.
    pub fn from_json(object: &serde_json::Value) -> anyhow::Result<Self> {
        let version = match object["apiVersion"].as_str() {
            Some("custom.metrics.k8s.io/v1beta1") => Version::V1Beta1,
            Some("custom.metrics.k8s.io/v1beta2") => Version::V1Beta2,
            other => anyhow::bail!("not a version of the custom metrics API: {other:?}"),
        };
        let items = Vec::<EitherJson>::deserialize(&object["items"])?;
        let items = items.into_iter().map(MetricValue::try_from).collect::<anyhow::Result<_>>()?;
        Ok(Self { version, metadata: ListMeta::deserialize(&object["metadata"])?, items })
    }

    /// Encodes the list.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        match (format, self.version) {
            (Format::Json, Version::V1Beta1) => self.to_json(v1beta1_json),
            (Format::Json, Version::V1Beta2) => self.to_json(v1beta2_json),
            (Format::Protobuf, _) => self.to_protobuf(),
        }
    }

    fn to_json<'a, Item: Serialize>(&'a self, item: fn(&'a MetricValue) -> Item) -> Vec<u8> {
        json(&ListJson {
            kind: "MetricValueList",
            api_version: self.version.api_version(),
            metadata: &self.metadata,
            items: self.items.iter().map(item).collect(),
        })
    }

    fn to_protobuf(&self) -> Vec<u8> {
        let item = match self.version {
            Version::V1Beta1 => v1beta1_message,
            Version::V1Beta2 => v1beta2_message,
        };
        let message = self.metadata.message_with(self.items.iter().map(item));
        message.into_envelope(&self.version.api_version(), "MetricValueList")
    }
}

impl TryFrom<EitherJson> for MetricValue {
    type Error = anyhow::Error;

    fn try_from(item: EitherJson) -> anyhow::Result<Self> {
        let (metric, selector) = match (item.metric, item.metric_name) {
            (Some(metric), None) => (metric.name, metric.selector),
            (None, Some(name)) => (name, item.selector),
            _ => anyhow::bail!("an item needs either metric or metricName"),
        };
        let seconds =
            |text: String| timestamp::parse(&text).ok_or_else(|| anyhow::anyhow!("not a time: {text}"));
        Ok(Self {
            described_object: item.described_object,
            metric,
            selector,
            timestamp: item.timestamp.map(seconds).transpose()?,
            window: item.window,
            value: item.value,
        })
    }
}

fn v1beta1_json(item: &MetricValue) -> V1Beta1Json<'_> {
    V1Beta1Json {
        described_object: &item.described_object,
        metric_name: &item.metric,
        timestamp: item.timestamp.map(timestamp::format),
        window: item.window,
        value: &item.value,
        selector: &item.selector,
    }
}

fn v1beta2_json(item: &MetricValue) -> V1Beta2Json<'_> {
    V1Beta2Json {
        described_object: &item.described_object,
        metric: IdentifierJson { name: &item.metric, selector: &item.selector },
        timestamp: item.timestamp.map(timestamp::format),
        window_seconds: item.window,
        value: &item.value,
    }
}

fn v1beta1_message(item: &MetricValue) -> Message {
    let message = measured(reference(&item.described_object).string(2, &item.metric), item);
    message.repeated(6, item.selector.iter().map(selector))
}

fn v1beta2_message(item: &MetricValue) -> Message {
    let identifier = Message::new().string(1, &item.metric).repeated(2, item.selector.iter().map(selector));
    measured(reference(&item.described_object).message(2, &identifier), item)
}

fn measured(message: Message, item: &MetricValue) -> Message {
    let time =
        item.timestamp.map_or_else(Message::new, |seconds| Message::new().integer(1, seconds).integer(2, 0));
    let message = message.message(3, &time);
    let message = match item.window {
        Some(seconds) => message.integer(4, seconds),
        None => message,
    };
    message.message(5, &Message::new().string(1, &item.value))
}

/// A metric value that has only its described object so far.
fn reference(object: &ObjectReference) -> Message {
    let object = Message::new()
        .string(1, &object.kind)
        .string(2, &object.namespace)
        .string(3, &object.name)
        .string(4, &object.uid)
        .string(5, &object.api_version)
        .string(6, &object.resource_version)
        .string(7, &object.field_path);
    Message::new().message(1, &object)
}

fn selector(selector: &LabelSelector) -> Message {
    let expressions = selector.match_expressions.iter().map(|expression| {
        let message = Message::new().string(1, &expression.key).string(2, &expression.operator);
        expression.values.iter().fold(message, |message, value| message.string(3, value))
    });
    Message::new().repeated(1, string_map(&selector.match_labels)).repeated(2, expressions)
}
