//! Types of `k8s.io/apimachinery/pkg/apis/meta/v1` that metrics carry.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::codec::protobuf::{Fields, Malformed};
use super::text::Text;

/// `metav1.LabelSelector`, borrowed from the body that it was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector<'a> {
    /// Labels and the values they must have, in the order of the body.
    pub match_labels: Vec<(Text<'a>, Text<'a>)>,
    /// Further requirements.
    pub match_expressions: Vec<Expression<'a>>,
}

/// `metav1.LabelSelectorRequirement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression<'a> {
    /// The label.
    pub key: Text<'a>,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: Text<'a>,
    /// The values it speaks of.
    pub values: Vec<Text<'a>>,
}

impl<'a> LabelSelector<'a> {
    /// Reads the JSON form; `null` is no selector.
    ///
    /// # Errors
    /// If it is neither `null` nor a label selector.
    pub fn from_json(raw: &'a str) -> Result<Option<Self>, serde_json::Error> {
        let Some(raw) = serde_json::from_str::<Option<JsonSelector<'a>>>(raw)? else { return Ok(None) };
        let mut selector = Self::default();
        for (key, value) in raw.match_labels.unwrap_or_default().0 {
            selector.match_labels.push((json_text(key)?, json_text(value)?));
        }
        for expression in raw.match_expressions.unwrap_or_default() {
            selector.match_expressions.push(Expression {
                key: json_text(expression.key)?,
                operator: json_text(expression.operator)?,
                values: expression
                    .values
                    .unwrap_or_default()
                    .into_iter()
                    .map(json_text)
                    .collect::<Result<_, _>>()?,
            });
        }
        Ok(Some(selector))
    }

    /// Reads the protobuf form.
    ///
    /// # Errors
    /// If the message is malformed.
    pub fn from_protobuf(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut selector = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, entry) => {
                    let (mut key, mut value) = ("", "");
                    for field in Fields::of(entry.bytes()) {
                        match field? {
                            (1, text) => key = text.text()?,
                            (2, text) => value = text.text()?,
                            _ => {}
                        }
                    }
                    selector.match_labels.push((Text::Plain(key), Text::Plain(value)));
                }
                (2, expression) => selector.match_expressions.push(Expression::read(expression.bytes())?),
                _ => {}
            }
        }
        Ok(selector)
    }
}

impl<'a> Expression<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let (mut key, mut operator, mut values) = ("", "", Vec::new());
        for field in Fields::of(message) {
            match field? {
                (1, text) => key = text.text()?,
                (2, text) => operator = text.text()?,
                (3, text) => values.push(Text::Plain(text.text()?)),
                _ => {}
            }
        }
        Ok(Self { key: Text::Plain(key), operator: Text::Plain(operator), values })
    }
}

/// A JSON string as text; an absent one or `null` is empty, as Go reads it.
///
/// # Errors
/// If it is another JSON value, or has escapes that are no characters.
pub fn json_text(raw: Option<&RawValue>) -> Result<Text<'_>, serde_json::Error> {
    let raw = raw.map_or("null", RawValue::get);
    if raw == "null" {
        return Ok(Text::Plain(""));
    }
    let content = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match content.map(Text::from_json) {
        Some(text @ Text::Plain(_)) => Ok(text),
        text => serde_json::from_str::<String>(raw).map(|_| text.unwrap_or(Text::Plain(""))),
    }
}

#[derive(Deserialize)]
struct JsonSelector<'a> {
    #[serde(borrow, rename = "matchLabels")]
    match_labels: Option<Entries<'a>>,
    #[serde(borrow, rename = "matchExpressions")]
    match_expressions: Option<Vec<JsonExpression<'a>>>,
}

#[derive(Deserialize)]
struct JsonExpression<'a> {
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    operator: Option<&'a RawValue>,
    #[serde(borrow)]
    values: Option<Vec<Option<&'a RawValue>>>,
}

/// The entries of a JSON object, raw and in their order.
#[derive(Default)]
struct Entries<'a>(Vec<(Option<&'a RawValue>, Option<&'a RawValue>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Entries<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a map of labels")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                    entries.push((Some(key), Some(value)));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_reads_alike_from_json_and_from_protobuf() {
        let json = r#"{"matchLabels":{"verb":"GET"},"matchExpressions":[{"key":"zone","operator":"In","values":["a","b"]}]}"#;
        let protobuf = b"\x0a\x0b\x0a\x04verb\x12\x03GET\x12\x10\x0a\x04zone\x12\x02In\x1a\x01a\x1a\x01b";
        let from_json = LabelSelector::from_json(json).expect("well-formed").expect("not null");
        assert_eq!(from_json.match_expressions[0].values, [Text::Plain("a"), Text::Plain("b")]);
        assert_eq!(from_json, LabelSelector::from_protobuf(protobuf).expect("well-formed"));
    }

    #[test]
    fn what_is_no_selector_is_an_error() {
        for raw in ["[]", "1", r#"{"matchLabels":{"a":1}}"#, r#"{"matchLabels":{"a":"\ud800"}}"#] {
            assert!(LabelSelector::from_json(raw).is_err(), "{raw}");
        }
        assert_eq!(LabelSelector::from_json("null").expect("null is fine"), None);
    }
}
