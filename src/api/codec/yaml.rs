//! YAML, as `sigs.k8s.io/yaml` writes it: the fields of the JSON form, sorted.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The same object in YAML; `json` is one that this server wrote. The elements of a list are turned one by one, since a
/// tree of all of them would take ten times the memory of their text.
pub fn from_json(json: &[u8]) -> Vec<u8> {
    let fields: BTreeMap<&str, &RawValue> = serde_json::from_slice(json).expect(JSON);
    let mut out = Vec::with_capacity(json.len());
    for (key, raw) in fields {
        match serde_json::from_str::<Vec<&RawValue>>(raw.get()) {
            Ok(elements) if !elements.is_empty() => {
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(b":\n");
                for element in elements {
                    write(&mut out, &[tree(element)]);
                }
            }
            _ => write(&mut out, &BTreeMap::from([(key, tree(raw))])),
        }
    }
    out
}

const JSON: &str = "what this server writes is JSON, and its keys have no escapes";

/// `Value` keeps its keys sorted.
fn tree(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).expect(JSON)
}

fn write(out: &mut Vec<u8>, object: &impl Serialize) {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let yaml = serde_saphyr::to_string_with_options(object, options);
    out.extend_from_slice(yaml.expect("every JSON value has a YAML form").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_as_in_one_piece() {
        let object = serde_json::json!({
            "kind": "List", "items": [{"b": {"c": ["x", "on"]}, "a": "1"}, {"a": []}], "empty": [], "metadata": {},
        });
        let mut whole = Vec::new();
        write(&mut whole, &object);
        assert_eq!(String::from_utf8(from_json(object.to_string().as_bytes())), String::from_utf8(whole));
    }
}
