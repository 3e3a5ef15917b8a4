//! Types of `k8s.io/apimachinery/pkg/apis/meta/v1` in metrics, borrowed from the body.

mod entries;
mod label_selector;
mod object_meta;

pub use entries::{
    BoundedArray, KeyValue, MAX_ENTRIES, ObjectEntries, add, read_entry, too_many, write_entries,
};
pub use label_selector::{Expression, LabelSelector};
pub use object_meta::{ObjectMeta, ObjectMetaError};

/// In each block of this many bytes of JSON, at least one string must begin or end. Real bodies have no longer strings, numbers
/// or white space. So code that copies a string, to decode escapes or for an error message, needs little memory.
pub const QUOTE_BLOCK_BYTES: usize = 32 * 1024;

/// Whether the JSON may have a string that is longer than two such blocks. A quote without a backslash before it is not
/// escaped.
pub fn has_long_string(json: &[u8]) -> bool {
    let has_quote = |block: &[u8]| block.windows(2).any(|pair| pair[1] == b'"' && pair[0] != b'\\');
    !json.chunks_exact(QUOTE_BLOCK_BYTES).all(has_quote)
}
