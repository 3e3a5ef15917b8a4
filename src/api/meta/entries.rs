//! Maps and arrays of objects' metadata, of which nobody may have more entries than any real object has.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::api::codec::protobuf::{Fields, MalformedProtobuf, Writer};
use crate::api::text::{JsonText, json_text};

/// How many labels, containers or values one object may have. More than any real one has: each is a few bytes in a body
/// and many in memory.
pub const MOST: usize = 4096;

/// A JSON array of at most so many elements.
#[derive(Debug)]
pub struct BoundedArray<T, const COUNT: usize = MOST>(pub Vec<T>);

/// A key and its value.
pub type KeyValue<'a> = (JsonText<'a>, JsonText<'a>);

/// The entries of a JSON object, raw and in their order.
#[derive(Default)]
pub struct ObjectEntries<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> ObjectEntries<'a> {
    /// Each key with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a RawValue, &'a RawValue)> {
        self.0.iter().copied()
    }

    /// Each key with its value, where all values are strings.
    ///
    /// # Errors
    /// If one is no string.
    pub fn texts(&self) -> Result<Vec<KeyValue<'a>>, serde_json::Error> {
        self.iter().map(|(key, value)| Ok((json_text(Some(key))?, json_text(Some(value))?))).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ObjectEntries<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = ObjectEntries<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == MOST {
                        return Err(too_many());
                    }
                    entries.push(entry);
                }
                Ok(ObjectEntries(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// What is said of a JSON object with more entries than are allowed.
pub fn too_many<E: serde::de::Error>() -> E {
    E::custom("it has more entries than any object has")
}

impl<T, const COUNT: usize> Default for BoundedArray<T, COUNT> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const COUNT: usize> Deserialize<'de> for BoundedArray<T, COUNT> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T, const COUNT: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const COUNT: usize> serde::de::Visitor<'de> for Visitor<T, COUNT> {
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
        deserializer.deserialize_seq(Visitor::<T, COUNT>(std::marker::PhantomData))
    }
}

/// Adds an element to those of a message in protobuf.
///
/// # Errors
/// If there are [`MOST`] already.
pub fn add<T>(elements: &mut Vec<T>, element: T) -> Result<(), MalformedProtobuf> {
    if elements.len() == MOST {
        return Err(MalformedProtobuf::Crowded);
    }
    elements.push(element);
    Ok(())
}

/// Reads an entry of a map in protobuf whose values are strings.
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

/// Writes a map in protobuf in the order of its keys.
pub fn write_entries(out: &mut Writer, field: u64, entries: &mut [KeyValue<'_>]) {
    entries.sort_unstable();
    for (key, value) in entries {
        out.message(field, |entry| {
            entry.text(1, *key);
            entry.text(2, *value);
        });
    }
}
