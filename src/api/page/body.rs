//! A member's body, and where the parts of what was read lie in it.

use crate::api::text::JsonText;

/// A body that was found to be well-formed.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) format: BodyFormat,
}

/// How a member encoded its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`.
    Json,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// A part of the body: strings without their quotes, objects whole; empty where absent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Body {
    pub(super) fn text(&self, span: Span) -> JsonText<'_> {
        self.format.text(&self.bytes, span)
    }

    pub(super) fn raw(&self, span: Span) -> &str {
        span.raw(&self.bytes)
    }

    pub(super) fn message(&self, span: Span) -> &[u8] {
        span.bytes(&self.bytes)
    }
}

impl BodyFormat {
    /// A string that lies in a body of this format.
    pub(super) fn text(self, body: &[u8], span: Span) -> JsonText<'_> {
        match self {
            Self::Json => JsonText::from_json(span.raw(body)),
            Self::Protobuf => JsonText::Plain(span.raw(body)),
        }
    }
}

impl Span {
    /// Where `part`, a slice of `body`, lies in it.
    pub(super) fn of(body: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr().wrapping_sub(body.as_ptr().addr());
        match (u32::try_from(start), u32::try_from(start.wrapping_add(part.len()))) {
            (Ok(start), Ok(end)) if end as usize <= body.len() => Self { start, end },
            _ => Self::default(),
        }
    }

    pub(super) fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub(super) fn bytes(self, body: &[u8]) -> &[u8] {
        &body[self.start as usize..self.end as usize]
    }

    /// A part that is a string or JSON; both were found to be UTF-8.
    pub(super) fn raw(self, body: &[u8]) -> &str {
        str::from_utf8(self.bytes(body)).unwrap_or_default()
    }

    /// Where a string lies; nothing is nowhere.
    pub(super) fn of_text(body: &[u8], text: JsonText<'_>) -> Self {
        let (JsonText::Plain(text) | JsonText::Escaped(text)) = text;
        if text.is_empty() { Self::default() } else { Self::of(body, text.as_bytes()) }
    }
}

/// How many bytes of memory a vector takes whose elements take so many beside their own size.
pub(super) fn memory_of<T>(elements: &Vec<T>, heap_bytes: impl Fn(&T) -> usize) -> usize {
    elements.capacity() * size_of::<T>() + elements.iter().map(heap_bytes).sum::<usize>()
}
