//! YAML, as `sigs.k8s.io/yaml` writes it: the fields of the JSON form, sorted.

use serde_json::Value;

/// The same object in YAML; `json` is well-formed.
pub fn from_json(json: &[u8]) -> Vec<u8> {
    // `Value` keeps its keys sorted.
    let object: Value = serde_json::from_slice(json).expect("what this server writes is JSON");
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let yaml = serde_saphyr::to_string_with_options(&object, options);
    yaml.expect("every JSON object has a YAML form").into_bytes()
}
