//! `meta.k8s.io`: objects as a table for humans, or only their metadata.

use std::collections::BTreeSet;

use super::codec::negotiate::MetaVersion;
use super::codec::protobuf::Writer;
use super::codec::{Encode, EncodeItem, EncodeList, MAX_OVERHEAD, json};
use super::group::MetricsResource;
use super::memory::{Reserve, Stopped, reserve_capacity};
use super::page::resource::ResourceList;
use super::quantity::Quantity;
use super::resource_metrics::ObjectMetrics;
use super::text::JsonText;

/// A `Table` with one row for each object, as in metrics-server (`addPodMetricsToTable`). The resources of the first object are
/// the columns.
pub struct Table<'a> {
    /// The version to encode.
    pub version: MetaVersion,
    /// Pods or nodes.
    pub resource: MetricsResource,
    pub items: Vec<ObjectMetrics<'a>>,
    /// The content of a row's field `object`.
    pub include: IncludeObject,
}

/// `metav1.IncludeObjectPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IncludeObject {
    /// `null`.
    None,
    /// The object's metadata.
    #[default]
    Metadata,
    Object,
}

/// The query parameter `includeObject` has an unknown value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Unable to convert to Table as requested: includeObject: Invalid value: {0:?}: must be 'Metadata', 'Object', 'None', \
     or empty"
)]
pub struct IncludeObjectError(String);

pub struct PartialObjectMetadataList<'a> {
    /// The version to encode.
    pub version: MetaVersion,
    pub items: Vec<ObjectMetrics<'a>>,
}

pub struct PartialObjectMetadata<'a> {
    /// The version to encode.
    pub version: MetaVersion,
    pub item: ObjectMetrics<'a>,
}

const METADATA_LIST: &str = "PartialObjectMetadataList";
/// Maximum number of resource columns. More resources are omitted.
const MAX_COLUMNS: usize = 16;
/// Maximum length of a resource cell in bytes: the sum of `1e1023` and `1n` has 1,033 digits.
const MAX_CELL_BYTES: usize = 1100;
/// The resource columns of an empty table.
const DEFAULT_COLUMNS: [&str; 2] = ["cpu", "memory"];

impl std::str::FromStr for IncludeObject {
    type Err = IncludeObjectError;

    fn from_str(text: &str) -> Result<Self, IncludeObjectError> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(IncludeObjectError(other.to_owned())),
        }
    }
}

impl Table<'_> {
    /// Encodes the table as JSON. A table has no protobuf form.
    ///
    /// # Errors
    /// If `reserve` returns an error.
    pub fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        let first = self.items.first().map(|item| item.item.amounts());
        let resources = first.map_or_else(|| DEFAULT_COLUMNS.map(str::to_owned).to_vec(), column_names);
        let mut out = Vec::new();
        let columns = self.items.first().map_or(0, EncodeItem::max_bytes);
        reserve_capacity(&mut out, MAX_OVERHEAD + columns + self.items.len() * 384, reserve)?;
        let group_version = self.version.group_version();
        json::display(
            &mut out,
            format_args!(
                r#"{{"kind":"Table","apiVersion":"{group_version}","metadata":{{}},"columnDefinitions":["#
            ),
        );
        write_column(&mut out, "Name", "name", "Name of the resource");
        for resource in &resources {
            out.push(b',');
            write_column(&mut out, resource, "quantity", "");
        }
        out.push(b',');
        write_column(&mut out, "Window", "duration", "");
        out.extend_from_slice(br#"],"rows":["#);
        let max_bytes = |item: &ObjectMetrics<'_>| item.max_bytes() + resources.len() * MAX_CELL_BYTES;
        json::list_items(&mut out, &self.items, max_bytes, reserve, |out, item| {
            self.write_row(out, &resources, *item);
        })?;
        Ok(out)
    }

    fn write_row(&self, out: &mut Vec<u8>, resources: &[String], item: ObjectMetrics<'_>) {
        out.extend_from_slice(br#"{"cells":["#);
        json::string(out, item.item.name());
        let amounts = item.item.amounts();
        for resource in resources {
            json::display(out, format_args!(",\"{}\"", total_usage(amounts, resource)));
        }
        json::display(out, format_args!(r#","{}"],"object":"#, item.item.window()));
        match self.include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Metadata => write_partial_object(out, item, self.version),
            IncludeObject::Object => item.write_object(self.resource, out),
        }
        out.push(b'}');
    }
}

impl EncodeList for PartialObjectMetadataList<'_> {
    fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        let group_version = self.version.group_version();
        json::list(METADATA_LIST, group_version, &self.items, 256, reserve, |out, item| {
            write_partial_object(out, *item, self.version);
        })
    }

    fn to_protobuf(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        // In v1beta1 the order of the two fields was reversed.
        let fields = match self.version {
            MetaVersion::V1 => (1, 2),
            MetaVersion::V1Beta1 => (2, 1),
        };
        let group_version = self.version.group_version();
        Writer::list(group_version, METADATA_LIST, fields, &self.items, 192, reserve, |object, item| {
            object.message(1, |out| item.metadata().write_protobuf(out));
        })
    }
}

impl Encode for PartialObjectMetadata<'_> {
    fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        write_partial_object(&mut out, self.item, self.version);
        out.push(b'\n');
        out
    }

    fn to_protobuf(&self) -> Vec<u8> {
        Writer::object(self.version.group_version(), "PartialObjectMetadata", 256, |object| {
            object.message(1, |out| self.item.metadata().write_protobuf(out));
        })
    }
}

fn write_column(out: &mut Vec<u8>, name: &str, format: &str, description: &str) {
    out.extend_from_slice(br#"{"name":"#);
    json::string(out, JsonText::Plain(name));
    json::display(
        out,
        format_args!(r#","type":"string","format":"{format}","description":"{description}","priority":0}}"#),
    );
}

fn write_partial_object(out: &mut Vec<u8>, item: ObjectMetrics<'_>, version: MetaVersion) {
    let group_version = version.group_version();
    json::display(
        out,
        format_args!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{group_version}","metadata":"#),
    );
    item.metadata().write_json(out);
    out.push(b'}');
}

/// The names of the columns: the object's first resources, sorted by name.
fn column_names(amounts: ResourceList<'_>) -> Vec<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (name, _) in amounts.iter() {
        names.insert(name.decode().into_owned());
        if names.len() > MAX_COLUMNS {
            names.pop_last();
        }
    }
    names.into_iter().collect()
}

/// The object's usage of a resource, summed over all containers.
fn total_usage(amounts: ResourceList<'_>, resource: &str) -> Quantity {
    let mut total = Quantity::ZERO;
    let of_resource = amounts.iter().filter(|(name, _)| *name == JsonText::Plain(resource));
    of_resource.for_each(|(_, amount)| total.add(amount));
    total
}
