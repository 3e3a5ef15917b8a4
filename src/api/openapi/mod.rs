//! OpenAPI: the served types and operations are maintained by hand; the documents of v2 and v3 are generated from them.
//!
//! Types have the names and fields of `k8s.io/metrics` and `k8s.io/apimachinery`, so that kubectl and kube-apiserver's
//! aggregation layer find them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::group::Group;

/// Operations and types of each group version.
const SOURCES: [(Group, &str, &str); 4] = [
    (Group::Custom, "v1beta1", include_str!("custom.metrics.v1beta1.json")),
    (Group::Custom, "v1beta2", include_str!("custom.metrics.v1beta2.json")),
    (Group::External, "v1beta1", include_str!("external.metrics.v1beta1.json")),
    (Group::Resource, "v1beta1", include_str!("metrics.v1beta1.json")),
];
/// Shared types and parameter descriptions.
const SHARED: &str = include_str!("shared.json");
/// Media types of the operations.
const MEDIA_TYPES: [&str; 3] =
    ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];

type Schemas = Map<String, Value>;

/// Types as in OpenAPI v3, with one difference: a reference is the name of a type and may have a description.
#[derive(Deserialize)]
struct OpenApiSource {
    operations: Vec<Operation>,
    schemas: Schemas,
}

#[derive(Deserialize)]
struct SharedSchemas {
    parameters: BTreeMap<String, String>,
    schemas: Schemas,
}

/// A GET operation. The path is relative to the group version and contains the path parameters in braces.
#[derive(Deserialize)]
struct Operation {
    path: String,
    id: String,
    description: String,
    action: String,
    kind: String,
    returns: String,
    query: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OpenApiVersion {
    V2,
    V3,
}

/// The OpenAPI v3 documents, one for each group version.
pub fn v3() -> Vec<(Group, &'static str, Value)> {
    let shared: SharedSchemas = read(SHARED);
    let documents = SOURCES.iter().map(|(group, version, text)| {
        let source: OpenApiSource = read(text);
        let paths = OpenApiVersion::V3.paths(*group, version, &source.operations, &shared);
        let schemas = OpenApiVersion::V3.schemas(&with_shared(source.schemas, &shared.schemas));
        let document = json!({
            "openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas},
        });
        (*group, *version, document)
    });
    documents.collect()
}

/// The OpenAPI v2 document of all group versions.
pub fn v2() -> Value {
    let shared: SharedSchemas = read(SHARED);
    let (mut paths, mut schemas) = (Map::new(), shared.schemas.clone());
    for (group, version, text) in SOURCES {
        let source: OpenApiSource = read(text);
        paths.extend(OpenApiVersion::V2.paths(group, version, &source.operations, &shared));
        schemas.extend(source.schemas);
    }
    json!({
        "swagger": "2.0", "info": info(), "paths": paths, "definitions": OpenApiVersion::V2.schemas(&schemas),
    })
}

fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("the embedded documents are valid")
}

fn info() -> Value {
    json!({"title": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION")})
}

/// Adds the shared types that the given types refer to, directly or indirectly.
fn with_shared(mut schemas: Schemas, shared: &Schemas) -> Schemas {
    let mut wanted = BTreeSet::new();
    schemas.values().for_each(|schema| references(schema, &mut wanted));
    while let Some(name) = wanted.pop_first() {
        if let Some(schema) = shared.get(&name).filter(|_| !schemas.contains_key(&name)) {
            references(schema, &mut wanted);
            schemas.insert(name, schema.clone());
        }
    }
    schemas
}

/// Collects the names of the types that a type refers to.
fn references(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
        _ => {}
    }
}

impl OpenApiVersion {
    fn paths(
        self,
        group: Group,
        version: &str,
        operations: &[Operation],
        shared: &SharedSchemas,
    ) -> Map<String, Value> {
        let paths = operations.iter().map(|operation| {
            let path = format!("/apis/{}/{version}{}", group.name(), operation.path);
            (path, json!({"get": self.operation(group, version, operation, shared)}))
        });
        paths.collect()
    }

    fn operation(self, group: Group, version: &str, operation: &Operation, shared: &SharedSchemas) -> Value {
        let in_path = operation
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| (name, "path"));
        let in_query = operation.query.iter().map(|name| (name.as_str(), "query"));
        let parameters: Vec<Value> = in_path
            .chain(in_query)
            .map(|(name, location)| self.parameter(name, location, &shared.parameters[name]))
            .collect();
        let returned = json!({"$ref": self.pointer(&operation.returns)});
        let mut output = json!({
            "tags": [format!("{}_{version}", group.name().trim_end_matches(".k8s.io").replace('.', "_"))],
            "description": operation.description,
            "operationId": operation.id,
            "parameters": parameters,
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {
                "group": group.name(), "version": version, "kind": operation.kind,
            },
        });
        let response = match self {
            Self::V2 => {
                output["produces"] = json!(MEDIA_TYPES);
                output["schemes"] = json!(["https"]);
                json!({"description": "OK", "schema": returned})
            }
            Self::V3 => {
                let content: Map<String, Value> = MEDIA_TYPES
                    .iter()
                    .map(|media_type| ((*media_type).to_owned(), json!({"schema": returned})))
                    .collect();
                json!({"description": "OK", "content": content})
            }
        };
        output["responses"] = json!({"200": response});
        output
    }

    fn parameter(self, name: &str, location: &str, description: &str) -> Value {
        let mut output = json!({"name": name, "in": location, "description": description});
        if location == "path" {
            output["required"] = json!(true);
        }
        match self {
            Self::V2 => output["type"] = json!("string"),
            Self::V3 => output["schema"] = json!({"type": "string"}),
        }
        output
    }

    fn schemas(self, schemas: &Schemas) -> Schemas {
        schemas.iter().map(|(name, schema)| (name.clone(), self.schema(schema))).collect()
    }

    /// A type, or a part of a type.
    fn schema(self, schema: &Value) -> Value {
        match schema {
            Value::Object(fields) => {
                let mut output = self.schemas(fields);
                if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                    output.insert("$ref".to_owned(), json!(self.pointer(name)));
                }
                if self == Self::V3 && output.len() > 1 {
                    // In v3, `$ref` must have no other fields beside it.
                    if let Some(pointer) = output.remove("$ref") {
                        output.insert("allOf".to_owned(), json!([{"$ref": pointer}]));
                    }
                }
                if self == Self::V2
                    && let Some(alternatives) = output.remove("oneOf")
                    && let Some(first) = alternatives[0].as_object()
                {
                    // v2 has no `oneOf`. The first alternative is the form of responses.
                    output.extend(first.clone());
                }
                Value::Object(output)
            }
            Value::Array(elements) => elements.iter().map(|element| self.schema(element)).collect(),
            other => other.clone(),
        }
    }

    fn pointer(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that each reference has a type, and that each type is referenced.
    fn check_references(document: &Value, schemas: &str) {
        let known = document.pointer(schemas).and_then(Value::as_object).expect("types");
        let mut found = BTreeSet::new();
        references(document, &mut found);
        let named: BTreeSet<&str> =
            found.iter().filter_map(|pointer| pointer.strip_prefix(&format!("#{schemas}/"))).collect();
        assert_eq!(named.len(), found.len(), "{found:?}");
        let known: BTreeSet<&str> = known.keys().map(String::as_str).collect();
        let missing: Vec<_> = named.difference(&known).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let unused: Vec<_> = known.difference(&named).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn each_served_group_version_has_a_complete_document() {
        let documents = v3();
        let mut described: Vec<_> = documents.iter().map(|(group, version, _)| (*group, *version)).collect();
        let mut served: Vec<_> = Group::ALL
            .into_iter()
            .flat_map(|group| group.versions().iter().map(move |version| (group, *version)))
            .collect();
        described.sort_unstable();
        served.sort_unstable();
        assert_eq!(described, served);
        for (.., document) in &documents {
            check_references(document, "/components/schemas");
        }
        check_references(&v2(), "/definitions");
    }

    #[test]
    fn reference_with_description_is_all_of_in_v3() {
        let (.., v3) = v3().pop().expect("documents");
        let timestamp = |schemas: &Value| {
            schemas["io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics"]["properties"]["timestamp"].clone()
        };
        let name = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
        let described = timestamp(&v3["components"]["schemas"]);
        assert_eq!(described["allOf"], json!([{"$ref": format!("#/components/schemas/{name}")}]));
        let v2 = v2();
        let described = timestamp(&v2["definitions"]);
        assert_eq!(described["$ref"], format!("#/definitions/{name}"));
        assert!(described["description"].is_string());
        let quantity = &v2["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
        assert_eq!(quantity["type"], "string");
    }
}
