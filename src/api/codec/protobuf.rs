//! Kubernetes protobuf: tag, length, slice.
//!
//! Kubernetes wraps each object in the magic bytes `k8s\0` and a `runtime.Unknown` that names its kind
//! (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).

use std::io::Write as _;

use thiserror::Error;

use super::{EncodeItem, FRAME};
use crate::api::memory::{Reserve, Stopped, make_room};
use crate::api::quantity::Quantity;
use crate::api::text::JsonText;

/// What a protobuf body starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Writes the fields of one message, in the order in which they are called for, as gogo/protobuf does: strings also when
/// they are empty.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MalformedProtobuf {
    /// A number or a length-delimited field reaches past the end.
    #[error("a field reaches past the end")]
    Truncated,
    /// A number is longer than ten bytes.
    #[error("a number is too long")]
    Number,
    /// A tag that protobuf does not have.
    #[error("a field has an unknown wire type")]
    WireType,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// An object has more entries of a kind than any real one has.
    #[error("an object has more entries than any object has")]
    Crowded,
    /// The magic bytes are missing.
    #[error("the prefix k8s\\0 is missing")]
    Magic,
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// A varint.
    Number(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// A fixed 32- or 64-bit value, which no Kubernetes type that is read here has.
    Fixed,
}

/// The envelope of an object: its kind, and its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Such as `v1`.
    pub api_version: &'a str,
    /// Such as `Status`.
    pub kind: &'a str,
    /// The object's own message.
    pub raw: &'a [u8],
}

/// The fields of a message, in the order they stand in; ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads an object's envelope.
    ///
    /// # Errors
    /// If the magic bytes are missing or the envelope is malformed.
    pub fn read(body: &'a [u8]) -> Result<Self, MalformedProtobuf> {
        let body = body.strip_prefix(MAGIC).ok_or(MalformedProtobuf::Magic)?;
        let mut envelope = Self::default();
        for field in Fields::of(body) {
            match field? {
                (1, FieldValue::Bytes(type_meta)) => {
                    for field in Fields::of(type_meta) {
                        match field? {
                            (1, value) => envelope.api_version = value.text()?,
                            (2, value) => envelope.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                (2, FieldValue::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

impl Writer {
    /// An object in its envelope.
    pub fn object(api_version: &str, kind: &str, capacity: usize, raw: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut writer = Self { out: Vec::with_capacity(capacity) };
        writer.out.extend_from_slice(MAGIC);
        writer.message(1, |type_meta| {
            type_meta.string(1, api_version);
            type_meta.string(2, kind);
        });
        writer.message(2, raw);
        // The encoding and the type of the content, which are not said.
        writer.string(3, "");
        writer.string(4, "");
        writer.out
    }

    /// A list of items, each by `write`, with metadata that says nothing, in these fields, the lower one first. `bytes` is how
    /// long an item is, about.
    ///
    /// # Errors
    /// If `reserve` stops it.
    pub fn list<T: EncodeItem>(
        api_version: &str,
        kind: &str,
        (metadata_field, items_field): (u64, u64),
        items: &[T],
        bytes: usize,
        reserve: &mut Reserve<'_>,
        write: impl FnMut(&mut Self, &T),
    ) -> Result<Vec<u8>, Stopped> {
        let capacity = FRAME + items.len() * bytes;
        reserve(capacity)?;
        let mut result = Ok(());
        let out = Self::object(api_version, kind, capacity, |list| {
            if metadata_field < items_field {
                list.list_meta(metadata_field);
            }
            result = list.list_items(items_field, items, reserve, write);
            if metadata_field > items_field {
                list.list_meta(metadata_field);
            }
        });
        result.map(|()| out)
    }

    fn list_items<T: EncodeItem>(
        &mut self,
        field: u64,
        items: &[T],
        reserve: &mut Reserve<'_>,
        mut write: impl FnMut(&mut Self, &T),
    ) -> Result<(), Stopped> {
        for item in items {
            make_room(&mut self.out, item.most_bytes(), reserve)?;
            let room = self.out.capacity();
            self.message(field, |out| write(out, item));
            debug_assert_eq!(self.out.capacity(), room, "an item has more bytes than it says");
        }
        // For the lengths and the end of what the items are in.
        make_room(&mut self.out, 64, reserve)
    }

    /// A message by itself, without an envelope.
    pub fn message_of(write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut writer = Self::default();
        write(&mut writer);
        writer.out
    }

    /// A string, also an empty one.
    pub fn string(&mut self, field: u64, text: &str) {
        self.tag(field, 2);
        self.varint(text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A string that a member sent, also an empty one.
    pub fn text(&mut self, field: u64, text: JsonText<'_>) {
        match text {
            JsonText::Plain(text) => self.string(field, text),
            JsonText::Escaped(_) => self.string(field, &text.decode()),
        }
    }

    /// `resource.Quantity`: a message with its text.
    pub fn quantity(&mut self, field: u64, value: &Quantity) {
        self.message(field, |message| {
            message.message(1, |text| write!(text.out, "{value}").expect("memory takes all bytes"));
        });
    }

    /// Fields that are written already.
    #[cfg(test)]
    pub fn append(&mut self, fields: &[u8]) {
        self.out.extend_from_slice(fields);
    }

    /// `metav1.ListMeta` of a list that nobody can continue.
    pub fn list_meta(&mut self, field: u64) {
        self.message(field, |meta| (1..=3).for_each(|field| meta.string(field, "")));
    }

    /// A signed number, or one that is true or false.
    pub fn number(&mut self, field: u64, number: i64) {
        self.tag(field, 0);
        self.varint(number.cast_unsigned());
    }

    /// A message in this one.
    pub fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.tag(field, 2);
        let length_at = self.out.len();
        self.out.push(0);
        write(self);
        // One byte is long enough for the length of most messages; the others move to make room for more.
        let content = length_at + 1;
        let length = self.out.len() - content;
        let (bytes, count) = varint(length as u64);
        self.out.resize(content + length + count - 1, 0);
        self.out.copy_within(content..content + length, length_at + count);
        self.out[length_at..length_at + count].copy_from_slice(&bytes[..count]);
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn varint(&mut self, number: u64) {
        let (bytes, count) = varint(number);
        self.out.extend_from_slice(&bytes[..count]);
    }
}

/// A number in groups of seven bits, the lowest first, and how many there are.
fn varint(mut number: u64) -> ([u8; 10], usize) {
    let (mut bytes, mut count) = ([0; 10], 0);
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        count += 1;
        if number == 0 {
            bytes[count - 1] = low;
            return (bytes, count);
        }
        bytes[count - 1] = low | 0x80;
    }
}

impl<'a> FieldValue<'a> {
    /// The field as a string; a field of another type is an empty one.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(self) -> Result<&'a str, MalformedProtobuf> {
        str::from_utf8(self.bytes()).map_err(|_| MalformedProtobuf::Utf8)
    }

    /// The field as bytes or as a message; a field of another type is an empty one.
    pub fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// The field as a signed number; a field of another type is zero.
    pub fn number(self) -> i64 {
        if let Self::Number(number) = self { number.cast_signed() } else { 0 }
    }
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    pub fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u64, FieldValue<'a>), MalformedProtobuf> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => FieldValue::Number(self.varint()?),
            1 => self.take(8).map(|_| FieldValue::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| MalformedProtobuf::Truncated)?;
                FieldValue::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| FieldValue::Fixed)?,
            _ => return Err(MalformedProtobuf::WireType),
        };
        Ok((tag >> 3, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], MalformedProtobuf> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(MalformedProtobuf::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, MalformedProtobuf> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(MalformedProtobuf::Truncated)?;
            self.rest = rest;
            // The tenth byte holds one bit; more of it is cut off, as in Go.
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(MalformedProtobuf::Number)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, FieldValue<'a>), MalformedProtobuf>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_past_the_end_is_an_error_and_ends_the_fields() {
        let mut fields = Fields::of(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]);
        assert_eq!(fields.next(), Some(Err(MalformedProtobuf::Truncated)));
        assert_eq!(fields.next(), None);
    }

    #[test]
    fn an_endless_number_is_an_error() {
        assert_eq!(Fields::of(&[0x80; 20]).next(), Some(Err(MalformedProtobuf::Number)));
    }

    #[test]
    fn messages_of_all_lengths_read_back() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let text = "x".repeat(length);
            let body = Writer::object("v1", "Text", 0, |writer| {
                writer.message(7, |inner| inner.string(1, &text));
                writer.number(2, -1);
            });
            let envelope = Envelope::read(&body).expect("an envelope");
            assert_eq!((envelope.api_version, envelope.kind), ("v1", "Text"));
            let fields: Vec<_> = Fields::of(envelope.raw).collect::<Result<_, _>>().expect("well-formed");
            assert_eq!(fields[1], (2, FieldValue::Number(u64::MAX)));
            let inner: Vec<_> =
                Fields::of(fields[0].1.bytes()).collect::<Result<_, _>>().expect("well-formed");
            assert_eq!((fields[0].0, &inner[..]), (7, &[(1, FieldValue::Bytes(text.as_bytes()))][..]));
        }
    }

    #[test]
    fn negative_numbers_take_ten_bytes() {
        let minus_one = [0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let (number, value) = Fields::of(&minus_one).next().expect("a field").expect("well-formed");
        assert_eq!((number, value.number()), (4, -1));
    }
}
