//! Types of `k8s.io/apimachinery/pkg/apis/meta/v1` that metrics carry, borrowed from the body that they were read from.

mod entries;
mod label_selector;
mod object_meta;

pub use entries::{BoundedArray, KeyValue, MOST, ObjectEntries, add, read_entry, too_many, write_entries};
pub use label_selector::{Expression, LabelSelector};
pub use object_meta::{ObjectMeta, ObjectMetaError};

/// In how many bytes of JSON at least one string begins or ends: longer strings, numbers and white space are in no real
/// body. What copies a string, to decode its escapes or to quote it in an error, takes little memory then.
pub const STRINGS_WITHIN: usize = 32 * 1024;

/// Whether JSON may have a string that is longer than twice [`STRINGS_WITHIN`]. A quote that has no backslash before it is not
/// escaped.
pub fn has_long_string(json: &[u8]) -> bool {
    let has_quote = |block: &[u8]| block.windows(2).any(|pair| pair[1] == b'"' && pair[0] != b'\\');
    !json.chunks_exact(STRINGS_WITHIN).all(has_quote)
}
