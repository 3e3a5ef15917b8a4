//! CPU and memory of the pods and nodes of all clusters, asked of the adapter itself.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::api_client::Answer;
use testkit::member::wire::{NodeMetrics, PodMetrics};
use testkit::member::{Formats, Member, MemberOptions};

use crate::stage::{CLUSTER_LABEL, Stage};

pub const RESOURCE: &str = "/apis/metrics.k8s.io/v1beta1";

/// A member that answers in protobuf and one that answers in JSON, which share a pod and a node, and one without the API.
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
fn named(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    assert!(answer.warnings().is_empty(), "{:?}", answer.warnings());
    let list = answer.json().expect("JSON");
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
async fn pods_and_nodes_of_all_clusters_are_listed_in_order_and_say_where_they_are() {
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
        assert_eq!(*item, expected, "all else is the member's own");
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
async fn the_annotation_can_be_renamed_and_left_out() {
    let stage = stage(&["--cluster-label=example.org/cluster"]).await;
    let node = stage.get(&format!("{RESOURCE}/nodes/member2-node-1")).await.json().expect("JSON");
    assert_eq!(node["metadata"]["annotations"], json!({"example.org/cluster": "member2"}));
    let stage = self::stage(&["--cluster-label="]).await;
    let node = stage.get(&format!("{RESOURCE}/nodes/member2-node-1")).await.json().expect("JSON");
    assert_eq!(node["metadata"].get("annotations"), None);
}

/// Members of the kit know nothing of field selectors.
#[tokio::test(flavor = "multi_thread")]
async fn selectors_choose_whatever_members_make_of_them() {
    let stage = stage(&[]).await;
    let node = "kubernetes.io%2Fhostname";
    for (path, expected) in [
        ("/namespaces/default/pods", &ALL_PODS[1..]),
        ("/namespaces/another/pods", &ALL_PODS[..1]),
        ("/namespaces/nowhere/pods", &[]),
        ("/pods?labelSelector=app%3Dsample-app", &ALL_PODS[1..5]),
        ("/pods?labelSelector=tier+in+(db,web),app!%3Dsample-app", &[ALL_PODS[0], ALL_PODS[5], ALL_PODS[6]]),
        ("/pods?labelSelector=nobody", &[]),
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
async fn a_selector_that_cannot_be_read_is_refused_in_gos_words() {
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
            let answer = stage.get(&format!("{RESOURCE}/{resource}?{selector}")).await;
            let body = answer.json().expect("JSON");
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{selector}: {body}");
            assert_eq!((&body["reason"], &body["message"]), (&json!("BadRequest"), &json!(words)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_refused_and_members_never_asked_for_one() {
    let stage = stage(&["--discovery-interval=1h"]).await;
    stage.member(0).reset_counters();
    for (path, kind) in [
        ("/pods?watch=true", "pods"),
        ("/namespaces/default/pods?watch=1&limit=500", "pods"),
        ("/nodes?watch", "nodes"),
    ] {
        let answer = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let body = answer.json().expect("JSON");
        assert_eq!(body["reason"], "MethodNotAllowed");
        let message = format!("watch is not supported on resources of kind \"{kind}.metrics.k8s.io\"");
        assert_eq!(body["message"], message);
        assert_eq!(body["details"], json!({"group": "metrics.k8s.io", "kind": kind}));
    }
    assert_eq!(stage.member(0).counters().requests, 0);
    let whole = stage.get(&format!("{RESOURCE}/pods?watch=false")).await;
    assert_eq!(named(&whole), ALL_PODS);
    let one = stage.get(&format!("{RESOURCE}/namespaces/another/pods/alone?watch=true")).await;
    assert_eq!(one.status, StatusCode::OK, "of one object there is no watch to refuse");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_whole_however_small_the_chunks_that_are_asked_for() {
    let stage = stage(&["--discovery-interval=1h"]).await;
    let member = stage.member(0);
    member.reset_counters();
    let path =
        format!("{RESOURCE}/namespaces/default/pods?limit=1&continue=abc&resourceVersion=0&timeout=20s");
    let answer = stage.get(&path).await;
    assert_eq!(named(&answer), ALL_PODS[1..]);
    assert_eq!(answer.json().expect("JSON")["metadata"], json!({}), "nothing to go on with");
    let selectors = "labelSelector=app%3Dsample-app&fieldSelector=metadata.name%21%3Da";
    stage.get(&format!("{RESOURCE}/pods?limit=500&{selectors}")).await;
    let asked: Vec<String> = member.requests().into_iter().map(|request| request.path_and_query).collect();
    assert_eq!(
        asked,
        [format!("{RESOURCE}/namespaces/default/pods"), format!("{RESOURCE}/pods?{selectors}")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_or_node_by_name_is_that_of_the_one_cluster_that_has_it() {
    let stage = stage(&[]).await;
    for (path, kind, cluster) in [
        ("/namespaces/default/pods/sample-app-member1-0002", "PodMetrics", "member1"),
        ("/namespaces/another/pods/alone", "PodMetrics", "member2"),
        ("/nodes/member2-node-1", "NodeMetrics", "member2"),
    ] {
        let answer = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.body);
        let body = answer.json().expect("JSON");
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
        let answer = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{path}");
        let body = answer.json().expect("JSON");
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
        let answer = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        let expected = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
            "reason": "NotFound", "message": format!("{kind} \"{name}\" not found"),
            "details": {"name": name, "kind": kind},
        });
        assert_eq!(answer.json().expect("JSON"), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_cluster_measures_lists_are_empty() {
    let without = MemberOptions { resource_metrics: false, ..MemberOptions::default() };
    let members = vec![
        Member::start("empty").await.expect("a member starts"),
        Member::start_with("without", without).await.expect("a member starts"),
    ];
    let stage = Stage::start(members, &[]).await;
    for (path, kind) in [("/pods", "PodMetricsList"), ("/nodes", "NodeMetricsList")] {
        let answer = stage.get(&format!("{RESOURCE}{path}")).await;
        assert_eq!(named(&answer), [""; 0]);
        let expected =
            json!({"kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": []});
        assert_eq!(answer.json().expect("JSON"), expected);
    }
    let none = Stage::start(Vec::new(), &[]).await;
    assert_eq!(named(&none.get(&format!("{RESOURCE}/pods")).await), [""; 0], "nor is there any cluster");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_selector_for_one_name_is_what_authorization_is_asked_about() {
    let stage = stage(&[]).await;
    stage.fleet.plane.allow("alice", &["list"], "metrics.k8s.io", &["pods"]);
    let alice = [("X-Remote-User", "alice")];
    let asked = async |path: &str| {
        stage.fleet.plane.clear_reviews();
        let status = stage.get_with(&format!("{RESOURCE}{path}"), &alice).await.status;
        let reviews = stage.fleet.plane.reviews();
        // Others ask meanwhile: the aggregation layer does for discovery.
        let own = reviews.iter().find(|review| review.spec["user"] == "alice").expect("a review");
        (status, own.spec["resourceAttributes"].clone())
    };
    let (status, attributes) = asked("/namespaces/default/pods?fieldSelector=metadata.name%3Dshared-0").await;
    assert_eq!(status, StatusCode::OK);
    let expected = json!({
        "verb": "list", "group": "metrics.k8s.io", "version": "v1beta1", "resource": "pods",
        "namespace": "default", "name": "shared-0",
    });
    assert_eq!(attributes, expected);
    let (_, attributes) = asked("/pods?fieldSelector=metadata.name!%3Dshared-0").await;
    assert_eq!((attributes.get("name"), attributes.get("namespace")), (None, None));
    assert_eq!(asked("/nodes").await.0, StatusCode::FORBIDDEN);
    assert_eq!(asked("/pods?watch=1").await.0, StatusCode::FORBIDDEN, "to watch is another right");
    assert_eq!(asked("/namespaces/default/pods/shared-0").await.0, StatusCode::FORBIDDEN, "so is to get");
}
