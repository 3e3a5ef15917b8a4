//! Discovery as kubectl and kube-apiserver use it.

use http::StatusCode;
use testkit::fleet::PREFERRED;
use testkit::member::{Fault, Member, Resource, Series};

use crate::stage::{GENEROUS, Stage, members};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

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
        ("/apis/custom.metrics.k8s.io/v1beta2", "*/*"),
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
    assert_eq!(tags.len(), 6);
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
async fn a_fleet_without_metrics_is_available_and_lists_a_placeholder() {
    let stage = Stage::start(vec![Member::start("empty").await.expect("a member starts")], &[]).await;
    let list = stage.get("/apis/custom.metrics.k8s.io/v1beta2").await.json().expect("JSON");
    assert_eq!(list["resources"].as_array().map(Vec::len), Some(1));
    assert!(list["resources"][0]["name"].as_str().is_some_and(|name| name.contains('/')));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_metric_is_listed_after_the_interval_and_kept_while_its_member_is_ill() {
    let stage = Stage::start(members(2, 1).await, &["--discovery-interval=100ms"]).await;
    let series = Series::new(Resource::SERVICES, Some("default"), "front", "hits", "1");
    stage.member(0).set_metric(series);
    let listed = async || stage.get("/apis/custom.metrics.k8s.io/v1beta2").await;
    let has = |body: &[u8]| String::from_utf8_lossy(body).contains("services/hits");
    let appears = async {
        while !has(&listed().await.body) {
            stage.member(0).arrived_at("/apis/custom.metrics.k8s.io/v1beta2").await;
        }
    };
    tokio::time::timeout(GENEROUS, appears).await.expect("it is listed");
    stage.member(0).fault(Fault::Status(StatusCode::SERVICE_UNAVAILABLE, "ill".to_owned()));
    for _ in 0..3 {
        stage.member(0).arrived_at("/apis/custom.metrics.k8s.io/v1beta2").await;
    }
    assert!(has(&listed().await.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_reads_metrics_and_resources_through_the_aggregation_layer() {
    let stage = Stage::start(members(2, 2).await, &[]).await;
    let kubeconfig = stage.fleet.plane.admin_kubeconfig().expect("a kubeconfig");
    stage.fleet.plane.poll_discovery_now(PREFERRED).await.expect("a registered APIService");
    let Some(kubectl) = testkit::kubectl(&kubeconfig) else { return };
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";
    let raw = kubectl.run(&["get", "--raw", path]).await.expect("kubectl reads it");
    let list: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(4));
    let versions = kubectl.run(&["api-versions"]).await.expect("kubectl lists it");
    assert!(
        versions.contains("custom.metrics.k8s.io/v1beta1\ncustom.metrics.k8s.io/v1beta2\n"),
        "{versions}"
    );
    kubectl.run(&["api-resources"]).await.expect("kubectl finds nothing amiss");
}
