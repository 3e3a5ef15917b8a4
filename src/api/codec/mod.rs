//! Encodings of what this server reads and writes.

pub mod accept;
pub mod json;
pub mod negotiate;
pub mod protobuf;
pub mod yaml;

use super::memory::{Reserve, Stopped};

/// How many times as long as the bytes that it is made of an item of a list may be written: an empty requirement of a
/// selector has two bytes in protobuf and 24 in JSON, a control character one and six.
pub const EXPANSION: usize = 16;
/// What an item has beside that at most: names of fields, numbers, times, the label that names its clusters.
pub const FRAME: usize = 4096;

/// A list that is answered with, as long as members make it. Memory is reserved before it is allocated.
pub trait EncodeList {
    /// Its JSON: one line with a line feed, as Go's API server writes it.
    ///
    /// # Errors
    /// If `reserve` stops it.
    fn to_json(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped>;

    /// Its Kubernetes protobuf, with the envelope.
    ///
    /// # Errors
    /// If `reserve` stops it.
    fn to_protobuf(&self, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped>;
}

/// An item of such a list.
pub trait EncodeItem {
    /// How many bytes it has at most, in either form.
    fn most_bytes(&self) -> usize;
}

/// An object that is answered with.
pub trait Encode {
    /// Its JSON: one line with a line feed, as Go's API server writes it.
    fn to_json(&self) -> Vec<u8>;

    /// Its Kubernetes protobuf, with the envelope.
    fn to_protobuf(&self) -> Vec<u8>;
}
