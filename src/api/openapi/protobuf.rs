//! The protobuf form of an OpenAPI v2 document (`openapiv2/OpenAPIv2.proto` of gnostic), as old kubectl reads it.

use serde_json::{Map, Value};

use crate::api::codec::protobuf::Writer;

/// A message's fields by their JSON keys, and the field of its `x-…` extensions.
struct Message {
    fields: &'static [(&'static str, u64, Shape)],
    extensions: Option<u64>,
}

/// How a JSON value becomes a field.
enum Shape {
    Text,
    Flag,
    Message(&'static Message),
    /// One of the messages that depend on where a parameter stands.
    Parameter,
    /// A field for each element.
    Each(&'static Shape),
    /// A message with one field.
    Within(u64, &'static Shape),
    /// A message with a field for each key and its value.
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

/// Encodes a document that [`super::v2`] has made; what else a document may have is left out.
pub fn encode(document: &Value) -> Vec<u8> {
    Writer::message_of(|out| DOCUMENT.write(out, document))
}

impl Message {
    fn write(&self, out: &mut Writer, value: &Value) {
        for (key, value) in object(value) {
            if let Some((_, number, shape)) = self.fields.iter().find(|(known, ..)| known == key) {
                shape.write(out, *number, value);
            } else if let Some(number) = self.extensions.filter(|_| key.starts_with("x-")) {
                out.message(number, |out| {
                    out.string(1, key);
                    // Any value, as YAML, which JSON is.
                    out.message(2, |out| out.string(2, &value.to_string()));
                });
            } else {
                debug_assert!(false, "{key} has no field");
            }
        }
    }
}

impl Shape {
    fn write(&self, out: &mut Writer, number: u64, value: &Value) {
        match self {
            Self::Text => out.string(number, value.as_str().unwrap_or_default()),
            Self::Flag => out.number(number, (value == true).into()),
            Self::Message(shape) => out.message(number, |out| shape.write(out, value)),
            Self::Parameter => {
                let (inner, shape) =
                    if value["in"] == "path" { (4, &PATH_PARAMETER) } else { (3, &QUERY_PARAMETER) };
                out.message(number, |out| out.message(inner, |out| shape.write(out, value)));
            }
            Self::Each(shape) => {
                value.as_array().into_iter().flatten().for_each(|element| shape.write(out, number, element));
            }
            Self::Within(inner, shape) => out.message(number, |out| shape.write(out, *inner, value)),
            Self::Named(inner, shape) => out.message(number, |out| {
                for (key, value) in object(value) {
                    out.message(*inner, |out| {
                        out.string(1, key);
                        shape.write(out, 2, value);
                    });
                }
            }),
        }
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::codec::protobuf::{Fields, Value as Field};

    /// The fields of this number.
    fn fields(message: &[u8], number: u64) -> Vec<Field<'_>> {
        let fields = Fields::of(message).map(|field| field.expect("well-formed"));
        fields.filter(|(found, _)| *found == number).map(|(_, value)| value).collect()
    }

    fn text(message: &[u8], number: u64) -> &str {
        fields(message, number).first().map_or("", |field| field.text().expect("UTF-8"))
    }

    fn named<'a>(message: &'a [u8], number: u64, name: &str) -> &'a [u8] {
        let found = fields(message, number).into_iter().find(|entry| text(entry.bytes(), 1) == name);
        fields(found.expect("it is named").bytes(), 2)[0].bytes()
    }

    #[test]
    fn all_definitions_paths_and_extensions_are_found_by_a_reader() {
        let document = super::super::v2();
        let bytes = encode(&document);
        assert_eq!(text(&bytes, 1), "2.0");
        for (number, inner, key) in [(8, 2, "paths"), (9, 1, "definitions")] {
            let entries = fields(&bytes, number)[0].bytes();
            let names: Vec<&str> =
                fields(entries, inner).iter().map(|entry| text(entry.bytes(), 1)).collect();
            assert_eq!(names, document[key].as_object().expect("an object").keys().collect::<Vec<_>>());
        }
        let definitions = fields(&bytes, 9)[0].bytes();
        let pod = named(definitions, 1, "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics");
        let kinds = named(pod, 31, "x-kubernetes-group-version-kind");
        let kinds: Value = serde_json::from_str(text(kinds, 2)).expect("JSON");
        assert_eq!(kinds[0]["kind"], "PodMetrics");
        let timestamp = named(fields(pod, 25)[0].bytes(), 1, "timestamp");
        assert_eq!(text(timestamp, 1), "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Time");
        let paths = fields(&bytes, 8)[0].bytes();
        let read = named(paths, 2, "/apis/metrics.k8s.io/v1beta1/nodes/{name}");
        let operation = fields(read, 2)[0].bytes();
        let parameter = fields(operation, 8)[0].bytes();
        let parameter = fields(fields(parameter, 1)[0].bytes(), 2)[0].bytes();
        let parameter = fields(parameter, 4)[0].bytes();
        assert_eq!((text(parameter, 4), fields(parameter, 1)[0].number()), ("name", 1));
    }
}
