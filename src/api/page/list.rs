//! Lists, whatever is in them: read item by item in one pass, so that they take no more memory than what is kept.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Expected, PageError, quantity};
use crate::api::codec::protobuf::{Envelope, Fields};
use crate::api::meta::json_text;
use crate::api::quantity::Quantity;
use crate::api::time::Timestamp;

/// How many items a body may have whatever its size.
const HANDFUL: usize = 64;
/// How many bytes the smallest real item has; one of a pod has 80 in protobuf.
const SMALLEST: usize = 32;

/// Where items go as they are read.
struct Kept<'b, I, F> {
    body: &'b [u8],
    items: Vec<I>,
    /// Reads an item of this index.
    read: F,
    /// What is wrong with an item, where serde's own words would say less.
    wrong: Option<PageError>,
}

/// Reads a list in JSON, each item with `read`.
pub(super) fn json<'a, T: Deserialize<'a>, I>(
    expected: Expected,
    body: &'a [u8],
    read: impl FnMut(usize, T) -> Result<I, PageError>,
) -> Result<Vec<I>, PageError> {
    let text = str::from_utf8(body).map_err(|_| PageError::Utf8)?;
    let mut kept = Kept { body, items: Vec::new(), read, wrong: None };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let list = List { expected, kept: &mut kept, item: PhantomData };
    let read = list.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match kept.wrong {
        Some(wrong) => Err(wrong),
        None => Ok(read.map(|()| kept.items)?),
    }
}

/// Reads a list in protobuf, each item with `read`.
pub(super) fn protobuf<'a, I>(
    expected: Expected,
    body: &'a [u8],
    mut read: impl FnMut(usize, Envelope<'a>, &'a [u8]) -> Result<I, PageError>,
) -> Result<Vec<I>, PageError> {
    let envelope = Envelope::read(body)?;
    expected.check(envelope.kind, envelope.api_version)?;
    let mut items = Vec::new();
    for field in Fields::of(envelope.raw) {
        if let (2, value) = field? {
            let item = read(items.len(), envelope, value.bytes())?;
            push(&mut items, item, body)?;
        }
    }
    Ok(items)
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
pub(super) fn json_quantity(index: usize, raw: Option<&RawValue>) -> Result<Quantity, PageError> {
    match raw.map(RawValue::get) {
        Some(number) if number.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
            quantity(index, number)
        }
        _ => quantity(index, &json_text(raw)?.decode()),
    }
}

/// The same in protobuf.
pub(super) fn protobuf_quantity(index: usize, message: &[u8]) -> Result<Quantity, PageError> {
    let mut text = "";
    for field in Fields::of(message) {
        if let (1, value) = field? {
            text = value.text()?;
        }
    }
    quantity(index, text)
}

/// Adds an item to those of `body`, as long as that many can be real.
fn push<I>(items: &mut Vec<I>, item: I, body: &[u8]) -> Result<(), PageError> {
    if items.len() >= HANDFUL && items.len() * SMALLEST > body.len() {
        return Err(PageError::Crowded(body.len()));
    }
    items.push(item);
    Ok(())
}

/// A list's object.
struct List<'k, 'b, T, I, F> {
    expected: Expected,
    kept: &'k mut Kept<'b, I, F>,
    item: PhantomData<T>,
}

/// Its items.
struct Items<'k, 'b, T, I, F> {
    kept: &'k mut Kept<'b, I, F>,
    item: PhantomData<T>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    Kind,
    ApiVersion,
    Items,
    #[serde(other)]
    Other,
}

impl<'de, T: Deserialize<'de>, I, F: FnMut(usize, T) -> Result<I, PageError>> DeserializeSeed<'de>
    for List<'_, '_, T, I, F>
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>, I, F: FnMut(usize, T) -> Result<I, PageError>> Visitor<'de>
    for List<'_, '_, T, I, F>
{
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (mut kind, mut api_version) = (None::<Cow<'de, str>>, None::<Cow<'de, str>>);
        while let Some(field) = map.next_key()? {
            match field {
                Field::Kind => kind = map.next_value()?,
                Field::ApiVersion => api_version = map.next_value()?,
                Field::Items => {
                    // What stands before the items is enough to tell another list from a malformed one.
                    if let (Some(kind), Some(api_version)) = (&kind, &api_version) {
                        self.check::<A::Error>(kind, api_version)?;
                    }
                    map.next_value_seed(Items { kept: &mut *self.kept, item: PhantomData })?;
                }
                Field::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let (kind, api_version) = (kind.unwrap_or_default(), api_version.unwrap_or_default());
        self.check(&kind, &api_version)
    }
}

impl<T, I, F> List<'_, '_, T, I, F> {
    fn check<E: serde::de::Error>(&mut self, kind: &str, api_version: &str) -> Result<(), E> {
        self.expected.check(kind, api_version).map_err(|error| {
            self.kept.wrong = Some(error);
            E::custom("it is another list")
        })
    }
}

impl<'de, T: Deserialize<'de>, I, F: FnMut(usize, T) -> Result<I, PageError>> DeserializeSeed<'de>
    for Items<'_, '_, T, I, F>
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Deserialize<'de>, I, F: FnMut(usize, T) -> Result<I, PageError>> Visitor<'de>
    for Items<'_, '_, T, I, F>
{
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of items")
    }

    /// `null`, as Go writes a list that nobody has made.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        let Kept { body, items, read, wrong } = self.kept;
        while let Some(item) = sequence.next_element()? {
            if let Err(error) = read(items.len(), item).and_then(|item| push(items, item, body)) {
                *wrong = Some(error);
                return Err(A::Error::custom("an item is malformed"));
            }
        }
        Ok(())
    }
}
