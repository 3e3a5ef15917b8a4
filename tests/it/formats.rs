//! Clients and members of both API versions, in JSON and protobuf.

use http::StatusCode;
use testkit::member::wire::Version;
use testkit::member::{Formats, Member, MemberOptions, Protocols, Resource, Series};

use crate::stage::{PODS, Stage, clusters, item_clusters};

async fn member(name: &str, options: MemberOptions) -> Member {
    Member::start_with(name, options).await.expect("a member starts").with_pods("http_requests", 2)
}

async fn mixed_fleet() -> Vec<Member> {
    let options = MemberOptions::default;
    vec![
        member("both", options()).await,
        member("json", MemberOptions { formats: Formats::Json, ..options() }).await,
        member("old", MemberOptions { versions: vec![Version::V1Beta1], ..options() }).await,
        member("new", MemberOptions { versions: vec![Version::V1Beta2], ..options() }).await,
        member("http1", MemberOptions { protocols: Protocols::Http1, ..options() }).await,
        member("http2", MemberOptions { protocols: Protocols::Http2, ..options() }).await,
        member("prefix", MemberOptions { path_prefix: "/k8s/clusters/c-1".to_owned(), ..options() }).await,
        member("none", MemberOptions { versions: Vec::new(), ..options() }).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_both_versions_read_members_of_every_kind() {
    let stage = Stage::start(mixed_fleet().await, &[]).await;
    for path in [PODS.to_owned(), PODS.replace("v1beta2", "v1beta1")] {
        let response = stage.get(&path).await;
        assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
        assert!(response.warnings().is_empty(), "{:?}", response.warnings());
        let list = response.json().expect("JSON");
        assert_eq!(clusters(&list), ["both", "http1", "http2", "json", "new", "old", "prefix"]);
        assert_eq!(list["items"].as_array().map(Vec::len), Some(14));
        let name = if path.contains("v1beta1") {
            &list["items"][0]["metricName"]
        } else {
            &list["items"][0]["metric"]["name"]
        };
        assert_eq!(name, "http_requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_member_gets_one_request_per_query() {
    let stage = Stage::start(mixed_fleet().await, &["--discovery-interval=1h"]).await;
    for member in &stage.fleet.members {
        member.reset_counters();
    }
    stage.get(PODS).await;
    for member in &stage.fleet.members {
        assert_eq!(member.counters().requests, 1, "{}: {:?}", member.name(), member.requests());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_resource_scopes_are_merged() {
    let mut members = Vec::new();
    for (name, value) in [("a", "1500m"), ("b", "2")] {
        let member = Member::start(name).await.expect("a member starts");
        let series =
            |resource, namespace, object: &str| Series::new(resource, namespace, object, "load", value);
        member.set_metric(series(Resource::NAMESPACES, None, "default"));
        member.set_metric(series(Resource::NODES, None, &format!("node-{name}")));
        member.set_metric(series(Resource::JOBS, Some("default"), "crunch"));
        members.push(member);
    }
    let stage = Stage::start(members, &[]).await;
    let values = async |path: &str| -> Vec<(String, String)> {
        let response = stage.get(&format!("/apis/custom.metrics.k8s.io/v1beta2/{path}")).await;
        assert_eq!(response.status, StatusCode::OK, "{path}: {:?}", response.body);
        let list = response.json().expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let items = list["items"].as_array().expect("items").iter();
        items.map(|item| (text(&item["describedObject"]["name"]), text(&item["value"]))).collect()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(values("namespaces/default/metrics/load").await, [pair("default", "3500m")]);
    assert_eq!(values("nodes/*/load").await, [pair("node-a", "1500m"), pair("node-b", "2")]);
    assert_eq!(values("nodes/node-b/load").await, [pair("node-b", "2")]);
    assert_eq!(values("namespaces/default/jobs.batch/%2A/load").await, [pair("crunch", "3500m")]);
    assert_eq!(values("namespaces/default/jobs.batch/crunch/load").await, [pair("crunch", "3500m")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn metric_selector_chooses_clusters_and_the_rest_is_forwarded() {
    let stage = Stage::start(crate::stage::members(3, 1).await, &[]).await;
    let label = "resource.karmada.io%2Fquery-from-cluster";
    let of = async |selector: &str| {
        let response = stage.get(&format!("{PODS}?metricLabelSelector={selector}")).await;
        if response.status == StatusCode::OK {
            clusters(&response.json().expect("JSON"))
        } else {
            vec![response.status.to_string()]
        }
    };
    assert_eq!(of(&format!("{label}%3Dmember2")).await, ["member2"]);
    assert_eq!(of(&format!("{label}%20in%20(member1,member3)")).await, ["member1", "member3"]);
    assert_eq!(of(&format!("{label}%20notin%20(member1)")).await, ["member2", "member3"]);
    assert_eq!(of(&format!("{label}!%3Dmember1")).await, ["member2", "member3"]);
    assert_eq!(of(label).await, ["member1", "member2", "member3"]);
    assert_eq!(of(&format!("!{label}")).await, ["404 Not Found"]);
    assert_eq!(of(&format!("{label}%3Dnowhere")).await, ["404 Not Found"]);

    stage.member(1).reset_counters();
    of(&format!("{label}%3Dmember2,verb%3DGET")).await;
    let requests = stage.member(1).requests_to("/apis/custom.metrics.k8s.io/v1beta2/namespaces/");
    let forwarded: Vec<&str> = requests
        .iter()
        .filter_map(|request| request.path_and_query.split_once('?'))
        .map(|(_, query)| query)
        .collect();
    assert_eq!(forwarded, ["metricLabelSelector=verb%3DGET"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_tags_can_be_renamed_and_turned_off() {
    let stage =
        Stage::start(crate::stage::members(1, 1).await, &["--cluster-label=example.org/cluster"]).await;
    let list = stage.get(PODS).await.json().expect("JSON");
    assert_eq!(list["items"][0]["metric"]["selector"]["matchLabels"]["example.org/cluster"], "member1");
    let stage = Stage::start(crate::stage::members(1, 1).await, &["--cluster-label="]).await;
    let list = stage.get(PODS).await.json().expect("JSON");
    assert!(list["items"][0]["metric"]["selector"].is_null());
    assert!(item_clusters(&list["items"][0]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn suspicious_parameter_causes_a_warning() {
    let stage = Stage::start(crate::stage::members(1, 1).await, &[]).await;
    let response = stage.get(&format!("{PODS}?selector=app%3Dsample-app")).await;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(
        response.warnings(),
        [r#"299 - "unknown parameter \"selector\" is ignored; did you mean \"labelSelector\"?""#]
    );
}
