//! Reads lists of any kind, item by item in one pass. Reading needs no memory in addition to the result.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Expected, PageError};
use crate::api::codec::protobuf::{Envelope, Fields};
use crate::api::memory::{self, Reserve};
use crate::api::quantity::Quantity;
use crate::api::text::json_text;
use crate::api::time::Timestamp;

/// A body of any size may have this many items.
const MIN_ITEMS: usize = 64;
/// Minimum size of a real item in bytes. An item of a pod has 80 in protobuf.
const MIN_ITEM_BYTES: usize = 32;

/// Calls `read` for each element of an array.
struct ArrayReader<F> {
    read: F,
    /// The error of an element. serde's own error has less detail.
    error: Option<PageError>,
}

/// Reads a list in JSON and calls `read` for each item.
pub(super) fn json<'a, T: Deserialize<'a>, I>(
    expected: Expected,
    body: &'a [u8],
    reserve: &mut Reserve<'_>,
    mut read: impl FnMut(usize, T, &mut Reserve<'_>) -> Result<I, PageError>,
) -> Result<Vec<I>, PageError> {
    let text = str::from_utf8(body).map_err(|_| PageError::Utf8)?;
    let mut items = Vec::new();
    let read = |value: T| {
        let item = read(items.len(), value, reserve)?;
        push(&mut items, item, body, reserve)
    };
    let mut reader = ArrayReader { read, error: None };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let list = ListReader { expected, reader: &mut reader, element: PhantomData };
    let result = list.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    reader.finish(result)?;
    Ok(items)
}

/// Reads a JSON array and calls `read` for each element.
pub(super) fn json_array<'a, T: Deserialize<'a>>(
    array: &'a str,
    read: impl FnMut(T) -> Result<(), PageError>,
) -> Result<(), PageError> {
    let mut reader = ArrayReader { read, error: None };
    let elements = ArrayElements { reader: &mut reader, element: PhantomData };
    let result = elements.deserialize(&mut serde_json::Deserializer::from_str(array));
    reader.finish(result)
}

/// Reads a list in protobuf and calls `read` for each item.
pub(super) fn protobuf<'a, I>(
    expected: Expected,
    body: &'a [u8],
    reserve: &mut Reserve<'_>,
    mut read: impl FnMut(usize, Envelope<'a>, &'a [u8], &mut Reserve<'_>) -> Result<I, PageError>,
) -> Result<Vec<I>, PageError> {
    let envelope = Envelope::read(body)?;
    expected.check(envelope.kind, envelope.api_version)?;
    let mut items = Vec::new();
    for field in Fields::of(envelope.raw) {
        if let (2, value) = field? {
            let item = read(items.len(), envelope, value.bytes(), reserve)?;
            push(&mut items, item, body, reserve)?;
        }
    }
    Ok(items)
}

/// Appends an item. Returns an error if `body` is too short for this number of real items.
fn push<I>(items: &mut Vec<I>, item: I, body: &[u8], reserve: &mut Reserve<'_>) -> Result<(), PageError> {
    if items.len() >= MIN_ITEMS && items.len() * MIN_ITEM_BYTES > body.len() {
        return Err(PageError::TooManyItems(body.len()));
    }
    Ok(memory::push(items, item, reserve)?)
}

/// Reads the timestamp of item `index` in JSON.
pub(super) fn timestamp(index: usize, raw: Option<&RawValue>) -> Result<Option<Timestamp>, PageError> {
    Timestamp::from_json(raw).map_err(|_| PageError::Timestamp { index })
}

/// Reads the timestamp of item `index` in protobuf.
pub(super) fn protobuf_timestamp(index: usize, message: &[u8]) -> Result<Option<Timestamp>, PageError> {
    Timestamp::from_protobuf(message).map_err(|_| PageError::Timestamp { index })
}

/// Reads the quantity of item `index` in JSON. As in Go, the quantity is a string or a number.
pub(super) fn json_quantity(
    index: usize,
    raw: Option<&RawValue>,
    reserve: &mut Reserve<'_>,
) -> Result<Quantity, PageError> {
    match raw.map(RawValue::get) {
        Some(number) if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            quantity(index, number, reserve)
        }
        _ => quantity(index, &json_text(raw)?.decode(), reserve),
    }
}

/// Reads the quantity of item `index` in protobuf.
pub(super) fn protobuf_quantity(
    index: usize,
    message: &[u8],
    reserve: &mut Reserve<'_>,
) -> Result<Quantity, PageError> {
    let mut text = "";
    for field in Fields::of(message) {
        if let (1, value) = field? {
            text = value.text()?;
        }
    }
    quantity(index, text, reserve)
}

/// Parses the quantity of item `index`. As in Go, an empty text is zero.
fn quantity(index: usize, text: &str, reserve: &mut Reserve<'_>) -> Result<Quantity, PageError> {
    if text.is_empty() {
        return Ok(Quantity::default());
    }
    let quantity: Quantity = text.parse().map_err(|source| PageError::Quantity { index, source })?;
    reserve(quantity.heap_bytes())?;
    Ok(quantity)
}

/// Reads the object of a list.
struct ListReader<'r, T, F> {
    expected: Expected,
    reader: &'r mut ArrayReader<F>,
    element: PhantomData<T>,
}

/// Reads the elements of an array.
struct ArrayElements<'r, T, F> {
    reader: &'r mut ArrayReader<F>,
    element: PhantomData<T>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum ListField {
    Kind,
    ApiVersion,
    Items,
    #[serde(other)]
    Other,
}

impl<F> ArrayReader<F> {
    fn finish(self, result: Result<(), serde_json::Error>) -> Result<(), PageError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(result?),
        }
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), PageError>> DeserializeSeed<'de>
    for ListReader<'_, T, F>
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), PageError>> Visitor<'de> for ListReader<'_, T, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (mut kind, mut api_version) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                ListField::Kind => kind = map.next_value::<Option<&'de RawValue>>()?,
                ListField::ApiVersion => api_version = map.next_value::<Option<&'de RawValue>>()?,
                ListField::Items => {
                    // If kind and version are before the items, they are checked first. The error then reports the wrong
                    // kind, and not a malformed item.
                    if kind.is_some() && api_version.is_some() {
                        self.check(kind, api_version)?;
                    }
                    map.next_value_seed(ArrayElements { reader: &mut *self.reader, element: PhantomData })?;
                }
                ListField::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        self.check(kind, api_version)
    }
}

impl<T, F> ListReader<'_, T, F> {
    fn check<E: serde::de::Error>(
        &mut self,
        kind: Option<&RawValue>,
        api_version: Option<&RawValue>,
    ) -> Result<(), E> {
        let (kind, api_version) =
            (json_text(kind).map_err(E::custom)?, json_text(api_version).map_err(E::custom)?);
        self.expected.check(&kind.decode(), &api_version.decode()).map_err(|error| {
            self.reader.error = Some(error);
            E::custom("the list has another kind")
        })
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), PageError>> DeserializeSeed<'de>
    for ArrayElements<'_, T, F>
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), PageError>> Visitor<'de>
    for ArrayElements<'_, T, F>
{
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    /// `null`: Go writes it for a nil slice.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let ArrayReader { read, error } = self.reader;
        while let Some(element) = sequence.next_element()? {
            if let Err(cause) = read(element) {
                *error = Some(cause);
                return Err(A::Error::custom("an item is malformed"));
            }
        }
        Ok(())
    }
}
