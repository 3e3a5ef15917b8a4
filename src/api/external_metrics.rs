//! `external.metrics.k8s.io`: the list in this server's responses.

use std::borrow::Cow;

use super::codec::protobuf::Writer;
use super::codec::{EncodeItem, EncodeList, MAX_EXPANSION, MAX_OVERHEAD, json};
use super::group::Group;
use super::memory::{Reserve, Stopped};
use super::meta::{KeyValue, write_entries};
use super::page::external::ExternalItemRef;
use super::quantity::Quantity;
use super::text::JsonText;
use super::time::Timestamp;

/// The API group.
pub const GROUP: &str = Group::External.name();
/// The only version of the API group.
pub const VERSION: &str = "v1beta1";
/// Group and version, as in `apiVersion`.
pub const GROUP_VERSION: &str = "external.metrics.k8s.io/v1beta1";

const KIND: &str = "ExternalMetricValueList";

pub struct ExternalMetricValueList<'a> {
    pub items: Vec<ExternalMetricValue<'a>>,
}

/// One value of the response.
#[derive(Clone, Debug)]
pub struct ExternalMetricValue<'a> {
    /// The item that has the name of the metric.
    pub item: ExternalItemRef<'a>,
    /// The labels, sorted by key. They include the label that names the clusters, if the response names them.
    pub labels: Vec<(JsonText<'a>, Cow<'a, str>)>,
    /// The value: the item's own value, or the merged value of several clusters.
    pub value: Cow<'a, Quantity>,
    /// The timestamp of the oldest merged value.
    pub timestamp: Option<Timestamp>,
    /// The longest window of the merged values, in seconds.
    pub window_seconds: Option<i64>,
}

impl EncodeList for ExternalMetricValueList<'_> {
    fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        json::list(KIND, GROUP_VERSION, &self.items, 256, reserve, |out, value| value.write_json(out))
    }

    fn to_protobuf(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        Writer::list(GROUP_VERSION, KIND, (1, 2), &self.items, 160, reserve, |out, value| {
            value.write_protobuf(out);
        })
    }
}

impl EncodeItem for ExternalMetricValue<'_> {
    fn max_bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(_, value)| value.len()).sum();
        MAX_EXPANSION * (self.item.bytes() + self.value.heap_bytes() + labels) + MAX_OVERHEAD
    }
}

impl ExternalMetricValue<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"metricName":"#);
        json::string(out, self.item.metric());
        out.extend_from_slice(br#","metricLabels":"#);
        if self.labels.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            json::string_map(out, self.entries());
        }
        out.extend_from_slice(br#","timestamp":"#);
        Timestamp::write_json(self.timestamp, out);
        if let Some(seconds) = self.window_seconds {
            json::key(out, "window");
            json::display(out, seconds);
        }
        json::display(out, format_args!(",\"value\":\"{}\"}}", self.value));
    }

    fn write_protobuf(&self, out: &mut Writer) {
        out.text(1, self.item.metric());
        write_entries(out, 2, &mut self.entries().collect::<Vec<_>>());
        out.message(3, |out| Timestamp::write_protobuf(self.timestamp, out));
        if let Some(seconds) = self.window_seconds {
            out.number(4, seconds);
        }
        out.quantity(5, &self.value);
    }

    fn entries(&self) -> impl Iterator<Item = KeyValue<'_>> {
        self.labels.iter().map(|(key, value)| (*key, JsonText::Plain(value)))
    }
}
