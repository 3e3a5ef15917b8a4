//! `metav1.LabelSelector`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{BoundedArray, ObjectEntries, add, read_entry, too_many, write_entries};
use crate::api::codec::json;
use crate::api::codec::protobuf::{Fields, MalformedProtobuf, Writer};
use crate::api::text::{JsonText, json_text};

/// `metav1.LabelSelector`, borrowed from the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector<'a> {
    /// Required labels and values, in the order of the body.
    pub match_labels: Vec<(JsonText<'a>, JsonText<'a>)>,
    /// Other requirements.
    pub match_expressions: Vec<Expression<'a>>,
}

/// `metav1.LabelSelectorRequirement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression<'a> {
    /// The label.
    pub key: JsonText<'a>,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: JsonText<'a>,
    /// The values to compare with; empty for `Exists` and `DoesNotExist`.
    pub values: Vec<JsonText<'a>>,
}

/// Maximum size of a metric's own selector, in bytes. Real selectors have hundreds of bytes. The limit is necessary because a
/// short selector may take many bytes of memory.
const MAX_BYTES: usize = 256 * 1024;

impl<'a> LabelSelector<'a> {
    /// Reads JSON; `null` means no selector.
    ///
    /// # Errors
    /// If it is neither `null` nor a label selector.
    pub fn from_json(raw: &'a str) -> Result<Option<Self>, serde_json::Error> {
        if raw.len() > MAX_BYTES {
            return Err(too_many());
        }
        let Some(raw) = serde_json::from_str::<Option<JsonSelector<'a>>>(raw)? else { return Ok(None) };
        let match_labels = raw.match_labels.unwrap_or_default().texts()?;
        let mut selector = Self { match_labels, match_expressions: Vec::new() };
        for expression in raw.match_expressions.unwrap_or_default().0 {
            selector.match_expressions.push(Expression {
                key: json_text(expression.key)?,
                operator: json_text(expression.operator)?,
                values: expression
                    .values
                    .unwrap_or_default()
                    .0
                    .into_iter()
                    .map(json_text)
                    .collect::<Result<_, _>>()?,
            });
        }
        Ok(Some(selector))
    }

    /// Reads protobuf.
    ///
    /// # Errors
    /// If the message is malformed.
    pub fn from_protobuf(message: &'a [u8]) -> Result<Self, MalformedProtobuf> {
        if message.len() > MAX_BYTES {
            return Err(MalformedProtobuf::TooManyEntries);
        }
        let mut selector = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, entry) => add(&mut selector.match_labels, read_entry(entry.bytes())?)?,
                (2, expression) => {
                    add(&mut selector.match_expressions, Expression::read(expression.bytes())?)?;
                }
                _ => {}
            }
        }
        Ok(selector)
    }

    /// Writes JSON, with labels ordered by key.
    pub fn write_json(&mut self, out: &mut Vec<u8>) {
        self.match_labels.sort_unstable();
        out.push(b'{');
        if !self.match_labels.is_empty() {
            json::key(out, "matchLabels");
            json::string_map(out, self.match_labels.iter().copied());
        }
        if !self.match_expressions.is_empty() {
            json::key(out, "matchExpressions");
            out.push(b'[');
            json::comma_separated(out, &self.match_expressions, |out, expression| expression.write_json(out));
            out.push(b']');
        }
        out.push(b'}');
    }

    /// Writes the protobuf fields, with labels ordered by key.
    pub fn write_protobuf(&mut self, out: &mut Writer) {
        write_entries(out, 1, &mut self.match_labels);
        for Expression { key, operator, values } in &self.match_expressions {
            out.message(2, |out| {
                out.text(1, *key);
                out.text(2, *operator);
                values.iter().for_each(|value| out.text(3, *value));
            });
        }
    }
}

impl<'a> Expression<'a> {
    fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"key":"#);
        json::string(out, self.key);
        out.extend_from_slice(br#","operator":"#);
        json::string(out, self.operator);
        if !self.values.is_empty() {
            out.extend_from_slice(br#","values":["#);
            json::comma_separated(out, &self.values, |out, value| json::string(out, *value));
            out.push(b']');
        }
        out.push(b'}');
    }

    fn read(message: &'a [u8]) -> Result<Self, MalformedProtobuf> {
        let (mut key, mut operator, mut values) = ("", "", Vec::new());
        for field in Fields::of(message) {
            match field? {
                (1, text) => key = text.text()?,
                (2, text) => operator = text.text()?,
                (3, text) => add(&mut values, JsonText::Plain(text.text()?))?,
                _ => {}
            }
        }
        Ok(Self { key: JsonText::Plain(key), operator: JsonText::Plain(operator), values })
    }
}

#[derive(Deserialize)]
struct JsonSelector<'a> {
    #[serde(borrow, rename = "matchLabels")]
    match_labels: Option<ObjectEntries<'a>>,
    #[serde(borrow, rename = "matchExpressions")]
    match_expressions: Option<BoundedArray<JsonExpression<'a>>>,
}

#[derive(Deserialize)]
struct JsonExpression<'a> {
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    operator: Option<&'a RawValue>,
    #[serde(borrow)]
    values: Option<BoundedArray<Option<&'a RawValue>>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_protobuf_give_the_same_selector() {
        let json = r#"{"matchLabels":{"verb":"GET"},"matchExpressions":[{"key":"zone","operator":"In","values":["a","b"]}]}"#;
        let protobuf = b"\x0a\x0b\x0a\x04verb\x12\x03GET\x12\x10\x0a\x04zone\x12\x02In\x1a\x01a\x1a\x01b";
        let from_json = LabelSelector::from_json(json).expect("well-formed").expect("not null");
        assert_eq!(from_json.match_expressions[0].values, [JsonText::Plain("a"), JsonText::Plain("b")]);
        assert_eq!(from_json, LabelSelector::from_protobuf(protobuf).expect("well-formed"));
    }

    #[test]
    fn invalid_selector_is_an_error() {
        for raw in ["[]", "1", r#"{"matchLabels":{"a":1}}"#, r#"{"matchLabels":{"a":"\ud800"}}"#] {
            assert!(LabelSelector::from_json(raw).is_err(), "{raw}");
        }
        assert_eq!(LabelSelector::from_json("null").expect("null is valid"), None);
    }
}
