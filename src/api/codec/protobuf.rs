//! Kubernetes protobuf: tag, length, slice.
//!
//! Kubernetes wraps each object in the magic bytes `k8s\0` and a `runtime.Unknown` that names its kind
//! (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).

use thiserror::Error;

/// What a protobuf body starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Why bytes are no protobuf message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
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
    /// The magic bytes are missing.
    #[error("the prefix k8s\\0 is missing")]
    Magic,
}

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
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
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let body = body.strip_prefix(MAGIC).ok_or(Malformed::Magic)?;
        let mut envelope = Self::default();
        for field in Fields::of(body) {
            match field? {
                (1, Value::Bytes(type_meta)) => {
                    for field in Fields::of(type_meta) {
                        match field? {
                            (1, value) => envelope.api_version = value.text()?,
                            (2, value) => envelope.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                (2, Value::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

impl<'a> Value<'a> {
    /// The field as a string; a field of another type is an empty one.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn text(self) -> Result<&'a str, Malformed> {
        str::from_utf8(self.bytes()).map_err(|_| Malformed::Utf8)
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

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed::WireType),
        };
        Ok((tag >> 3, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
            self.rest = rest;
            // The tenth byte holds one bit; more of it is cut off, as in Go.
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed::Number)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

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
        assert_eq!(fields.next(), Some(Err(Malformed::Truncated)));
        assert_eq!(fields.next(), None);
    }

    #[test]
    fn an_endless_number_is_an_error() {
        assert_eq!(Fields::of(&[0x80; 20]).next(), Some(Err(Malformed::Number)));
    }

    #[test]
    fn negative_numbers_take_ten_bytes() {
        let minus_one = [0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let (number, value) = Fields::of(&minus_one).next().expect("a field").expect("well-formed");
        assert_eq!((number, value.number()), (4, -1));
    }
}
