//! `metav1.ObjectMeta`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{KeyValue, ObjectEntries, add, read_entry, write_entries};
use crate::api::codec::json;
use crate::api::codec::protobuf::{Fields, MalformedProtobuf, Writer};
use crate::api::text::{JsonText, json_text};
use crate::api::time::{Timestamp, TimestampError};

/// The fields of `metav1.ObjectMeta` that metrics have. Owners, finalizers and managed fields exist only in stored objects and
/// are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::missing_docs_in_private_items, reason = "each is named as in Kubernetes")]
pub struct ObjectMeta<'a> {
    pub name: JsonText<'a>,
    pub generate_name: JsonText<'a>,
    pub namespace: JsonText<'a>,
    pub self_link: JsonText<'a>,
    pub uid: JsonText<'a>,
    pub resource_version: JsonText<'a>,
    pub generation: i64,
    pub creation_timestamp: Option<Timestamp>,
    pub labels: Vec<KeyValue<'a>>,
    pub annotations: Vec<KeyValue<'a>>,
}

/// Why metadata is malformed.
#[derive(Debug, thiserror::Error)]
pub enum ObjectMetaError {
    /// It is not JSON, or a field has the wrong type.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It is not protobuf.
    #[error(transparent)]
    Protobuf(#[from] MalformedProtobuf),
    /// The creation time is invalid.
    #[error("creationTimestamp: {0}")]
    Timestamp(#[from] TimestampError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonObjectMeta<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    generate_name: Option<&'a RawValue>,
    #[serde(borrow)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow)]
    self_link: Option<&'a RawValue>,
    #[serde(borrow)]
    uid: Option<&'a RawValue>,
    #[serde(borrow)]
    resource_version: Option<&'a RawValue>,
    generation: Option<i64>,
    #[serde(borrow)]
    creation_timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    labels: Option<ObjectEntries<'a>>,
    #[serde(borrow)]
    annotations: Option<ObjectEntries<'a>>,
}

impl<'a> ObjectMeta<'a> {
    /// Reads JSON; `null` means empty metadata.
    ///
    /// # Errors
    /// If the metadata is malformed.
    pub fn from_json(raw: &'a str) -> Result<Self, ObjectMetaError> {
        let Some(json) = serde_json::from_str::<Option<JsonObjectMeta<'a>>>(raw)? else {
            return Ok(Self::default());
        };
        Ok(Self {
            name: json_text(json.name)?,
            generate_name: json_text(json.generate_name)?,
            namespace: json_text(json.namespace)?,
            self_link: json_text(json.self_link)?,
            uid: json_text(json.uid)?,
            resource_version: json_text(json.resource_version)?,
            generation: json.generation.unwrap_or_default(),
            creation_timestamp: Timestamp::from_json(json.creation_timestamp)?,
            labels: json.labels.unwrap_or_default().texts()?,
            annotations: json.annotations.unwrap_or_default().texts()?,
        })
    }

    /// Reads protobuf.
    ///
    /// # Errors
    /// If the message is malformed.
    pub fn from_protobuf(message: &'a [u8]) -> Result<Self, ObjectMetaError> {
        let mut meta = Self::default();
        for field in Fields::of(message) {
            let (number, value) = field?;
            let text = match number {
                1 => &mut meta.name,
                2 => &mut meta.generate_name,
                3 => &mut meta.namespace,
                4 => &mut meta.self_link,
                5 => &mut meta.uid,
                6 => &mut meta.resource_version,
                7 => {
                    meta.generation = value.number();
                    continue;
                }
                8 => {
                    meta.creation_timestamp = Timestamp::from_protobuf(value.bytes())?;
                    continue;
                }
                11 => {
                    add(&mut meta.labels, read_entry(value.bytes())?)?;
                    continue;
                }
                12 => {
                    add(&mut meta.annotations, read_entry(value.bytes())?)?;
                    continue;
                }
                _ => continue,
            };
            *text = JsonText::Plain(value.text()?);
        }
        Ok(meta)
    }

    /// Sets an annotation.
    pub fn annotate(&mut self, key: &'a str, value: &'a str) {
        self.annotations.retain(|(own, _)| *own != JsonText::Plain(key));
        self.annotations.push((JsonText::Plain(key), JsonText::Plain(value)));
    }

    /// Writes JSON, with maps ordered by key.
    pub fn write_json(&mut self, out: &mut Vec<u8>) {
        out.push(b'{');
        json::string_unless_empty(out, "name", self.name);
        json::string_unless_empty(out, "generateName", self.generate_name);
        json::string_unless_empty(out, "namespace", self.namespace);
        json::string_unless_empty(out, "selfLink", self.self_link);
        json::string_unless_empty(out, "uid", self.uid);
        json::string_unless_empty(out, "resourceVersion", self.resource_version);
        if self.generation != 0 {
            json::key(out, "generation");
            json::display(out, self.generation);
        }
        if self.creation_timestamp.is_some_and(|time| !time.is_go_zero()) {
            json::key(out, "creationTimestamp");
            Timestamp::write_json(self.creation_timestamp, out);
        }
        for (key, entries) in [("labels", &mut self.labels), ("annotations", &mut self.annotations)] {
            if !entries.is_empty() {
                entries.sort_unstable();
                json::key(out, key);
                json::string_map(out, entries.iter().copied());
            }
        }
        out.push(b'}');
    }

    /// Writes the protobuf fields, with maps ordered by key.
    pub fn write_protobuf(&mut self, out: &mut Writer) {
        out.text(1, self.name);
        out.text(2, self.generate_name);
        out.text(3, self.namespace);
        out.text(4, self.self_link);
        out.text(5, self.uid);
        out.text(6, self.resource_version);
        out.number(7, self.generation);
        out.message(8, |out| Timestamp::write_protobuf(self.creation_timestamp, out));
        write_entries(out, 11, &mut self.labels);
        write_entries(out, 12, &mut self.annotations);
    }
}
