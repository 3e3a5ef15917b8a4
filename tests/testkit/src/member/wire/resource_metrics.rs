//! `metrics.k8s.io/v1beta1`: the usage of pods and nodes, as single objects and lists.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::{Format, ListMeta, string_map, time, typed_json};
use crate::protobuf::Message;
use crate::{go_duration, timestamp};

const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Quantities by resource (`cpu`, `memory`), sent unchanged.
pub type Usage = BTreeMap<String, String>;

/// A response of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum ResourceMetrics {
    Pods(MetricsList<PodMetrics>),
    Pod(PodMetrics),
    Nodes(MetricsList<NodeMetrics>),
    Node(NodeMetrics),
}

/// A list of pods or nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricsList<Item> {
    /// Empty in responses of metrics-server.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The pods or nodes.
    pub items: Vec<Item>,
}

/// The usage of a pod's containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodMetrics {
    /// Namespace, name and labels of the pod.
    pub metadata: ObjectMeta,
    /// Time of the measurement (RFC 3339). JSON has the text unchanged.
    pub timestamp: String,
    /// Length of the measurement window as a Go duration. JSON has the text unchanged.
    pub window: String,
    /// The containers.
    pub containers: Vec<ContainerMetrics>,
}

/// The usage of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ContainerMetrics {
    pub name: String,
    pub usage: Usage,
}

/// The usage of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMetrics {
    /// Name and labels of the node.
    pub metadata: ObjectMeta,
    /// As in [`PodMetrics`].
    pub timestamp: String,
    /// As in [`PodMetrics`].
    pub window: String,
    /// The usage of the whole node.
    pub usage: Usage,
}

/// The fields of `metav1.ObjectMeta` that occur in metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ObjectMeta {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub creation_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl ResourceMetrics {
    /// Parses an object or a list, so that a recorded JSON response can be sent as protobuf.
    ///
    /// # Errors
    /// If the object has no kind of this API.
    pub fn from_json(object: &serde_json::Value) -> anyhow::Result<Self> {
        Ok(match object["kind"].as_str() {
            Some("PodMetricsList") => Self::Pods(MetricsList::deserialize(object)?),
            Some("PodMetrics") => Self::Pod(PodMetrics::deserialize(object)?),
            Some("NodeMetricsList") => Self::Nodes(MetricsList::deserialize(object)?),
            Some("NodeMetrics") => Self::Node(NodeMetrics::deserialize(object)?),
            other => bail!("not a kind of the resource metrics API: {other:?}"),
        })
    }

    /// Encodes the response. Protobuf omits a timestamp or window that is not valid.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        let (kind, message) = match self {
            Self::Pods(pods) => ("PodMetricsList", pods.message(pod_message)),
            Self::Pod(pod) => ("PodMetrics", pod_message(pod)),
            Self::Nodes(nodes) => ("NodeMetricsList", nodes.message(node_message)),
            Self::Node(node) => ("NodeMetrics", node_message(node)),
        };
        match format {
            Format::Json => typed_json(API_VERSION, kind, self),
            Format::Protobuf => message.into_envelope(API_VERSION, kind),
        }
    }

    /// Sets every quantity to this text.
    pub(super) fn set_quantities(&mut self, text: &str) {
        let set = |usage: &mut Usage| usage.values_mut().for_each(|quantity| text.clone_into(quantity));
        let set_pod = |pod: &mut PodMetrics| pod.containers.iter_mut().for_each(|one| set(&mut one.usage));
        match self {
            Self::Pods(pods) => pods.items.iter_mut().for_each(set_pod),
            Self::Pod(pod) => set_pod(pod),
            Self::Nodes(nodes) => nodes.items.iter_mut().for_each(|node| set(&mut node.usage)),
            Self::Node(node) => set(&mut node.usage),
        }
    }
}

impl<Item> MetricsList<Item> {
    /// A list as metrics-server sends it.
    pub fn new(items: Vec<Item>) -> Self {
        Self { metadata: ListMeta::default(), items }
    }

    fn message(&self, item: fn(&Item) -> Message) -> Message {
        self.metadata.message_with(self.items.iter().map(item))
    }
}

impl PodMetrics {
    /// A pod with one container `app`, measured now over 15 s.
    pub fn new(namespace: &str, name: &str, cpu: &str, memory: &str) -> Self {
        let metadata = ObjectMeta { namespace: namespace.to_owned(), ..ObjectMeta::new(name) };
        let timestamp = metadata.creation_timestamp.clone();
        let containers = vec![ContainerMetrics { name: "app".to_owned(), usage: usage(cpu, memory) }];
        Self { metadata, timestamp, window: "15s".to_owned(), containers }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.metadata.labels.insert(key.to_owned(), value.to_owned());
        self
    }
}

impl NodeMetrics {
    /// A node, measured now over 15 s.
    pub fn new(name: &str, cpu: &str, memory: &str) -> Self {
        let metadata = ObjectMeta::new(name);
        let timestamp = metadata.creation_timestamp.clone();
        Self { metadata, timestamp, window: "15s".to_owned(), usage: usage(cpu, memory) }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.metadata.labels.insert(key.to_owned(), value.to_owned());
        self
    }
}

impl ObjectMeta {
    /// Metadata with the current time as creation time, as in every response of metrics-server.
    fn new(name: &str) -> Self {
        let creation_timestamp = timestamp::format(timestamp::now());
        Self { name: name.to_owned(), creation_timestamp, ..Self::default() }
    }

    fn message(&self) -> Message {
        let message = Message::new()
            .string(1, &self.name)
            .string(2, "")
            .string(3, &self.namespace)
            .string(4, "")
            .string(5, "")
            .string(6, "")
            .integer(7, 0)
            .message(8, &time(&self.creation_timestamp));
        message.repeated(11, string_map(&self.labels)).repeated(12, string_map(&self.annotations))
    }
}

fn usage(cpu: &str, memory: &str) -> Usage {
    [("cpu", cpu), ("memory", memory)].map(|(name, quantity)| (name.to_owned(), quantity.to_owned())).into()
}

fn pod_message(pod: &PodMetrics) -> Message {
    let container = |container: &ContainerMetrics| {
        Message::new().string(1, &container.name).repeated(2, quantities(&container.usage))
    };
    measured(&pod.metadata, &pod.timestamp, &pod.window).repeated(4, pod.containers.iter().map(container))
}

fn node_message(node: &NodeMetrics) -> Message {
    measured(&node.metadata, &node.timestamp, &node.window).repeated(4, quantities(&node.usage))
}

fn measured(metadata: &ObjectMeta, timestamp: &str, window: &str) -> Message {
    let window = go_duration::nanoseconds(window)
        .map_or_else(Message::new, |nanoseconds| Message::new().integer(1, nanoseconds));
    Message::new().message(1, &metadata.message()).message(2, &time(timestamp)).message(3, &window)
}

fn quantities(usage: &Usage) -> impl Iterator<Item = Message> {
    let quantity = |text: &String| Message::new().string(1, text);
    usage.iter().map(move |(name, text)| Message::new().string(1, name).message(2, &quantity(text)))
}
