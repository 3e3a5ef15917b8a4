//! `meta.k8s.io`: objects as a table or as mere metadata, for people and for clients that need no more.

use std::collections::BTreeSet;

use super::codec::negotiate::MetaVersion;
use super::codec::protobuf::Writer;
use super::codec::{Encode, EncodeItem, EncodeList, FRAME, json};
use super::group::MetricsResource;
use super::memory::{Reserve, Stopped, make_room};
use super::page::resource::ResourceList;
use super::quantity::Quantity;
use super::resource_metrics::ObjectMetrics;
use super::text::JsonText;

/// A `Table` with a row for each object, as metrics-server makes it (`addPodMetricsToTable`): the first object says which
/// columns there are.
pub struct Table<'a> {
    /// The version to write it in.
    pub version: MetaVersion,
    /// Of what.
    pub resource: MetricsResource,
    /// The objects.
    pub items: Vec<ObjectMetrics<'a>>,
    /// What stands beside the cells of a row.
    pub include: IncludeObject,
}

/// `metav1.IncludeObjectPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// The object's metadata.
    #[default]
    Metadata,
    /// The object.
    Object,
}

/// A value of `includeObject` that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Unable to convert to Table as requested: includeObject: Invalid value: {0:?}: must be 'Metadata', 'Object', 'None', \
     or empty"
)]
pub struct IncludeObjectError(String);

/// A `PartialObjectMetadataList`.
pub struct PartialObjectMetadataList<'a> {
    /// The version to write it in.
    pub version: MetaVersion,
    /// The objects.
    pub items: Vec<ObjectMetrics<'a>>,
}

/// A `PartialObjectMetadata`.
pub struct PartialObjectMetadata<'a> {
    /// The version to write it in.
    pub version: MetaVersion,
    /// The object.
    pub item: ObjectMetrics<'a>,
}

const METADATA_LIST: &str = "PartialObjectMetadataList";
/// More resources than these are not shown.
const COLUMNS: usize = 16;
/// How many bytes a cell has at most: the sum of `1e1023` and `1n` has 1,033 digits.
const TOTAL: usize = 1100;
/// The columns of resources where no object says which there are.
const USUAL: [&str; 2] = ["cpu", "memory"];

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
    /// The JSON; a table has no protobuf form.
    ///
    /// # Errors
    /// If `reserve` stops it.
    pub fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        let first = self.items.first().map(|item| item.item.amounts());
        let resources = first.map_or_else(|| USUAL.map(str::to_owned).to_vec(), names);
        let mut out = Vec::new();
        let columns = self.items.first().map_or(0, EncodeItem::most_bytes);
        make_room(&mut out, FRAME + columns + self.items.len() * 384, reserve)?;
        let group_version = self.version.group_version();
        json::display(
            &mut out,
            format_args!(
                r#"{{"kind":"Table","apiVersion":"{group_version}","metadata":{{}},"columnDefinitions":["#
            ),
        );
        column(&mut out, "Name", "name", "Name of the resource");
        for resource in &resources {
            out.push(b',');
            column(&mut out, resource, "quantity", "");
        }
        out.push(b',');
        column(&mut out, "Window", "duration", "");
        out.extend_from_slice(br#"],"rows":["#);
        let most = |item: &ObjectMetrics<'_>| item.most_bytes() + resources.len() * TOTAL;
        json::list_items(&mut out, &self.items, most, reserve, |out, item| {
            self.write_row(out, &resources, *item);
        })?;
        Ok(out)
    }

    fn write_row(&self, out: &mut Vec<u8>, resources: &[String], item: ObjectMetrics<'_>) {
        out.extend_from_slice(br#"{"cells":["#);
        json::string(out, item.item.name());
        let amounts = item.item.amounts();
        for resource in resources {
            json::display(out, format_args!(",\"{}\"", total(amounts, resource)));
        }
        json::display(out, format_args!(r#","{}"],"object":"#, item.item.window()));
        match self.include {
            IncludeObject::None => out.extend_from_slice(b"null"),
            IncludeObject::Metadata => partial(out, item, self.version),
            IncludeObject::Object => item.write_whole(self.resource, out),
        }
        out.push(b'}');
    }
}

impl EncodeList for PartialObjectMetadataList<'_> {
    fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        let group_version = self.version.group_version();
        json::list(METADATA_LIST, group_version, &self.items, 256, reserve, |out, item| {
            partial(out, *item, self.version);
        })
    }

    fn to_protobuf(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        // Before it had a stable version it was laid out the other way round.
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
        partial(&mut out, self.item, self.version);
        out.push(b'\n');
        out
    }

    fn to_protobuf(&self) -> Vec<u8> {
        Writer::object(self.version.group_version(), "PartialObjectMetadata", 256, |object| {
            object.message(1, |out| self.item.metadata().write_protobuf(out));
        })
    }
}

fn column(out: &mut Vec<u8>, name: &str, format: &str, description: &str) {
    out.extend_from_slice(br#"{"name":"#);
    json::string(out, JsonText::Plain(name));
    json::display(
        out,
        format_args!(r#","type":"string","format":"{format}","description":"{description}","priority":0}}"#),
    );
}

fn partial(out: &mut Vec<u8>, item: ObjectMetrics<'_>, version: MetaVersion) {
    let group_version = version.group_version();
    json::display(
        out,
        format_args!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"{group_version}","metadata":"#),
    );
    item.metadata().write_json(out);
    out.push(b'}');
}

/// The first resources in the order of their names that the first object has; they are the columns.
fn names(amounts: ResourceList<'_>) -> Vec<String> {
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (name, _) in amounts.iter() {
        names.insert(name.decode().into_owned());
        if names.len() > COLUMNS {
            names.pop_last();
        }
    }
    names.into_iter().collect()
}

/// What the object takes of a resource, all containers together.
fn total(amounts: ResourceList<'_>, resource: &str) -> Quantity {
    let mut total = Quantity::ZERO;
    let of_resource = amounts.iter().filter(|(name, _)| *name == JsonText::Plain(resource));
    of_resource.for_each(|(_, amount)| total.add(amount));
    total
}
