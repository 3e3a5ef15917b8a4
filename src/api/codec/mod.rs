//! Encodings of requests and responses.

pub mod accept;
pub mod json;
pub mod negotiate;
pub mod protobuf;
pub mod yaml;

use super::memory::{Reserve, Stopped};

/// Maximum ratio of an item's encoded length to the bytes that it was read from. Examples: an empty requirement of a selector
/// has 2 bytes in protobuf and 24 in JSON; a control character has 1 byte in protobuf and 6 in JSON.
pub const MAX_EXPANSION: usize = 16;
/// Maximum additional bytes of an item: field names, numbers, times, and the label that names its clusters.
pub const MAX_OVERHEAD: usize = 4096;

/// A list in a response. Members determine its length, so memory is reserved before it is allocated.
pub trait EncodeList {
    /// Encodes JSON: one line with a line feed, like Go's API server.
    ///
    /// # Errors
    /// If `reserve` returns an error.
    fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped>;

    /// Encodes Kubernetes protobuf, with the envelope.
    ///
    /// # Errors
    /// If `reserve` returns an error.
    fn to_protobuf(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped>;
}

/// An item of a list in a response.
pub trait EncodeItem {
    /// Maximum encoded length in bytes, in JSON and in protobuf.
    fn max_bytes(&self) -> usize;
}

/// A single object in a response.
pub trait Encode {
    /// Encodes JSON: one line with a line feed, like Go's API server.
    fn to_json(&self) -> Vec<u8>;

    /// Encodes Kubernetes protobuf, with the envelope.
    fn to_protobuf(&self) -> Vec<u8>;
}
