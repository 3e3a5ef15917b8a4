//! Encodings of what this server reads and writes.

pub mod accept;
pub mod json;
pub mod negotiate;
pub mod protobuf;
pub mod yaml;

/// An object that is answered with.
pub trait Encode {
    /// Its JSON: one line with a line feed, as Go's API server writes it.
    fn to_json(&self) -> Vec<u8>;

    /// Its Kubernetes protobuf, with the envelope.
    fn to_protobuf(&self) -> Vec<u8>;
}
