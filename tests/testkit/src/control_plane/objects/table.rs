//! Tables: the columns that `kubectl get` prints.

use std::sync::Arc;

use serde_json::{Value, json};

use super::resources::Resource;
use crate::timestamp;

/// A column between NAME and AGE: heading and function for its cell.
type Column = (&'static str, fn(&Value) -> Value);

const CLUSTER: &[Column] = &[
    ("Version", |cluster| cluster["status"]["kubernetesVersion"].clone()),
    ("Mode", |cluster| cluster["spec"]["syncMode"].clone()),
    ("Ready", |cluster| condition(cluster, "Ready")["status"].clone()),
];
const API_SERVICE: &[Column] = &[
    ("Service", |service| match &service["spec"]["service"] {
        Value::Null => json!("Local"),
        reference => json!(format!("{}/{}", plain(&reference["namespace"]), plain(&reference["name"]))),
    }),
    ("Available", |service| {
        let available = condition(service, "Available");
        match available["status"].as_str() {
            Some("False") => json!(format!("False ({})", plain(&available["reason"]))),
            _ => available["status"].clone(),
        }
    }),
];
const DATA: &[Column] =
    &[("Data", |object| json!(object["data"].as_object().map_or(0, serde_json::Map::len)))];

/// A `meta.k8s.io/v1` Table of `objects`. The list metadata comes from `document`.
pub(crate) fn of(resource: &Resource, document: &Value, objects: &[Arc<Value>]) -> Value {
    let columns = match resource.kind {
        "Cluster" => CLUSTER,
        "APIService" => API_SERVICE,
        "Secret" | "ConfigMap" => DATA,
        _ => &[],
    };
    let headings = ["Name"].into_iter().chain(columns.iter().map(|(heading, _)| *heading)).chain(["Age"]);
    let definitions = headings.map(|name| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0})
    });
    let rows = objects.iter().map(|object| {
        let mut cells = vec![object["metadata"]["name"].clone()];
        cells.extend(columns.iter().map(|(_, cell)| cell(object)));
        cells.push(age(object));
        let partial = json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
        });
        json!({"cells": cells, "object": partial})
    });
    let mut metadata = json!({"resourceVersion": document["metadata"]["resourceVersion"]});
    if let Some(token) = document["metadata"].get("continue") {
        metadata["continue"] = token.clone();
    }
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions.collect::<Vec<_>>(),
        "rows": rows.collect::<Vec<_>>(),
    })
}

fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .and_then(|all| all.iter().find(|condition| condition["type"] == kind))
        .cloned()
        .unwrap_or_default()
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn age(object: &Value) -> Value {
    let created = object["metadata"]["creationTimestamp"].as_str().and_then(timestamp::parse);
    let Some(created) = created else { return json!("<unknown>") };
    let seconds = (timestamp::now() - created).max(0);
    json!(match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    })
}
