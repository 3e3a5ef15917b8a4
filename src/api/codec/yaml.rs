//! YAML in the format of `sigs.k8s.io/yaml`: the fields of the JSON form, sorted.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::memory::{Reserve, Stopped, reserve_capacity};

/// Converts an object from JSON to YAML. This server must have written `json`. The elements of a list are converted one by one:
/// a tree of all elements would need ten times the memory of their text.
///
/// # Errors
/// If `reserve` returns an error.
pub fn from_json(json: &[u8], reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
    let fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(json).expect(JSON);
    let mut out = Vec::new();
    // Memory for the references to the elements. An element's JSON is longer than its reference.
    reserve(json.len())?;
    let mut reserved = 0;
    // Only one tree exists at a time, so memory is reserved for the largest tree.
    let mut make_tree = |raw: &RawValue, reserve: &mut Reserve<'_>| {
        let tree = TREE_EXPANSION * raw.get().len();
        reserve(tree.saturating_sub(reserved))?;
        reserved = reserved.max(tree);
        Ok::<Value, Stopped>(serde_json::from_str(raw.get()).expect(JSON))
    };
    for (key, raw) in fields {
        match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
            Ok(elements) if !elements.is_empty() => {
                append(&mut out, &format!("{key}:\n"), reserve)?;
                for element in elements {
                    append(&mut out, &yaml(&[make_tree(element, reserve)?]), reserve)?;
                }
            }
            _ => append(&mut out, &yaml(&BTreeMap::from([(key, make_tree(raw, reserve)?)])), reserve)?,
        }
    }
    Ok(out)
}

const JSON: &str = "this server writes valid JSON without escapes in keys";

/// Maximum memory of an element's tree (with sorted keys) and YAML, as a multiple of its JSON length.
const TREE_EXPANSION: usize = 64;

fn yaml(object: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(object, options).expect("every JSON value is a valid YAML value")
}

fn append(out: &mut Vec<u8>, text: &str, reserve: &mut Reserve<'_>) -> Result<(), Stopped> {
    reserve_capacity(out, text.len(), reserve)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_converted_in_parts_equals_whole_list() {
        let object = serde_json::json!({
            "kind": "List", "items": [{"b": {"c": ["x", "on"]}, "a": "1"}, {"a": []}], "empty": [], "metadata": {},
        });
        let in_parts = from_json(object.to_string().as_bytes(), &mut |_| Ok(())).expect("no limit");
        assert_eq!(String::from_utf8(in_parts).expect("UTF-8"), yaml(&object));
    }
}
