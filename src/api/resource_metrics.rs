//! `metrics.k8s.io`: CPU and memory of pods and nodes, as in this server's responses.

use super::codec::protobuf::Writer;
use super::codec::{Encode, EncodeItem, EncodeList, MAX_EXPANSION, MAX_OVERHEAD, json};
use super::group::{Group, MetricsResource};
use super::memory::{Reserve, Stopped};
use super::meta::ObjectMeta;
use super::page::resource::{Container, ResourceItemRef};
use super::time::Timestamp;

/// The API group.
pub const GROUP: &str = Group::Resource.name();
/// The only version of the API group.
pub const VERSION: &str = "v1beta1";
/// Group and version, as in `apiVersion`.
pub const GROUP_VERSION: &str = "metrics.k8s.io/v1beta1";

/// The usage of one pod or node, and its cluster.
#[derive(Clone, Copy, Debug)]
pub struct ObjectMetrics<'a> {
    /// The object as its member sent it.
    pub item: ResourceItemRef<'a>,
    /// Key and value of the annotation that names the cluster. `None`: the response does not name clusters.
    pub cluster: Option<(&'a str, &'a str)>,
}

/// A `PodMetricsList` or `NodeMetricsList`.
pub struct ObjectMetricsList<'a> {
    /// Pods or nodes.
    pub resource: MetricsResource,
    /// The objects.
    pub items: Vec<ObjectMetrics<'a>>,
}

/// A single `PodMetrics` or `NodeMetrics`, not in a list.
pub struct SingleObjectMetrics<'a> {
    /// Pods or nodes.
    pub resource: MetricsResource,
    /// The object.
    pub item: ObjectMetrics<'a>,
}

impl EncodeList for ObjectMetricsList<'_> {
    fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        // Measured: a pod of one container has about 350 bytes.
        json::list(self.resource.list_kind(), GROUP_VERSION, &self.items, 384, reserve, |out, item| {
            out.push(b'{');
            item.write_json(out);
        })
    }

    fn to_protobuf(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        let kind = self.resource.list_kind();
        Writer::list(GROUP_VERSION, kind, (1, 2), &self.items, 256, reserve, |out, item| {
            item.write_protobuf(out);
        })
    }
}

impl EncodeItem for ObjectMetrics<'_> {
    fn max_bytes(&self) -> usize {
        // Field names and a number, per container or amount.
        const PER_PART: usize = 64;
        let (bytes, parts) = self.item.bytes();
        MAX_EXPANSION * (bytes + self.cluster.map_or(0, |(_, cluster)| cluster.len()))
            + PER_PART * parts
            + MAX_OVERHEAD
    }
}

impl Encode for SingleObjectMetrics<'_> {
    fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(384);
        self.item.write_object(self.resource, &mut out);
        out.push(b'\n');
        out
    }

    fn to_protobuf(&self) -> Vec<u8> {
        Writer::object(GROUP_VERSION, self.resource.kind(), 256, |out| self.item.write_protobuf(out))
    }
}

impl<'a> ObjectMetrics<'a> {
    /// The object's metadata, with the annotation that names its cluster.
    pub fn metadata(self) -> ObjectMeta<'a> {
        let mut metadata = self.item.metadata();
        if let Some((key, cluster)) = self.cluster {
            metadata.annotate(key, cluster);
        }
        metadata
    }

    /// Writes the JSON of the whole object, with `kind` and `apiVersion`.
    pub fn write_object(self, resource: MetricsResource, out: &mut Vec<u8>) {
        json::display(out, format_args!(r#"{{"kind":"{}","apiVersion":"{GROUP_VERSION}""#, resource.kind()));
        self.write_json(out);
    }

    /// Writes the remaining fields and the closing brace. The caller has written the opening brace.
    fn write_json(self, out: &mut Vec<u8>) {
        json::key(out, "metadata");
        self.metadata().write_json(out);
        json::key(out, "timestamp");
        Timestamp::write_json(self.item.timestamp(), out);
        json::display(out, format_args!(r#","window":"{}","#, self.item.window()));
        match self.item.resource() {
            MetricsResource::Nodes => {
                out.extend_from_slice(br#""usage":"#);
                self.item.amounts().write_json(out);
            }
            MetricsResource::Pods => {
                out.extend_from_slice(br#""containers":["#);
                json::comma_separated(out, self.item.containers(), |out, Container { name, usage }| {
                    out.extend_from_slice(br#"{"name":"#);
                    json::string(out, name);
                    out.extend_from_slice(br#","usage":"#);
                    usage.write_json(out);
                    out.push(b'}');
                });
                out.push(b']');
            }
        }
        out.push(b'}');
    }

    fn write_protobuf(self, out: &mut Writer) {
        out.message(1, |out| self.metadata().write_protobuf(out));
        out.message(2, |out| Timestamp::write_protobuf(self.item.timestamp(), out));
        out.message(3, |out| out.number(1, self.item.window().as_nanos()));
        match self.item.resource() {
            MetricsResource::Nodes => self.item.amounts().write_protobuf(out, 4),
            MetricsResource::Pods => {
                for Container { name, usage } in self.item.containers() {
                    out.message(4, |out| {
                        out.text(1, name);
                        usage.write_protobuf(out, 2);
                    });
                }
            }
        }
    }
}
