//! `external.metrics.k8s.io/v1beta1`: `ExternalMetricValueList`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Format, ListMeta, string_map, time, typed_json};
use crate::protobuf::Message;
use crate::timestamp;

const API_VERSION: &str = "external.metrics.k8s.io/v1beta1";
const KIND: &str = "ExternalMetricValueList";

/// The values of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalMetricValueList {
    /// Empty in what servers send.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The values, one for each label set.
    pub items: Vec<ExternalMetricValue>,
}

/// One value of a metric that belongs to no object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalMetricValue {
    /// The metric's name.
    pub metric_name: String,
    /// The labels of the series; none, as KEDA sends it, is `null`.
    pub metric_labels: Option<BTreeMap<String, String>>,
    /// When it was measured, RFC 3339, in JSON as it stands; in protobuf absent if it is no time.
    pub timestamp: String,
    /// Over how many seconds it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// A quantity, sent as it stands.
    pub value: String,
}

impl ExternalMetricValueList {
    /// The list's bytes.
    pub fn encode(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Json => typed_json(API_VERSION, KIND, self),
            Format::Protobuf => {
                let items = self.items.iter().map(ExternalMetricValue::message);
                self.metadata.message_with(items).into_envelope(API_VERSION, KIND)
            }
        }
    }
}

impl ExternalMetricValue {
    /// A value without labels, measured now.
    pub fn new(metric: &str, value: &str) -> Self {
        Self {
            metric_name: metric.to_owned(),
            metric_labels: None,
            timestamp: timestamp::format(timestamp::now()),
            window: None,
            value: value.to_owned(),
        }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.metric_labels.get_or_insert_default().insert(key.to_owned(), value.to_owned());
        self
    }

    fn message(&self) -> Message {
        let message = Message::new()
            .string(1, &self.metric_name)
            .repeated(2, self.metric_labels.iter().flat_map(string_map))
            .message(3, &time(&self.timestamp));
        let message = match self.window {
            Some(seconds) => message.integer(4, seconds),
            None => message,
        };
        message.message(5, &Message::new().string(1, &self.value))
    }
}
