//! Writes protocol buffers as Kubernetes' generated code does, for servers that respond in that format.

const VARINT: u64 = 0;
const LENGTH_DELIMITED: u64 = 2;

/// A message under construction. Fields are written in the order of the calls. Kubernetes writes a plain field even when it is
/// empty and omits only an absent pointer, so no field is skipped here.
#[derive(Clone, Debug, Default)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// An empty message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a string field.
    #[must_use]
    pub fn string(self, field: u64, text: &str) -> Self {
        self.delimited(field, text.as_bytes())
    }

    /// Adds an integer field (`int32`, `int64`; a negative number takes ten bytes).
    #[must_use]
    pub fn integer(mut self, field: u64, value: i64) -> Self {
        self.varint(field << 3 | VARINT);
        self.varint(value.cast_unsigned());
        self
    }

    /// Adds a boolean field.
    #[must_use]
    pub fn boolean(self, field: u64, value: bool) -> Self {
        self.integer(field, i64::from(value))
    }

    /// Adds an embedded message.
    #[must_use]
    pub fn message(self, field: u64, message: &Self) -> Self {
        self.delimited(field, &message.bytes)
    }

    /// Adds one embedded message for each element.
    #[must_use]
    pub fn repeated(self, field: u64, messages: impl IntoIterator<Item = Self>) -> Self {
        messages.into_iter().fold(self, |whole, message| whole.message(field, &message))
    }

    /// The bytes of the message, without an envelope.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The message as Kubernetes sends it: four magic bytes and a `runtime.Unknown` around the message.
    #[must_use]
    pub fn into_envelope(self, api_version: &str, kind: &str) -> Vec<u8> {
        let type_meta = Self::new().string(1, api_version).string(2, kind);
        let unknown = Self::new().message(1, &type_meta).message(2, &self).string(3, "").string(4, "");
        [b"k8s\0", unknown.bytes.as_slice()].concat()
    }

    fn delimited(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | LENGTH_DELIMITED);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_tag_length_and_value() {
        let inner = Message::new().string(1, "v1").integer(2, 300).integer(3, -1).boolean(4, true);
        let expected = b"\x0a\x02v1\x10\xac\x02\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x20\x01";
        assert_eq!(inner.bytes, expected);
        let outer = Message::new().repeated(16, [Message::new(), Message::new().string(1, "")]);
        assert_eq!(outer.bytes, b"\x82\x01\x00\x82\x01\x02\x0a\x00");
    }
}
