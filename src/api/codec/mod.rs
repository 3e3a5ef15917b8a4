//! Encodings of what this server reads and writes.

pub mod json;
pub mod protobuf;
