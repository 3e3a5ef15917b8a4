//! Discovery as kubectl and kube-apiserver use it.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::fleet::PREFERRED;
use testkit::member::{Fault, Member, Resource, ScriptedAnswer, Series};

use crate::stage::{GENEROUS, Stage, members};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

#[tokio::test(flavor = "multi_thread")]
async fn each_path_and_media_type_has_a_tag_of_its_own_that_saves_the_body() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let master = ("X-Remote-Group", "system:masters");
    let mut tags = Vec::new();
    for (path, accept) in [
        ("/apis", "application/json"),
        ("/apis", AGGREGATED),
        ("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        ("/apis/custom.metrics.k8s.io", "*/*"),
        ("/apis/custom.metrics.k8s.io/v1beta1", "*/*"),
        (CUSTOM, "*/*"),
        ("/apis/external.metrics.k8s.io", "*/*"),
        (EXTERNAL, "*/*"),
        ("/apis/metrics.k8s.io", "*/*"),
        ("/apis/metrics.k8s.io/v1beta1", "*/*"),
    ] {
        let headers = [("X-Remote-User", "admin"), master, ("Accept", accept)];
        let first = stage.get_with(path, &headers).await;
        assert_eq!(first.status, StatusCode::OK);
        let tag = first.headers["etag"].to_str().expect("ASCII").to_owned();
        let again = [("X-Remote-User", "admin"), master, ("Accept", accept), ("If-None-Match", tag.as_str())];
        let again = stage.get_with(path, &again).await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path} {accept}");
        tags.push(tag);
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn older_servers_get_the_document_that_they_ask_for() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let headers = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters"), ("Accept", AGGREGATED)];
    let answer = stage.get_with("/apis", &headers).await;
    assert_eq!(answer.headers["content-type"], AGGREGATED);
    assert_eq!(answer.json().expect("JSON")["apiVersion"], "apidiscovery.k8s.io/v2beta1");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_groups_and_versions_are_not_there_and_nothing_can_be_posted() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    for path in ["/apis/apps", "/apis/apps/v1", "/apis/metrics.k8s.io/v1", "/apis/metrics.k8s.io%2Fv1beta1"] {
        assert_eq!(stage.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let master = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
    let posted = stage.send("POST", EXTERNAL, &master, "{}").await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_without_metrics_is_available_and_lists_placeholders() {
    let stage = Stage::start(vec![Member::start("empty").await.expect("a member starts")], &[]).await;
    for path in [CUSTOM, EXTERNAL] {
        assert_eq!(listed(&stage, path).await, ["metrics/none-discovered-yet"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn external_metrics_of_all_members_are_listed_sorted_and_once() {
    let members = members(3, 1).await;
    lists_external(&members[0], &["queue_ready", "http_errors"]);
    // As KEDA does, whatever it scales on.
    lists_external(&members[1], &["externalmetrics"]);
    lists_external(&members[2], &["queue_ready"]);
    let stage = Stage::start(members, &["--discovery-interval=100ms"]).await;
    let expected = ["externalmetrics", "http_errors", "queue_ready"];
    until_each_turn_lists(&stage, EXTERNAL, &expected).await;
    assert_eq!(listed(&stage, EXTERNAL).await, expected);
    let headers = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters"), ("Accept", AGGREGATED)];
    let document = stage.get_with("/apis", &headers).await.json().expect("JSON");
    let resources = document["items"][1]["versions"][0]["resources"].as_array().expect("a list");
    assert_eq!(resources.iter().map(|one| &one["resource"]).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_fails_leaves_what_is_known_of_it_and_learned_of_the_other() {
    let members = members(1, 1).await;
    lists_external(&members[0], &["queue_ready"]);
    let stage = Stage::start(members, &["--discovery-interval=100ms", "--member-timeout=1s"]).await;
    until_each_turn_lists(&stage, EXTERNAL, &["queue_ready"]).await;
    let member = stage.member(0);
    member.fault_on(EXTERNAL, Fault::Hang);
    member.set_metric(Series::new(Resource::SERVICES, Some("default"), "front", "hits", "1"));
    until_each_turn_lists(&stage, CUSTOM, &["services/hits"]).await;
    stage.logged("discovery failed", 1).await;
    assert_eq!(listed(&stage, EXTERNAL).await, ["queue_ready"]);
    member.heal();
    member.fault_on(CUSTOM, Fault::Status(StatusCode::SERVICE_UNAVAILABLE, "ill".to_owned()));
    lists_external(member, &["queue_ready", "queue_unacknowledged"]);
    until_each_turn_lists(&stage, EXTERNAL, &["queue_unacknowledged"]).await;
    assert!(listed(&stage, CUSTOM).await.contains(&"services/hits".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_that_a_member_has_answered_is_listed_at_once_and_fails_from_then_on() {
    const HITS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/*/hits";
    let flags = ["--discovery-interval=1h", "--on-member-failure=partial"];
    let stage = Stage::start(members(2, 1).await, &flags).await;
    let failing = Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "no services".to_owned());
    stage.fleet.members.iter().for_each(|member| member.fault_on(HITS, failing.clone()));
    assert_eq!(stage.get(HITS).await.status, StatusCode::NOT_FOUND, "nobody lists it");
    stage.member(0).heal();
    stage.member(0).set_metric(Series::new(Resource::SERVICES, Some("default"), "front", "hits", "1"));
    assert_eq!(stage.get(HITS).await.status, StatusCode::OK);
    until_custom_metric_appears(&stage, "services/hits").await;
    stage.member(0).fault_on(HITS, failing);
    assert_eq!(stage.get(HITS).await.status, StatusCode::SERVICE_UNAVAILABLE, "one of them has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovery_that_failed_is_soon_repeated() {
    let members = members(1, 1).await;
    members[0].fault_on(CUSTOM, Fault::Status(StatusCode::SERVICE_UNAVAILABLE, "ill".to_owned()));
    let stage = Stage::start(members, &["--discovery-interval=1h"]).await;
    stage.logged("discovery failed", 1).await;
    stage.member(0).heal();
    stage.logged("discovery works again", 1).await;
    until_custom_metric_appears(&stage, "pods/http_requests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_gone_takes_its_metrics_along() {
    let members = members(1, 1).await;
    lists_external(&members[0], &["queue_ready"]);
    let stage = Stage::start(members, &["--discovery-interval=100ms"]).await;
    until_each_turn_lists(&stage, EXTERNAL, &["queue_ready"]).await;
    stage.member(0).fault_on(EXTERNAL, Fault::Status(StatusCode::NOT_FOUND, "404 page not found".to_owned()));
    until_each_turn_lists(&stage, EXTERNAL, &["metrics/none-discovered-yet"]).await;
    assert!(listed(&stage, CUSTOM).await.contains(&"pods/http_requests".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_metrics_and_resources_through_the_aggregation_layer() {
    let stage = Stage::start(members(2, 2).await, &[]).await;
    let kubeconfig = stage.fleet.plane.admin_kubeconfig().expect("a kubeconfig");
    stage.fleet.plane.poll_discovery_now(PREFERRED).await.expect("a registered APIService");
    for kubectl in testkit::kubectls(&kubeconfig) {
        let path = format!("{CUSTOM}/namespaces/default/pods/*/http_requests");
        let raw = kubectl.run(&["get", "--raw", &path]).await.expect("kubectl reads it");
        let list: Value = serde_json::from_str(&raw).expect("JSON");
        assert_eq!(list["items"].as_array().map(Vec::len), Some(4), "{kubectl}");
        let versions = kubectl.run(&["api-versions"]).await.expect("kubectl lists it");
        let both = "custom.metrics.k8s.io/v1beta1\ncustom.metrics.k8s.io/v1beta2\n";
        assert!(versions.contains(both), "{kubectl}: {versions}");
        kubectl.run(&["api-resources"]).await.expect("kubectl finds nothing amiss");
    }
}

/// Lets a member have these external metrics.
fn lists_external(member: &Member, names: &[&str]) {
    let entry = |name: &&str| {
        json!({
            "name": name, "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList", "verbs": ["get"],
        })
    };
    let resources: Vec<Value> = names.iter().map(entry).collect();
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1",
        "resources": resources,
    });
    member.answer(EXTERNAL, ScriptedAnswer::json(StatusCode::OK, &list));
}

/// The names that a group version lists.
async fn listed(stage: &Stage, path: &str) -> Vec<String> {
    let list = stage.get(path).await.json().expect("JSON");
    let entries = list["resources"].as_array().expect("a list").iter();
    entries.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
}

/// Waits until a custom metric is listed that its member has told of.
async fn until_custom_metric_appears(stage: &Stage, name: &str) {
    let appears = async { while !listed(stage, CUSTOM).await.iter().any(|known| known == name) {} };
    tokio::time::timeout(GENEROUS, appears).await.expect("it is listed");
}

/// Waits until these names are listed; each look at the list takes a turn of the first member's discovery.
async fn until_each_turn_lists(stage: &Stage, path: &str, names: &[&str]) {
    let member = stage.member(0);
    let appear = async {
        loop {
            let asked = member.requests_to(path).len();
            let listed = listed(stage, path).await;
            if names.iter().all(|name| listed.iter().any(|known| known == name)) {
                return;
            }
            member.until(|_| member.requests_to(path).len() > asked).await;
        }
    };
    tokio::time::timeout(GENEROUS, appear).await.expect("they are listed");
}
