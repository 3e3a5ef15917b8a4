//! Lists, whatever is in them: read item by item in one pass, so that they take no more memory than what is kept.

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

/// How many items a body may have whatever its size.
const MIN_ITEMS: usize = 64;
/// How many bytes the smallest real item has; one of a pod has 80 in protobuf.
const MIN_ITEM_BYTES: usize = 32;

/// What is done with each element as it is read.
struct ArrayReader<F> {
    read: F,
    /// What is wrong with an element, where serde's own words would say less.
    wrong: Option<PageError>,
}

/// Reads a list in JSON, each item with `read`.
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
    let mut reading = ArrayReader { read, wrong: None };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let list = ListReader { expected, reading: &mut reading, element: PhantomData };
    let end = list.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    reading.end(end)?;
    Ok(items)
}

/// Reads a JSON array, and each of its elements with `read`.
pub(super) fn json_array<'a, T: Deserialize<'a>>(
    array: &'a str,
    read: impl FnMut(T) -> Result<(), PageError>,
) -> Result<(), PageError> {
    let mut reading = ArrayReader { read, wrong: None };
    let elements = Elements { reading: &mut reading, element: PhantomData };
    let end = elements.deserialize(&mut serde_json::Deserializer::from_str(array));
    reading.end(end)
}

/// Reads a list in protobuf, each item with `read`.
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

/// Adds an item to those of `body`, as long as that many can be real.
fn push<I>(items: &mut Vec<I>, item: I, body: &[u8], reserve: &mut Reserve<'_>) -> Result<(), PageError> {
    if items.len() >= MIN_ITEMS && items.len() * MIN_ITEM_BYTES > body.len() {
        return Err(PageError::Crowded(body.len()));
    }
    Ok(memory::push(items, item, reserve)?)
}

/// The timestamp of item `index`.
pub(super) fn timestamp(index: usize, raw: Option<&RawValue>) -> Result<Option<Timestamp>, PageError> {
    Timestamp::from_json(raw).map_err(|_| PageError::Timestamp { index })
}

/// The same in protobuf.
pub(super) fn protobuf_timestamp(index: usize, message: &[u8]) -> Result<Option<Timestamp>, PageError> {
    Timestamp::from_protobuf(message).map_err(|_| PageError::Timestamp { index })
}

/// The quantity of item `index`: a string or, as Go accepts it, a bare number.
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

/// The same in protobuf.
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

/// The quantity of item `index`; nothing is zero, as in Go.
fn quantity(index: usize, text: &str, reserve: &mut Reserve<'_>) -> Result<Quantity, PageError> {
    if text.is_empty() {
        return Ok(Quantity::default());
    }
    let quantity: Quantity = text.parse().map_err(|source| PageError::Quantity { index, source })?;
    reserve(quantity.heap_bytes())?;
    Ok(quantity)
}

/// A list's object.
struct ListReader<'r, T, F> {
    expected: Expected,
    reading: &'r mut ArrayReader<F>,
    element: PhantomData<T>,
}

/// The elements of an array.
struct Elements<'r, T, F> {
    reading: &'r mut ArrayReader<F>,
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
    fn end(self, end: Result<(), serde_json::Error>) -> Result<(), PageError> {
        match self.wrong {
            Some(wrong) => Err(wrong),
            None => Ok(end?),
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
                    // What stands before the items is enough to tell another list from a malformed one.
                    if kind.is_some() && api_version.is_some() {
                        self.check(kind, api_version)?;
                    }
                    map.next_value_seed(Elements { reading: &mut *self.reading, element: PhantomData })?;
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
            self.reading.wrong = Some(error);
            E::custom("it is another list")
        })
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), PageError>> DeserializeSeed<'de>
    for Elements<'_, T, F>
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, F: FnMut(T) -> Result<(), PageError>> Visitor<'de> for Elements<'_, T, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    /// `null`, as Go writes a list that nobody has made.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let ArrayReader { read, wrong } = self.reading;
        while let Some(element) = sequence.next_element()? {
            if let Err(error) = read(element) {
                *wrong = Some(error);
                return Err(A::Error::custom("an item is malformed"));
            }
        }
        Ok(())
    }
}
