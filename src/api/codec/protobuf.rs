//! Reads and writes Kubernetes protobuf.
//!
//! Kubernetes puts the magic bytes `k8s\0` and a `runtime.Unknown` around each object. The `runtime.Unknown` names the object's
//! kind (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).

use std::io::Write as _;

use thiserror::Error;

use super::{EncodeItem, MAX_OVERHEAD};
use crate::api::memory::{Reserve, Stopped, reserve_capacity};
use crate::api::quantity::Quantity;
use crate::api::text::JsonText;

/// The first bytes of a protobuf body.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Writes the fields of one message in the order of the calls. Like gogo/protobuf, it also writes empty strings.
#[derive(Debug, Default)]
pub struct Writer {
    out: Vec<u8>,
}

/// Why bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MalformedProtobuf {
    /// A number or a length-delimited field is longer than the rest of the message.
    #[error("a field is longer than the rest of the message")]
    Truncated,
    /// A number has more than ten bytes.
    #[error("a number is too long")]
    Number,
    /// A tag has a wire type that protobuf does not define.
    #[error("a field has an unknown wire type")]
    WireType,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// An object has more entries of one kind than the limit. No real object has that many.
    #[error("an object has too many entries")]
    TooManyEntries,
    /// The magic bytes are missing.
    #[error("the prefix k8s\\0 is missing")]
    Magic,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValue<'a> {
    /// A varint.
    Number(u64),
    /// A string, bytes or a message.
    Bytes(&'a [u8]),
    /// A fixed 32- or 64-bit value. The Kubernetes types that are read here do not use it.
    Fixed,
}

/// The envelope of an object: its API version, its kind and its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// API version, such as `v1`.
    pub api_version: &'a str,
    /// Kind, such as `Status`.
    pub kind: &'a str,
    /// The object's own message.
    pub raw: &'a [u8],
}

/// Iterator over the fields of a message, in their order. It ends after the first error.
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
    /// Encodes an object in its envelope.
    pub fn object(api_version: &str, kind: &str, capacity: usize, raw: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut writer = Self { out: Vec::with_capacity(capacity) };
        writer.out.extend_from_slice(MAGIC);
        writer.message(1, |type_meta| {
            type_meta.string(1, api_version);
            type_meta.string(2, kind);
        });
        writer.message(2, raw);
        // `contentEncoding` and `contentType`, which are empty.
        writer.string(3, "");
        writer.string(4, "");
        writer.out
    }

    /// Encodes a list with empty metadata; `write` encodes each item. The pair has the numbers of the fields for metadata and
    /// items; the lower field is written first. `bytes` is the typical length of an item.
    ///
    /// # Errors
    /// If `reserve` returns an error.
    pub fn list<T: EncodeItem>(
        api_version: &str,
        kind: &str,
        (metadata_field, items_field): (u64, u64),
        items: &[T],
        bytes: usize,
        reserve: &mut Reserve<'_>,
        write: impl FnMut(&mut Self, &T),
    ) -> Result<Vec<u8>, Stopped> {
        let capacity = MAX_OVERHEAD + items.len() * bytes;
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
            reserve_capacity(&mut self.out, item.max_bytes(), reserve)?;
            let capacity = self.out.capacity();
            self.message(field, |out| write(out, item));
            debug_assert_eq!(self.out.capacity(), capacity, "an item is longer than its maximum length");
        }
        // For the lengths and the last fields of the messages around the items.
        reserve_capacity(&mut self.out, 64, reserve)
    }

    /// Encodes a message without an envelope.
    pub fn message_of(write: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut writer = Self::default();
        write(&mut writer);
        writer.out
    }

    /// Writes a string, also if it is empty.
    pub fn string(&mut self, field: u64, text: &str) {
        self.tag(field, 2);
        self.varint(text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Writes a string from a member, also if it is empty.
    pub fn text(&mut self, field: u64, text: JsonText<'_>) {
        match text {
            JsonText::Plain(text) => self.string(field, text),
            JsonText::Escaped(_) => self.string(field, &text.decode()),
        }
    }

    /// Writes a `resource.Quantity`: a message that contains its text.
    pub fn quantity(&mut self, field: u64, value: &Quantity) {
        self.message(field, |message| {
            message.message(1, |text| write!(text.out, "{value}").expect("writing to memory does not fail"));
        });
    }

    /// Appends encoded fields.
    #[cfg(test)]
    pub fn append(&mut self, fields: &[u8]) {
        self.out.extend_from_slice(fields);
    }

    /// Writes an empty `metav1.ListMeta`: the list is complete and has no `continue` token.
    pub fn list_meta(&mut self, field: u64) {
        self.message(field, |meta| (1..=3).for_each(|field| meta.string(field, "")));
    }

    /// Writes a signed number or a boolean.
    pub fn number(&mut self, field: u64, number: i64) {
        self.tag(field, 0);
        self.varint(number.cast_unsigned());
    }

    /// Writes a nested message.
    pub fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.tag(field, 2);
        let length_at = self.out.len();
        self.out.push(0);
        write(self);
        // For most messages one byte is enough for the length. Longer messages are moved to make room.
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

/// Encodes a number in groups of seven bits, the lowest group first. Returns the bytes and their count.
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
    /// The field as a string; empty if the field has another type.
    ///
    /// # Errors
    /// If the string is not UTF-8.
    pub fn text(self) -> Result<&'a str, MalformedProtobuf> {
        str::from_utf8(self.bytes()).map_err(|_| MalformedProtobuf::Utf8)
    }

    /// The field as bytes or as a message; empty if the field has another type.
    pub fn bytes(self) -> &'a [u8] {
        if let Self::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// The field as a signed number; 0 if the field has another type.
    pub fn number(self) -> i64 {
        if let Self::Number(number) = self { number.cast_signed() } else { 0 }
    }
}

impl<'a> Fields<'a> {
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
            // Only one bit of the tenth byte fits; the other bits are cut off, as in Go.
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
    fn too_long_field_is_an_error_and_ends_the_iterator() {
        let mut fields = Fields::of(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]);
        assert_eq!(fields.next(), Some(Err(MalformedProtobuf::Truncated)));
        assert_eq!(fields.next(), None);
    }

    #[test]
    fn endless_number_is_an_error() {
        assert_eq!(Fields::of(&[0x80; 20]).next(), Some(Err(MalformedProtobuf::Number)));
    }

    #[test]
    fn messages_of_all_lengths_read_back_unchanged() {
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
    fn negative_numbers_have_ten_bytes() {
        let minus_one = [0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let (number, value) = Fields::of(&minus_one).next().expect("a field").expect("well-formed");
        assert_eq!((number, value.number()), (4, -1));
    }
}
