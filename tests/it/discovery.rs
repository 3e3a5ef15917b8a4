//! Discovery by kubectl and kube-apiserver.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::fleet::PREFERRED;
use testkit::member::{Fault, Member, Resource, ScriptedAnswer, Series};

use crate::stage::{GENEROUS, Stage, members};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";

#[tokio::test(flavor = "multi_thread")]
async fn etag_is_per_path_and_media_type_and_allows_304() {
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
async fn old_discovery_media_types_are_served() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let headers = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters"), ("Accept", AGGREGATED)];
    let response = stage.get_with("/apis", &headers).await;
    assert_eq!(response.headers["content-type"], AGGREGATED);
    assert_eq!(response.json().expect("JSON")["apiVersion"], "apidiscovery.k8s.io/v2beta1");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_groups_are_404_and_post_is_405() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    for path in ["/apis/apps", "/apis/apps/v1", "/apis/metrics.k8s.io/v1", "/apis/metrics.k8s.io%2Fv1beta1"] {
        assert_eq!(stage.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let master = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
    let posted = stage.send("POST", EXTERNAL, &master, "{}").await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn fleet_without_metrics_is_available_with_placeholders() {
    let stage = Stage::start(vec![Member::start("empty").await.expect("a member starts")], &[]).await;
    for path in [CUSTOM, EXTERNAL] {
        assert_eq!(listed(&stage, path).await, ["metrics/none-discovered-yet"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn external_metrics_are_merged_sorted_and_unique() {
    let members = members(3, 1).await;
    lists_external(&members[0], &["queue_ready", "http_errors"]);
    // KEDA always lists this name.
    lists_external(&members[1], &["externalmetrics"]);
    lists_external(&members[2], &["queue_ready"]);
    let stage = Stage::start(members, &["--discovery-interval=100ms"]).await;
    let expected = ["externalmetrics", "http_errors", "queue_ready"];
    until_discovery_lists(&stage, EXTERNAL, &expected).await;
    assert_eq!(listed(&stage, EXTERNAL).await, expected);
    let headers = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters"), ("Accept", AGGREGATED)];
    let document = stage.get_with("/apis", &headers).await.json().expect("JSON");
    let resources = document["items"][1]["versions"][0]["resources"].as_array().expect("a list");
    assert_eq!(resources.iter().map(|entry| &entry["resource"]).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_api_keeps_its_known_metrics() {
    let members = members(1, 1).await;
    lists_external(&members[0], &["queue_ready"]);
    let stage = Stage::start(members, &["--discovery-interval=100ms", "--member-timeout=1s"]).await;
    until_discovery_lists(&stage, EXTERNAL, &["queue_ready"]).await;
    let member = stage.member(0);
    member.fault_on(EXTERNAL, Fault::Hang);
    member.set_metric(Series::new(Resource::SERVICES, Some("default"), "front", "hits", "1"));
    until_discovery_lists(&stage, CUSTOM, &["services/hits"]).await;
    stage.logged("discovery failed", 1).await;
    assert_eq!(listed(&stage, EXTERNAL).await, ["queue_ready"]);
    member.clear_faults();
    member.fault_on(CUSTOM, Fault::Status(StatusCode::SERVICE_UNAVAILABLE, "unavailable".to_owned()));
    lists_external(member, &["queue_ready", "queue_unacknowledged"]);
    until_discovery_lists(&stage, EXTERNAL, &["queue_unacknowledged"]).await;
    assert!(listed(&stage, CUSTOM).await.contains(&"services/hits".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn returned_metric_is_listed_and_its_failure_is_not_404() {
    const HITS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/*/hits";
    let flags = ["--discovery-interval=1h", "--on-member-failure=partial"];
    let stage = Stage::start(members(2, 1).await, &flags).await;
    let failing = Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "no services".to_owned());
    stage.fleet.members.iter().for_each(|member| member.fault_on(HITS, failing.clone()));
    assert_eq!(stage.get(HITS).await.status, StatusCode::NOT_FOUND, "no member lists the metric");
    stage.member(0).clear_faults();
    stage.member(0).set_metric(Series::new(Resource::SERVICES, Some("default"), "front", "hits", "1"));
    assert_eq!(stage.get(HITS).await.status, StatusCode::OK);
    until_custom_metric_appears(&stage, "services/hits").await;
    stage.member(0).fault_on(HITS, failing);
    assert_eq!(
        stage.get(HITS).await.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "a member is known to have the metric"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn returned_metric_stays_listed_although_discovery_omits_it() {
    const HITS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/*/hits";
    let members = members(1, 1).await;
    members[0].set_metric(Series::new(Resource::SERVICES, Some("default"), "front", "hits", "1"));
    lists_custom(&members[0], &["pods/http_requests"]);
    let flags = ["--discovery-interval=100ms", "--on-member-failure=fail"];
    let stage = Stage::start(members, &flags).await;
    until_discovery_lists(&stage, CUSTOM, &["pods/http_requests"]).await;
    assert_eq!(stage.get(HITS).await.status, StatusCode::OK);
    stage.member(0).fault_on(HITS, Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "overload".to_owned()));
    for _ in 0..2 {
        until_next_discovery(&stage).await;
        let names = listed(&stage, CUSTOM).await;
        assert!(names.contains(&"services/hits".to_owned()), "{names:?}");
        assert_eq!(
            stage.get(HITS).await.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "the member had the metric"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn list_without_metrics_does_not_prove_that_a_metric_is_missing() {
    const LATENCY: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/*/latency";
    const HITS: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/*/hits";
    let members = members(1, 0).await;
    members[0].set_metric(Series::new(Resource::SERVICES, Some("default"), "front", "hits", "1"));
    lists_custom(&members[0], &[]);
    let stage = Stage::start(members, &["--discovery-interval=1h"]).await;
    let failing = Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "overload".to_owned());
    stage.member(0).fault_on(LATENCY, failing);
    assert_eq!(stage.get(LATENCY).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(stage.get(HITS).await.status, StatusCode::OK);
    assert_eq!(stage.get(LATENCY).await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn metric_is_listed_when_its_first_response_arrives() {
    let stage = Stage::start(members(1, 1).await, &["--discovery-interval=1h"]).await;
    until_discovery_lists(&stage, CUSTOM, &["pods/http_requests"]).await;
    for number in 0..50 {
        let metric = format!("hits_{number}");
        let series = Series::new(Resource::SERVICES, Some("default"), "front", &metric, "1");
        stage.member(0).set_metric(series);
        let path = format!("{CUSTOM}/namespaces/default/services/*/{metric}");
        assert_eq!(stage.get(&path).await.status, StatusCode::OK);
        let names = listed(&stage, CUSTOM).await;
        assert!(names.contains(&format!("services/{metric}")), "{metric} is not in {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_changes_its_api_version_is_queried_in_the_new_one() {
    let stage = Stage::start(members(1, 1).await, &["--discovery-interval=1h"]).await;
    until_discovery_lists(&stage, CUSTOM, &["pods/http_requests"]).await;
    let pods = format!("{CUSTOM}/namespaces/default/pods/*/http_requests");
    stage.member(0).fault_on(CUSTOM, Fault::Status(StatusCode::NOT_FOUND, "404 page not found".to_owned()));
    assert_eq!(stage.get(&pods).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_discovery_is_retried_soon() {
    let members = members(1, 1).await;
    members[0].fault_on(CUSTOM, Fault::Status(StatusCode::SERVICE_UNAVAILABLE, "unavailable".to_owned()));
    let stage = Stage::start(members, &["--discovery-interval=1h"]).await;
    stage.logged("discovery failed", 1).await;
    stage.member(0).clear_faults();
    stage.logged("discovery works again", 1).await;
    until_custom_metric_appears(&stage, "pods/http_requests").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_api_removes_its_metrics() {
    let members = members(1, 1).await;
    lists_external(&members[0], &["queue_ready"]);
    let stage = Stage::start(members, &["--discovery-interval=100ms"]).await;
    until_discovery_lists(&stage, EXTERNAL, &["queue_ready"]).await;
    stage.member(0).fault_on(EXTERNAL, Fault::Status(StatusCode::NOT_FOUND, "404 page not found".to_owned()));
    until_discovery_lists(&stage, EXTERNAL, &["metrics/none-discovered-yet"]).await;
    assert!(listed(&stage, CUSTOM).await.contains(&"pods/http_requests".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_discovers_metrics_through_the_aggregation_layer() {
    let stage = Stage::start(members(2, 2).await, &[]).await;
    let kubeconfig = stage.fleet.plane.admin_kubeconfig().expect("a kubeconfig");
    stage.fleet.plane.poll_discovery_now(PREFERRED).await.expect("a registered APIService");
    for kubectl in testkit::kubectls(&kubeconfig) {
        let path = format!("{CUSTOM}/namespaces/default/pods/*/http_requests");
        let raw = kubectl.run(&["get", "--raw", &path]).await.expect("kubectl gets the metric");
        let list: Value = serde_json::from_str(&raw).expect("JSON");
        assert_eq!(list["items"].as_array().map(Vec::len), Some(4), "{kubectl}");
        let versions = kubectl.run(&["api-versions"]).await.expect("kubectl lists the versions");
        let both = "custom.metrics.k8s.io/v1beta1\ncustom.metrics.k8s.io/v1beta2\n";
        assert!(versions.contains(both), "{kubectl}: {versions}");
        kubectl.run(&["api-resources"]).await.expect("kubectl lists the resources");
    }
}

/// Makes a member list these custom metrics, and no others.
fn lists_custom(member: &Member, names: &[&str]) {
    let entry = |name: &&str| json!({"name": name, "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"]});
    let resources: Vec<Value> = names.iter().map(entry).collect();
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "custom.metrics.k8s.io/v1beta2",
        "resources": resources,
    });
    member.answer(CUSTOM, ScriptedAnswer::json(StatusCode::OK, &list));
}

/// Waits until the first member's discovery of custom metrics has been requested twice more, so that one result is stored.
async fn until_next_discovery(stage: &Stage) {
    let member = stage.member(0);
    let requests =
        || member.requests_to(CUSTOM).iter().filter(|request| request.path_and_query == CUSTOM).count();
    let before = requests();
    let requested = member.until(|_| requests() >= before + 2);
    tokio::time::timeout(GENEROUS, requested).await.expect("discovery is requested in time");
}

/// Makes a member list these external metrics.
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

/// The names in the resource list of a group version.
async fn listed(stage: &Stage, path: &str) -> Vec<String> {
    let list = stage.get(path).await.json().expect("JSON");
    let entries = list["resources"].as_array().expect("a list").iter();
    entries.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect()
}

/// Waits until a custom metric that a member returned is listed.
async fn until_custom_metric_appears(stage: &Stage, name: &str) {
    let appears = async { while !listed(stage, CUSTOM).await.iter().any(|known| known == name) {} };
    tokio::time::timeout(GENEROUS, appears).await.expect("the metric is listed in time");
}

/// Waits until these names are listed. Looks again after each discovery of the first member.
async fn until_discovery_lists(stage: &Stage, path: &str, names: &[&str]) {
    let member = stage.member(0);
    let appear = async {
        loop {
            let before = member.requests_to(path).len();
            let listed = listed(stage, path).await;
            if names.iter().all(|name| listed.iter().any(|known| known == name)) {
                return;
            }
            member.until(|_| member.requests_to(path).len() > before).await;
        }
    };
    tokio::time::timeout(GENEROUS, appear).await.expect("the metrics are listed in time");
}
