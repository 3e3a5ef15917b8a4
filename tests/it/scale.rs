//! Many clusters and clients: responses are complete and connections are few.

use std::time::Duration;

use http::StatusCode;
use testkit::fleet::Fleet;
use testkit::member::{Fault, Member, MemberOptions, Protocols};

use crate::stage::{GENEROUS, PODS, Stage, binary, clusters, front, members};

#[tokio::test(flavor = "multi_thread")]
async fn response_has_all_pods_of_a_hundred_clusters() {
    let stage = Stage::start(members(100, 50).await, &["--member-timeout=30s"]).await;
    let response = stage.get(PODS).await;
    assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()));
    let list = response.json().expect("JSON");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(5000));
    assert_eq!(clusters(&list).len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_queries_share_few_connections() {
    let mut fleet = Vec::new();
    for (name, protocols) in
        [("http1", Protocols::Http1), ("http2", Protocols::Http2), ("both", Protocols::Both)]
    {
        let options = MemberOptions { protocols, ..MemberOptions::default() };
        let member = Member::start_with(name, options).await.expect("a member starts");
        fleet.push(member.with_pods("http_requests", 5));
    }
    let stage = Stage::start(fleet, &["--member-timeout=30s", "--discovery-interval=1h"]).await;
    // Different queries, so that no responses are shared.
    let queries = (0..200).map(|number| format!("{PODS}?labelSelector=app%3Dsample-app,a%21%3D{number}"));
    let responses = futures::future::join_all(queries.map(|path| {
        let stage = &stage;
        async move { stage.get(&path).await }
    }));
    for response in responses.await {
        assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()));
        assert_eq!(clusters(&response.json().expect("JSON")), ["both", "http1", "http2"]);
    }
    for member in &stage.fleet.members {
        let most = if member.name() == "http1" { 8 } else { 1 };
        assert!(member.connections() <= most, "{}: {} connections", member.name(), member.connections());
        let queries = member.requests_to("/apis/custom.metrics.k8s.io/v1beta2/namespaces/").len();
        assert_eq!(queries, 200, "{}", member.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_queries_in_flight_are_shared() {
    let stage = Stage::start(members(2, 5).await, &["--discovery-interval=1h"]).await;
    for member in &stage.fleet.members {
        member.reset_counters();
        member.fault(Fault::Delay(Duration::from_secs(2)));
    }
    let responses = futures::future::join_all((0..50).map(|_| stage.get(PODS))).await;
    assert!(
        responses
            .iter()
            .all(|response| response.status == StatusCode::OK && response.body == responses[0].body)
    );
    for member in &stage.fleet.members {
        assert_eq!(member.counters().requests, 1, "{}", member.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_members_do_not_delay_healthy_ones() {
    let fleet = members(60, 2).await;
    for (number, member) in fleet.iter().take(20).enumerate() {
        // There are more frozen members than concurrent handshakes are allowed: they must not block the other members.
        member.fault(if number < 18 { Fault::Frozen } else { Fault::Hang });
    }
    let fleet = Fleet::start(fleet).await.expect("the fleet starts");
    let flags = ["--discovery-interval=1h".to_owned()];
    let adapter =
        fleet.start_adapter(binary(), &flags, None).await.expect("the adapter is ready with dead members");
    let front = front(&fleet, &adapter);
    let request = http::Request::builder()
        .uri(PODS)
        .header("X-Remote-User", "admin")
        .header("X-Remote-Group", "system:masters")
        .body(bytes::Bytes::new())
        .expect("a request");
    let response =
        tokio::time::timeout(GENEROUS, front.send(request)).await.expect("in time").expect("a response");
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(clusters(&response.json().expect("JSON")).len(), 40, "{:?}", response.warnings());
    let warnings = response.warnings();
    assert_eq!(warnings.len(), 1);
    let words = ["values of 20 clusters are missing", "and 10 more"];
    assert!(words.iter().all(|words| warnings[0].contains(words)), "{warnings:?}");
}
