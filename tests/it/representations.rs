//! Pods and nodes as tables and as partial metadata.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::member::wire::{ContainerMetrics, NodeMetrics, PodMetrics};
use testkit::member::{Formats, Member, MemberOptions, contract_directory};

use crate::resource_metrics::RESOURCE;
use crate::stage::{CLUSTER_LABEL, Stage};

const TIME: &str = "2023-06-14T09:09:54Z";
const PODS: &str = "/namespaces/default/pods";
const POD: &str = "/namespaces/default/pods/shared-0";

/// The objects of `tests/contract/vectors/partial-metadata.json` in two members. The second member responds in JSON.
async fn stage() -> Stage {
    let json = MemberOptions { formats: Formats::Json, ..MemberOptions::default() };
    let mut members = Vec::new();
    for (name, pod, options) in
        [("member1", "shared-0", MemberOptions::default()), ("member2", "sample-app-1", json)]
    {
        let member = Member::start_with(name, options).await.expect("a member starts");
        let mut usage = PodMetrics::new("default", pod, "30m", "16Mi").label("app", "sample-app");
        TIME.clone_into(&mut usage.metadata.creation_timestamp);
        TIME.clone_into(&mut usage.timestamp);
        let sidecar = [("cpu", "10500u"), ("memory", "4Mi")];
        let sidecar = sidecar.map(|(name, amount)| (name.to_owned(), amount.to_owned())).into();
        usage.containers.push(ContainerMetrics { name: "sidecar".to_owned(), usage: sidecar });
        member.store().set_pod_usage(usage);
        members.push(member);
    }
    let mut node = NodeMetrics::new("n1", "1500m", "1Gi");
    node.metadata.creation_timestamp.clear();
    members[0].store().set_node_usage(node);
    Stage::start(members, &[]).await
}

async fn accept(stage: &Stage, path: &str, accept: &str) -> Answer {
    let headers = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters"), ("Accept", accept)];
    stage.get_with(&format!("{RESOURCE}{path}"), &headers).await
}

fn table(version: &str) -> String {
    format!("application/json;as=Table;v={version};g=meta.k8s.io")
}

fn content_type(response: &Answer) -> &str {
    response.headers["content-type"].to_str().expect("ASCII")
}

#[tokio::test(flavor = "multi_thread")]
async fn table_sums_the_usage_of_all_containers() {
    let stage = stage().await;
    let column = |name: &str, format: &str, description: &str| {
        json!({
            "name": name, "type": "string", "format": format, "description": description, "priority": 0,
        })
    };
    let row = |pod: &str, cluster: &str, version: &str| {
        json!({
            "cells": [pod, "40500u", "20Mi", "15s"],
            "object": {
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": {
                    "name": pod, "namespace": "default", "creationTimestamp": TIME, "labels": {"app": "sample-app"},
                    "annotations": {CLUSTER_LABEL: cluster},
                },
            },
        })
    };
    for version in ["v1", "v1beta1"] {
        let response = accept(&stage, PODS, &table(version)).await;
        assert_eq!((response.status, content_type(&response)), (StatusCode::OK, "application/json"));
        let expected = json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
            "columnDefinitions": [
                column("Name", "name", "Name of the resource"),
                column("cpu", "quantity", ""),
                column("memory", "quantity", ""),
                column("Window", "duration", ""),
            ],
            "rows": [row("sample-app-1", "member2", version), row("shared-0", "member1", version)],
        });
        assert_eq!(response.json().expect("JSON"), expected);
        let one = accept(&stage, POD, &table(version)).await.json().expect("JSON");
        assert_eq!(one["rows"], json!([row("shared-0", "member1", version)]));
    }
    let nodes = accept(&stage, "/nodes", &table("v1")).await.json().expect("JSON");
    assert_eq!(nodes["rows"][0]["cells"], json!(["n1", "1500m", "1Gi", "15s"]));
    let none = accept(&stage, "/namespaces/nowhere/pods", &table("v1")).await.json().expect("JSON");
    assert_eq!((&none["rows"], none["columnDefinitions"].as_array().map(Vec::len)), (&json!([]), Some(4)));
}

#[tokio::test(flavor = "multi_thread")]
async fn include_object_selects_the_object_of_table_rows() {
    let stage = stage().await;
    let object = async |path: &str, include: &str| {
        let response = accept(&stage, &format!("{path}?includeObject={include}"), &table("v1")).await;
        assert_eq!(response.status, StatusCode::OK, "{include}: {:?}", response.body);
        response.json().expect("JSON")["rows"][0]["object"].clone()
    };
    assert_eq!(object(POD, "None").await, Value::Null);
    for include in ["", "Metadata"] {
        assert_eq!(object(POD, include).await["kind"], "PartialObjectMetadata", "{include}");
    }
    let object_alone = stage.get(&format!("{RESOURCE}{POD}")).await.json().expect("JSON");
    assert_eq!(object(POD, "Object").await, object_alone);
    assert_eq!(object("/nodes", "Object").await["kind"], "NodeMetrics");

    let path = format!("{PODS}?includeObject=Everything");
    let wrong = accept(&stage, &path, &table("v1")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let message = "Unable to convert to Table as requested: includeObject: Invalid value: \"Everything\": \
                   must be 'Metadata', 'Object', 'None', or empty";
    assert_eq!(wrong.json().expect("JSON")["message"], message);
    let no_table = accept(&stage, &path, "application/json").await;
    assert_eq!(no_table.status, StatusCode::OK, "the parameter is only for tables");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_json_or_yaml_with_fallback() {
    let stage = stage().await;
    let yaml = accept(&stage, PODS, &table("v1").replace("json", "yaml")).await;
    assert_eq!(content_type(&yaml), "application/yaml");
    let text = str::from_utf8(&yaml.body).expect("text");
    assert!(text.contains("kind: Table\n") && text.contains("- 40500u\n"), "{text}");
    let protobuf = "application/vnd.kubernetes.protobuf";
    for accepted in [
        table("v1").replace("application/json", protobuf),
        table("v2"),
        "application/json;as=Table;v=v1;g=metrics.k8s.io".to_owned(),
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io".to_owned(),
    ] {
        let response = accept(&stage, PODS, &accepted).await;
        assert_eq!(response.status, StatusCode::NOT_ACCEPTABLE, "{accepted}");
        let status = response.json().expect("a Status");
        assert_eq!((&status["kind"], &status["reason"]), (&json!("Status"), &json!("NotAcceptable")));
        let response = accept(&stage, PODS, &format!("{accepted}, application/json")).await;
        assert_eq!(response.json().expect("JSON")["kind"], "PodMetricsList", "{accepted}");
    }
    // With kubectl's Accept header, an error is a Status and not a table.
    let kubectl = format!("{},{},application/json", table("v1"), table("v1beta1"));
    let missing = accept(&stage, "/namespaces/default/pods/ghost", &kubectl).await;
    assert_eq!(missing.json().expect("JSON")["message"], "pods \"ghost\" not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_metadata_in_json_and_protobuf() {
    let stage = stage().await;
    let file = contract_directory().join("vectors/partial-metadata.json");
    let vectors: Value = serde_json::from_slice(&std::fs::read(file).expect("recorded")).expect("JSON");
    let vectors = vectors.as_array().expect("rows");
    assert_eq!(vectors.len(), 4, "an object and a list in two versions");
    for vector in vectors {
        let mut object = vector["object"].clone();
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        let version = object["apiVersion"].as_str().expect("a version").replace("meta.k8s.io/", "");
        let path = if kind == "PartialObjectMetadata" { "/nodes/n1" } else { PODS };
        let parameters = format!("as={kind};v={version};g=meta.k8s.io");
        let json = accept(&stage, path, &format!("application/json;{parameters}")).await;
        assert_eq!(content_type(&json), "application/json");
        // Go writes `null` for a missing time; newer Go omits the field.
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"].as_object_mut().expect("an object").remove("creationTimestamp");
        }
        assert_eq!(json.json().expect("JSON"), object, "{parameters}");

        let media_type = "application/vnd.kubernetes.protobuf";
        let protobuf = accept(&stage, path, &format!("{media_type};{parameters}")).await;
        assert_eq!((protobuf.status, content_type(&protobuf)), (StatusCode::OK, media_type));
        let hex: String = protobuf.body.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, vector["hex"], "{parameters}");
    }
}
