//! The protobuf form of an OpenAPI v2 document (`openapiv2/OpenAPIv2.proto` of gnostic). kubectl before 1.27 reads it.

use serde_json::{Map, Value};

use crate::protobuf::Message as Writer;

/// The fields of a message by JSON key, and the number of the field for `x-…` extensions.
struct Message {
    fields: &'static [(&'static str, u64, Shape)],
    extensions: Option<u64>,
}

/// How a JSON value becomes a field.
enum Shape {
    Text,
    Flag,
    Message(&'static Message),
    /// A parameter. Its message depends on its place (path or query).
    Parameter,
    /// One field per element.
    Each(&'static Shape),
    /// A message with one field.
    Within(u64, &'static Shape),
    /// A message with one field per key and value.
    Named(u64, &'static Shape),
}

use Shape::{Each, Flag, Named, Parameter, Text, Within};

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, Shape::Message(&INFO)),
        ("paths", 8, Named(2, &Shape::Message(&PATH))),
        ("definitions", 9, Named(1, &Shape::Message(&SCHEMA))),
    ],
    extensions: None,
};

static INFO: Message = Message { fields: &[("title", 1, Text), ("version", 2, Text)], extensions: None };

static PATH: Message = Message { fields: &[("get", 2, Shape::Message(&OPERATION))], extensions: None };

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Each(&Text)),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Each(&Text)),
        ("parameters", 8, Each(&Within(1, &Within(2, &Parameter)))),
        ("responses", 9, Named(1, &Within(1, &Shape::Message(&RESPONSE)))),
        ("schemes", 10, Each(&Text)),
    ],
    extensions: Some(13),
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Text), ("schema", 2, Within(1, &Shape::Message(&SCHEMA)))],
    extensions: None,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[("in", 2, Text), ("description", 3, Text), ("name", 4, Text), ("type", 6, Text)],
    extensions: None,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
    ],
    extensions: None,
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("description", 4, Text),
        ("required", 19, Each(&Text)),
        ("additionalProperties", 21, Within(1, &Shape::Message(&SCHEMA))),
        ("type", 22, Within(1, &Text)),
        ("items", 23, Within(1, &Shape::Message(&SCHEMA))),
        ("properties", 25, Named(1, &Shape::Message(&SCHEMA))),
    ],
    extensions: Some(31),
};

/// Encodes a document. Parts that the adapter's document never has are omitted.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    DOCUMENT.of(document).into_bytes()
}

impl Message {
    fn of(&self, value: &Value) -> Writer {
        object(value).fold(Writer::new(), |out, (key, value)| {
            if let Some((_, number, shape)) = self.fields.iter().find(|(known, ..)| known == key) {
                shape.add(out, *number, value)
            } else if let Some(number) = self.extensions.filter(|_| key.starts_with("x-")) {
                // Any value as YAML. JSON is valid YAML.
                let yaml = Writer::new().string(2, &value.to_string());
                out.message(number, &Writer::new().string(1, key).message(2, &yaml))
            } else {
                out
            }
        })
    }
}

impl Shape {
    fn add(&self, out: Writer, number: u64, value: &Value) -> Writer {
        match self {
            Self::Text => out.string(number, value.as_str().unwrap_or_default()),
            Self::Flag => out.boolean(number, value == true),
            Self::Message(shape) => out.message(number, &shape.of(value)),
            Self::Parameter => {
                let (inner, shape) =
                    if value["in"] == "path" { (4, &PATH_PARAMETER) } else { (3, &QUERY_PARAMETER) };
                out.message(number, &Writer::new().message(inner, &shape.of(value)))
            }
            Self::Each(shape) => {
                let elements = value.as_array().into_iter().flatten();
                elements.fold(out, |out, element| shape.add(out, number, element))
            }
            Self::Within(inner, shape) => out.message(number, &shape.add(Writer::new(), *inner, value)),
            Self::Named(inner, shape) => {
                let named = |(key, value): (&String, _)| shape.add(Writer::new().string(1, key), 2, value);
                let entries = object(value).map(named);
                out.message(number, &Writer::new().repeated(*inner, entries))
            }
        }
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}
