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
    /// Empty in responses of real servers.
    #[serde(default)]
    pub metadata: ListMeta,
    /// The values, one per label set.
    pub items: Vec<ExternalMetricValue>,
}

/// One value of a metric, without an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalMetricValue {
    /// The metric's name.
    pub metric_name: String,
    /// The labels of the series. `None` is sent as `null`, as KEDA does.
    pub metric_labels: Option<BTreeMap<String, String>>,
    /// Time of the measurement (RFC 3339). JSON has the text unchanged; protobuf omits it if it is not a valid time.
    pub timestamp: String,
    /// Length of the measurement window in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// A quantity, sent unchanged.
    pub value: String,
}

impl ExternalMetricValueList {
    /// Encodes the list.
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
