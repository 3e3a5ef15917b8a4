//! A member's response body, and positions in it.

use crate::api::text::JsonText;

/// A response body. It is well-formed: it was checked when the page was read.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) format: BodyFormat,
}

/// The encoding of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`.
    Json,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl BodyFormat {
    /// The format of a media type. `media_type` must be in lower case and have no parameters.
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json" => Some(Self::Json),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// Start and end of a part of the body, in bytes. Strings are without their quotes, objects are complete. A missing part is
/// empty.
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
    /// The string at `span` of a body in this format.
    pub(super) fn text(self, body: &[u8], span: Span) -> JsonText<'_> {
        match self {
            Self::Json => JsonText::from_json(span.raw(body)),
            Self::Protobuf => JsonText::Plain(span.raw(body)),
        }
    }
}

impl Span {
    /// The position of `part` in `body`. `part` must be a slice of `body`.
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

    /// The part as text. The part must be a string or JSON; both are valid UTF-8.
    pub(super) fn raw(self, body: &[u8]) -> &str {
        str::from_utf8(self.bytes(body)).unwrap_or_default()
    }

    /// The position of a string; the empty span if the string is empty.
    pub(super) fn of_text(body: &[u8], text: JsonText<'_>) -> Self {
        let (JsonText::Plain(text) | JsonText::Escaped(text)) = text;
        if text.is_empty() { Self::default() } else { Self::of(body, text.as_bytes()) }
    }
}

/// Memory of a vector in bytes. `heap_bytes` returns the heap memory of an element.
pub(super) fn vec_memory<T>(elements: &Vec<T>, heap_bytes: impl Fn(&T) -> usize) -> usize {
    elements.capacity() * size_of::<T>() + elements.iter().map(heap_bytes).sum::<usize>()
}
