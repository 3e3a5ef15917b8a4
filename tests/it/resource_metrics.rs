//! CPU and memory of the pods and nodes of all clusters. The requests go directly to the adapter.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::member::wire::{NodeMetrics, PodMetrics};
use testkit::member::{Formats, Member, MemberOptions};

use crate::stage::{CLUSTER_LABEL, Stage};

pub const RESOURCE: &str = "/apis/metrics.k8s.io/v1beta1";

/// Starts three members: one responds in protobuf, one in JSON, and one does not serve the API. The first two have a pod and a
/// node of the same name.
async fn stage(flags: &[&str]) -> Stage {
    let json = MemberOptions { formats: Formats::Json, ..MemberOptions::default() };
    let without = MemberOptions { resource_metrics: false, ..MemberOptions::default() };
    let mut members = Vec::new();
    for (name, options) in [("member1", MemberOptions::default()), ("member2", json)] {
        let member = Member::start_with(name, options).await.expect("a member starts");
        let member = member.with_pods("http_requests", 2).with_nodes(1);
        let store = member.store();
        store.set_pod_usage(PodMetrics::new("default", "shared-0", "1m", "1Mi").label("tier", "db"));
        store.set_node_usage(NodeMetrics::new("shared", "1500m", "1Gi"));
        members.push(member);
    }
    members[1].store().set_pod_usage(PodMetrics::new("another", "alone", "2m", "2Mi").label("tier", "db"));
    members.push(Member::start_with("member3", without).await.expect("a member starts"));
    Stage::start(members, flags).await
}

/// The items of a list as `namespace/name@cluster`.
fn named(response: &Answer) -> Vec<String> {
    assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
    assert!(response.warnings().is_empty(), "{:?}", response.warnings());
    let list = response.json().expect("JSON");
    let items = list["items"].as_array().expect("items").iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    items
        .map(|item| {
            let metadata = &item["metadata"];
            let cluster = text(&metadata["annotations"][CLUSTER_LABEL]);
            format!("{}/{}@{cluster}", text(&metadata["namespace"]), text(&metadata["name"]))
        })
        .collect()
}

const ALL_PODS: [&str; 7] = [
    "another/alone@member2",
    "default/sample-app-member1-0001@member1",
    "default/sample-app-member1-0002@member1",
    "default/sample-app-member2-0001@member2",
    "default/sample-app-member2-0002@member2",
    "default/shared-0@member1",
    "default/shared-0@member2",
];

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_nodes_are_sorted_and_name_their_cluster() {
    let stage = stage(&[]).await;
    let pods = stage.get(&format!("{RESOURCE}/pods")).await;
    assert_eq!(named(&pods), ALL_PODS);
    let pods = pods.json().expect("JSON");
    assert_eq!(
        (&pods["kind"], &pods["apiVersion"], &pods["metadata"]),
        (&json!("PodMetricsList"), &json!("metrics.k8s.io/v1beta1"), &json!({}))
    );
    let own = PodMetrics::new("default", "shared-0", "1m", "1Mi").label("tier", "db");
    for (item, cluster) in [(5, "member1"), (6, "member2")] {
        let mut expected = json!(own);
        let item = &pods["items"][item];
        expected["metadata"]["annotations"] = json!({ CLUSTER_LABEL: cluster });
        expected["metadata"]["creationTimestamp"] = item["metadata"]["creationTimestamp"].clone();
        expected["timestamp"] = item["timestamp"].clone();
        assert_eq!(*item, expected, "all other fields are unchanged");
    }
    let nodes = stage.get(&format!("{RESOURCE}/nodes")).await;
    assert_eq!(
        named(&nodes),
        ["/member1-node-1@member1", "/member2-node-1@member2", "/shared@member1", "/shared@member2"]
    );
    let nodes = nodes.json().expect("JSON");
    assert_eq!(nodes["kind"], "NodeMetricsList");
    assert_eq!(nodes["items"][2]["usage"], json!({"cpu": "1500m", "memory": "1Gi"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn annotation_can_be_renamed_and_turned_off() {
    let stage = stage(&["--cluster-label=example.org/cluster"]).await;
    let node = stage.get(&format!("{RESOURCE}/nodes/member2-node-1")).await.json().expect("JSON");
    assert_eq!(node["metadata"]["annotations"], json!({"example.org/cluster": "member2"}));
    let stage = self::stage(&["--cluster-label="]).await;
    let node = stage.get(&format!("{RESOURCE}/nodes/member2-node-1")).await.json().expect("JSON");
    assert_eq!(node["metadata"].get("annotations"), None);
}

/// Members of the test kit ignore field selectors.
#[tokio::test(flavor = "multi_thread")]
async fn selectors_are_applied_even_if_members_ignore_them() {
    let stage = stage(&[]).await;
    let node = "kubernetes.io%2Fhostname";
    for (path, expected) in [
        ("/namespaces/default/pods", &ALL_PODS[1..]),
        ("/namespaces/another/pods", &ALL_PODS[..1]),
        ("/namespaces/nowhere/pods", &[]),
        ("/pods?labelSelector=app%3Dsample-app", &ALL_PODS[1..5]),
        ("/pods?labelSelector=tier+in+(db,web),app!%3Dsample-app", &[ALL_PODS[0], ALL_PODS[5], ALL_PODS[6]]),
        ("/pods?labelSelector=absent", &[]),
        ("/pods?fieldSelector=metadata.name%3Dshared-0", &ALL_PODS[5..]),
        ("/pods?fieldSelector=metadata.name%3D%3Dalone,metadata.namespace%3Danother", &ALL_PODS[..1]),
        ("/pods?fieldSelector=metadata.name%3Dalone,metadata.namespace%3Ddefault", &[]),
        (
            "/namespaces/default/pods?fieldSelector=metadata.name!%3Dshared-0&labelSelector=app",
            &ALL_PODS[1..5],
        ),
        ("/pods?fieldSelector=metadata.namespace!%3Ddefault", &ALL_PODS[..1]),
        (&format!("/nodes?labelSelector={node}%3Dmember1-node-1"), &["/member1-node-1@member1"]),
        ("/nodes?fieldSelector=metadata.name%3Dshared", &["/shared@member1", "/shared@member2"]),
        ("/nodes?fieldSelector=metadata.namespace%3Ddefault", &[]),
    ] {
        assert_eq!(named(&stage.get(&format!("{RESOURCE}{path}")).await), expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_selector_is_rejected_with_gos_text() {
    let stage = stage(&[]).await;
    for (selector, words) in [
        ("labelSelector=%3D%3D", "found '==', expected: !, identifier, or 'end of string'"),
        ("labelSelector=a+in+b", "unable to parse requirement: found 'b' expected: '('"),
        (
            "fieldSelector=metadata.name",
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
        ),
        (
            "fieldSelector=spec.nodeName%3Dn",
            "\"spec.nodeName\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        ("fieldSelector=metadata.name%3Da%3Db", "invalid field selector: unescaped character in value: 61"),
    ] {
        for resource in ["pods", "nodes"] {
            let response = stage.get(&format!("{RESOURCE}/{resource}?{selector}")).await;
            let body = response.json().expect("JSON");
            assert_eq!(response.status, StatusCode::BAD_REQUEST, "{selector}: {body}");
            assert_eq!((&body["reason"], &body["message"]), (&json!("BadRequest"), &json!(words)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_rejected_and_never_sent_to_members() {
    let stage = stage(&["--discovery-interval=1h"]).await;
    stage.member(0).reset_counters();
    for (path, kind) in [
        ("/pods?watch=true", "pods"),
        ("/namespaces/default/pods?watch=1&limit=500", "pods"),
        ("/nodes?watch", "nodes"),
    ] {
        let response = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(response.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let body = response.json().expect("JSON");
        assert_eq!(body["reason"], "MethodNotAllowed");
        let message = format!("watch is not supported on resources of kind \"{kind}.metrics.k8s.io\"");
        assert_eq!(body["message"], message);
        assert_eq!(body["details"], json!({"group": "metrics.k8s.io", "kind": kind}));
    }
    assert_eq!(stage.member(0).counters().requests, 0);
    let list = stage.get(&format!("{RESOURCE}/pods?watch=false")).await;
    assert_eq!(named(&list), ALL_PODS);
    let one = stage.get(&format!("{RESOURCE}/namespaces/another/pods/alone?watch=true")).await;
    assert_eq!(one.status, StatusCode::OK, "watch is ignored for a single object");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_complete_even_with_a_limit() {
    let stage = stage(&["--discovery-interval=1h"]).await;
    let member = stage.member(0);
    member.reset_counters();
    let path =
        format!("{RESOURCE}/namespaces/default/pods?limit=1&continue=abc&resourceVersion=0&timeout=20s");
    let response = stage.get(&path).await;
    assert_eq!(named(&response), ALL_PODS[1..]);
    assert_eq!(response.json().expect("JSON")["metadata"], json!({}), "no continue token");
    let selectors = "labelSelector=app%3Dsample-app&fieldSelector=metadata.name%21%3Da";
    stage.get(&format!("{RESOURCE}/pods?limit=500&{selectors}")).await;
    let sent: Vec<String> = member.requests().into_iter().map(|request| request.path_and_query).collect();
    assert_eq!(sent, [format!("{RESOURCE}/namespaces/default/pods"), format!("{RESOURCE}/pods?{selectors}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_or_node_by_name_comes_from_its_cluster() {
    let stage = stage(&[]).await;
    for (path, kind, cluster) in [
        ("/namespaces/default/pods/sample-app-member1-0002", "PodMetrics", "member1"),
        ("/namespaces/another/pods/alone", "PodMetrics", "member2"),
        ("/nodes/member2-node-1", "NodeMetrics", "member2"),
    ] {
        let response = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(response.status, StatusCode::OK, "{path}: {:?}", response.body);
        let body = response.json().expect("JSON");
        assert_eq!(
            (&body["kind"], &body["apiVersion"]),
            (&json!(kind), &json!("metrics.k8s.io/v1beta1")),
            "{path}"
        );
        assert_eq!(body["metadata"]["annotations"][CLUSTER_LABEL], cluster, "{path}");
    }
    for (path, kind, name) in
        [("/namespaces/default/pods/shared-0", "pods", "shared-0"), ("/nodes/shared", "nodes", "shared")]
    {
        let response = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(response.status, StatusCode::CONFLICT, "{path}");
        let body = response.json().expect("JSON");
        assert_eq!(
            (&body["reason"], &body["details"]),
            (&json!("Conflict"), &json!({"name": name, "kind": kind}))
        );
        let message = format!(
            "Operation cannot be fulfilled on {kind} \"{name}\": it is in more than one cluster: member1, member2; \
             list {kind} to see all of them"
        );
        assert_eq!(body["message"], message);
    }
    for (path, kind, name) in
        [("/namespaces/another/pods/shared-0", "pods", "shared-0"), ("/nodes/ghost", "nodes", "ghost")]
    {
        let response = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(response.status, StatusCode::NOT_FOUND, "{path}");
        let expected = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
            "reason": "NotFound", "message": format!("{kind} \"{name}\" not found"),
            "details": {"name": name, "kind": kind},
        });
        assert_eq!(response.json().expect("JSON"), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_empty_if_no_cluster_serves_resource_metrics() {
    let without = MemberOptions { resource_metrics: false, ..MemberOptions::default() };
    let members = vec![
        Member::start("empty").await.expect("a member starts"),
        Member::start_with("without", without).await.expect("a member starts"),
    ];
    let stage = Stage::start(members, &[]).await;
    for (path, kind) in [("/pods", "PodMetricsList"), ("/nodes", "NodeMetricsList")] {
        let response = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(named(&response), [""; 0]);
        let expected =
            json!({"kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": []});
        assert_eq!(response.json().expect("JSON"), expected);
    }
    let none = Stage::start(Vec::new(), &[]).await;
    assert_eq!(named(&none.get(&format!("{RESOURCE}/pods")).await), [""; 0], "a fleet without clusters");
}

#[tokio::test(flavor = "multi_thread")]
async fn field_selector_name_is_sent_to_authorization() {
    let stage = stage(&[]).await;
    stage.fleet.plane.allow("alice", &["list"], "metrics.k8s.io", &["pods"]);
    let alice = [("X-Remote-User", "alice")];
    let review = async |path: &str| {
        stage.fleet.plane.clear_reviews();
        let status = stage.get_with(&format!("{RESOURCE}{path}"), &alice).await.status;
        let reviews = stage.fleet.plane.reviews();
        // The aggregation layer also causes reviews, for discovery.
        let own = reviews.iter().find(|review| review.spec["user"] == "alice").expect("a review");
        (status, own.spec["resourceAttributes"].clone())
    };
    let (status, attributes) =
        review("/namespaces/default/pods?fieldSelector=metadata.name%3Dshared-0").await;
    assert_eq!(status, StatusCode::OK);
    let expected = json!({
        "verb": "list", "group": "metrics.k8s.io", "version": "v1beta1", "resource": "pods",
        "namespace": "default", "name": "shared-0",
    });
    assert_eq!(attributes, expected);
    let (_, attributes) = review("/pods?fieldSelector=metadata.name!%3Dshared-0").await;
    assert_eq!((attributes.get("name"), attributes.get("namespace")), (None, None));
    assert_eq!(review("/nodes").await.0, StatusCode::FORBIDDEN);
    assert_eq!(review("/pods?watch=1").await.0, StatusCode::FORBIDDEN, "watch is a separate permission");
    assert_eq!(
        review("/namespaces/default/pods/shared-0").await.0,
        StatusCode::FORBIDDEN,
        "get is a separate permission"
    );
}
