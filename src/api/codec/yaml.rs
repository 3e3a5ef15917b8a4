//! YAML, as `sigs.k8s.io/yaml` writes it: the fields of the JSON form, sorted.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::memory::{Reserve, Stopped, make_room};

/// The same object in YAML; `json` is one that this server wrote. The elements of a list are turned one by one, since a
/// tree of all of them would take ten times the memory of their text.
///
/// # Errors
/// If `reserve` stops it.
pub fn from_json(json: &[u8], reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
    let fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(json).expect(JSON);
    let mut out = Vec::new();
    // The references to the elements; each has more bytes of JSON than that.
    reserve(json.len())?;
    let mut trees = 0;
    // One tree at a time is there.
    let mut make_tree = |raw: &RawValue, reserve: &mut Reserve<'_>| {
        let tree = TREE * raw.get().len();
        reserve(tree.saturating_sub(trees))?;
        trees = trees.max(tree);
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

const JSON: &str = "what this server writes is JSON, and its keys have no escapes";

/// How many times the bytes of an element's JSON its tree, whose keys are sorted, and its YAML take at most.
const TREE: usize = 64;

fn yaml(object: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(object, options).expect("every JSON value has a YAML form")
}

fn append(out: &mut Vec<u8>, text: &str, reserve: &mut Reserve<'_>) -> Result<(), Stopped> {
    make_room(out, text.len(), reserve)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_as_in_one_piece() {
        let object = serde_json::json!({
            "kind": "List", "items": [{"b": {"c": ["x", "on"]}, "a": "1"}, {"a": []}], "empty": [], "metadata": {},
        });
        let in_parts = from_json(object.to_string().as_bytes(), &mut |_| Ok(())).expect("no limit");
        assert_eq!(String::from_utf8(in_parts).expect("UTF-8"), yaml(&object));
    }
}
