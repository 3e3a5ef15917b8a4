//! OpenAPI of the aggregated APIs, for kubectl. Differences from kube-apiserver: the control plane's own types are not
//! described, and a backend without v3 has no v3 document. kube-apiserver would convert its v2 document.

mod protobuf;

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::Plane;
use super::discovery::VERSION;
use super::reply::json_response;
use crate::https::{Body, full, response};

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const TITLE: &str = "Kubernetes";

/// Responds to `/openapi/v2` and `/openapi/v3`. The documents that the latter lists come from the backends.
pub(super) fn answer(plane: &Plane, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    match path {
        "/openapi/v2" => {
            let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let document = merged(plane);
            if accept.starts_with("application/com.github.proto-openapi.spec.v2") {
                return Some(response(StatusCode::OK, PROTOBUF, full(protobuf::encode(&document))));
            }
            Some(json_response(StatusCode::OK, &document))
        }
        "/openapi/v3" => {
            let mut paths = Map::new();
            for service in plane.aggregation.services() {
                if let Value::Object(known) = service.openapi_v3() {
                    paths.extend(known);
                }
            }
            Some(json_response(StatusCode::OK, &json!({"paths": paths})))
        }
        _ => None,
    }
}

/// Follows `specAggregator`: for each APIService, merges the paths of its version and the definitions that they refer to from
/// its backend. Definitions with the same name count as equal.
fn merged(plane: &Plane) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for service in plane.aggregation.services() {
        let document = service.openapi_v2();
        let prefix = format!("/apis/{}/{}/", service.group, service.version);
        let known = document["paths"].as_object().into_iter().flatten();
        for (path, operations) in known.filter(|(path, _)| path.starts_with(&prefix)) {
            add_referenced(operations, &document["definitions"], &mut definitions);
            paths.insert(path.clone(), operations.clone());
        }
    }
    json!({
        "swagger": "2.0", "info": {"title": TITLE, "version": VERSION}, "paths": paths, "definitions": definitions,
    })
}

/// Adds the definitions that a value refers to, directly or indirectly.
fn add_referenced(value: &Value, known: &Value, found: &mut Map<String, Value>) {
    match value {
        Value::Object(fields) => {
            let pointer = fields.get("$ref").and_then(Value::as_str);
            if let Some(name) = pointer.and_then(|pointer| pointer.strip_prefix("#/definitions/"))
                && !found.contains_key(name)
                && let Some(definition) = known.get(name)
            {
                found.insert(name.to_owned(), definition.clone());
                add_referenced(definition, known, found);
            }
            fields.values().for_each(|field| add_referenced(field, known, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| add_referenced(element, known, found)),
        _ => {}
    }
}
