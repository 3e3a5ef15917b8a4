//! Maps and arrays in objects' metadata, with a limit of entries.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::codec::protobuf::{Fields, MalformedProtobuf, Writer};
use crate::api::text::{JsonText, json_text};

/// Maximum number of labels, containers or values of one object. Real objects have fewer. An entry has a few bytes in a body,
/// but many in memory.
pub const MAX_ENTRIES: usize = 4096;

/// A JSON array of at most `COUNT` elements.
#[derive(Debug)]
pub struct BoundedArray<T, const COUNT: usize = MAX_ENTRIES>(pub Vec<T>);

pub type KeyValue<'a> = (JsonText<'a>, JsonText<'a>);

/// The raw entries of a JSON object, in order.
#[derive(Default)]
pub struct ObjectEntries<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> ObjectEntries<'a> {
    /// The raw keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a RawValue, &'a RawValue)> {
        self.0.iter().copied()
    }

    /// The keys and values of a map of strings.
    ///
    /// # Errors
    /// If a value is not a string.
    pub fn texts(&self) -> Result<Vec<KeyValue<'a>>, serde_json::Error> {
        self.iter().map(|(key, value)| Ok((json_text(Some(key))?, json_text(Some(value))?))).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ObjectEntries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> serde::de::Visitor<'de> for ObjectVisitor {
            type Value = ObjectEntries<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == MAX_ENTRIES {
                        return Err(too_many());
                    }
                    entries.push(entry);
                }
                Ok(ObjectEntries(entries))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// The error of a JSON object with too many entries.
pub fn too_many<E: serde::de::Error>() -> E {
    E::custom("an object has too many entries")
}

impl<T, const COUNT: usize> Default for BoundedArray<T, COUNT> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const COUNT: usize> Deserialize<'de> for BoundedArray<T, COUNT> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArrayVisitor<T, const COUNT: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const COUNT: usize> serde::de::Visitor<'de> for ArrayVisitor<T, COUNT> {
            type Value = BoundedArray<T, COUNT>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an array")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() == COUNT {
                        return Err(too_many());
                    }
                    elements.push(element);
                }
                Ok(BoundedArray(elements))
            }
        }
        deserializer.deserialize_seq(ArrayVisitor::<T, COUNT>(std::marker::PhantomData))
    }
}

/// Appends a repeated element of a protobuf message.
///
/// # Errors
/// If there are [`MAX_ENTRIES`] already.
pub fn add<T>(elements: &mut Vec<T>, element: T) -> Result<(), MalformedProtobuf> {
    if elements.len() == MAX_ENTRIES {
        return Err(MalformedProtobuf::TooManyEntries);
    }
    elements.push(element);
    Ok(())
}

/// Reads an entry of a protobuf map of strings.
///
/// # Errors
/// If the message is malformed.
pub fn read_entry(message: &[u8]) -> Result<KeyValue<'_>, MalformedProtobuf> {
    let (mut key, mut value) = ("", "");
    for field in Fields::of(message) {
        match field? {
            (1, text) => key = text.text()?,
            (2, text) => value = text.text()?,
            _ => {}
        }
    }
    Ok((JsonText::Plain(key), JsonText::Plain(value)))
}

/// Writes a protobuf map, ordered by key.
pub fn write_entries(out: &mut Writer, field: u64, entries: &mut [KeyValue<'_>]) {
    entries.sort_unstable();
    for (key, value) in entries {
        out.message(field, |entry| {
            entry.text(1, *key);
            entry.text(2, *value);
        });
    }
}
