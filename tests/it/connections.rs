//! API servers may close connections and reject streams, as HTTP allows. No query is lost. Go's HTTP client behaves the same.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use testkit::member::{Fault, Member, MemberOptions, Protocols};

use crate::raw_member::{Behaviour, RawMember};
use crate::stage::{PODS, Stage, distinct, until};

/// Without this flag, last-known values would hide lost queries.
const PARTIAL: &str = "--on-member-failure=partial";
const BOTH: [Protocols; 2] = [Protocols::Http1, Protocols::Http2];

/// Sends `queries` different queries, `at_once` at a time. Panics unless all members respond to each.
async fn assert_none_lost(stage: &Stage, queries: usize, at_once: usize) {
    let next = AtomicUsize::new(0);
    let client = async || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= queries {
                return;
            }
            let response = stage.get(&distinct(number)).await;
            let warnings = response.warnings();
            assert!(warnings.is_empty(), "query {number}: {warnings:?}");
            assert_eq!(response.status, StatusCode::OK, "query {number}: {:?}", response.body);
        }
    };
    join_all((0..at_once).map(|_| client())).await;
}

/// A fleet with one raw member.
async fn raw(behaviour: Behaviour, latency: Duration) -> (RawMember, Stage) {
    let member = RawMember::start("raw", behaviour, latency).await;
    let stage = Stage::start(Vec::new(), &[PARTIAL, "--discovery-interval=1h"]).await;
    stage.fleet.plane.join(member.spec()).expect("the cluster joins");
    until(&stage, |names| names == ["raw"]).await;
    (member, stage)
}

async fn member(protocols: Protocols, pods: usize) -> Member {
    let options = MemberOptions { protocols, ..MemberOptions::default() };
    let member = Member::start_with("member1", options).await.expect("a member starts");
    member.with_pods("http_requests", pods)
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_move_to_another_connection_on_goaway() {
    // Like kube-apiserver with `--goaway-chance`.
    let (member, stage) = raw(Behaviour::GoAwayAt(50), Duration::from_millis(2)).await;
    assert_none_lost(&stage, 1000, 8).await;
    assert!(member.responded() >= 1000);
    assert!(member.connections() >= 20, "{} connections", member.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_of_a_closed_connection_share_the_next_one() {
    let (member, stage) = raw(Behaviour::GoAwayAt(100), Duration::from_millis(20)).await;
    assert_none_lost(&stage, 3000, 150).await;
    // A connection serves at most 100 queries, and no connection is opened for a single query.
    assert!((30..=80).contains(&member.connections()), "{} connections", member.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_stream_is_retried() {
    let (_member, stage) = raw(Behaviour::RefuseEvery(20), Duration::from_millis(2)).await;
    assert_none_lost(&stage, 200, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn member_that_refuses_every_stream_fails_and_is_not_skipped() {
    let (member, stage) = raw(Behaviour::GoAwayAt(usize::MAX), Duration::ZERO).await;
    member.set(Behaviour::RefuseEvery(1));
    for number in 0..5 {
        let response = stage.get(&distinct(number)).await;
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
        let body = String::from_utf8(response.body.to_vec()).expect("text");
        assert!(body.contains(r#""reason":"ConnectionClosed""#), "{body}");
    }
    member.set(Behaviour::GoAwayAt(usize::MAX));
    assert_none_lost(&stage, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn response_in_many_small_frames_is_accepted() {
    for protocols in BOTH {
        let member = member(protocols, 1000).await;
        member.fault_on("/apis/custom.metrics.k8s.io", Fault::Pieces(170));
        let stage = Stage::start(vec![member], &[PARTIAL]).await;
        assert_none_lost(&stage, 100, 20).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn response_in_a_burst_of_frames_is_accepted() {
    let (_member, stage) = raw(Behaviour::Frames(20), Duration::ZERO).await;
    assert_none_lost(&stage, 20, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_long_headers_are_accepted() {
    for protocols in BOTH {
        let stage = Stage::start(vec![member(protocols, 1).await], &[PARTIAL]).await;
        for (count, bytes) in [(1, 17_000), (150, 10), (100, 1000)] {
            stage.member(0).fault_on("/apis/custom.metrics.k8s.io", Fault::Headers { count, bytes });
            assert_none_lost(&stage, 5, 1).await;
        }
    }
}

/// h2 accepts at most 1024 frames of closed streams in the lifetime of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_queries_do_not_affect_others() {
    for protocols in BOTH {
        let slow = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/slow";
        let stage = Stage::start(vec![member(protocols, 1).await], &[PARTIAL]).await;
        stage.member(0).fault_on(slow, Fault::Delay(Duration::from_millis(50)));
        let slow = PODS.replace("http_requests", "slow");
        let cancelled = async {
            for round in 0..100 {
                let short_queries = (0..50).map(|number| {
                    let path = format!("{slow}?labelSelector=a%21%3D{round},b%21%3D{number}&timeout=20ms");
                    let stage = &stage;
                    async move { stage.get(&path).await.status }
                });
                join_all(short_queries).await;
            }
        };
        tokio::select! {
            () = cancelled => {}
            () = assert_none_lost(&stage, usize::MAX, 1) => {}
        }
    }
}

/// Sends `count` queries at once that hang and runs `meanwhile`. Returns the response bodies in any order.
async fn beside_hung_queries(
    stage: &Stage,
    count: usize,
    meanwhile: impl Future<Output = ()>,
) -> Vec<String> {
    let hung = join_all((0..count).map(|number| {
        let path = distinct(number);
        async move { String::from_utf8(stage.get(&path).await.body.to_vec()).expect("text") }
    }));
    tokio::join!(hung, meanwhile).0
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_queries_of_one_api_do_not_block_another_api() {
    const RESOURCE: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
    // An eighth of the 8 connections or 200 streams is reserved for each of the other two APIs.
    for (protocols, sent) in [(Protocols::Http1, 6), (Protocols::Http2, 150)] {
        let flags = [PARTIAL, "--member-timeout=5s", "--discovery-interval=1h"];
        let stage = Stage::start(vec![member(protocols, 1).await], &flags).await;
        until(&stage, |names| names == ["member1"]).await;
        let member = stage.member(0);
        member.fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
        let waiting = 3;
        let responses = beside_hung_queries(&stage, sent + waiting, async {
            member.until(|counters| counters.in_flight == sent).await;
            let response = stage.get(RESOURCE).await;
            assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()));
        })
        .await;
        let busy = responses.iter().filter(|response| response.contains(r#""reason":"Busy""#)).count();
        let late = responses.iter().filter(|response| response.contains(r#""reason":"Timeout""#)).count();
        assert_eq!((busy, late), (waiting, sent), "{protocols:?}");
        // These failures do not count against the API server.
        let response = stage.get(RESOURCE).await;
        assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_queries_do_not_open_the_circuit_breaker() {
    let flags = [PARTIAL, "--member-timeout=2s", "--member-connections=1", "--discovery-interval=1h"];
    let stage = Stage::start(vec![member(Protocols::Http1, 1).await], &flags).await;
    until(&stage, |names| names == ["member1"]).await;
    let hung = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/slow";
    stage.member(0).fault_on(hung, Fault::Hang);
    let slow = PODS.replace("http_requests", "slow");
    let (hung, ()) = tokio::join!(stage.get(&slow), async {
        stage.member(0).until(|counters| counters.in_flight == 1).await;
        // Some queries get the connection shortly before their deadline, the others get no response.
        join_all((0..5).map(async |number| stage.get(&distinct(number)).await)).await;
    });
    assert!(hung.json().expect("JSON").to_string().contains("Timeout"));
    assert_none_lost(&stage, 5, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_connection_attempt_waits_for_the_busy_connection() {
    let stage = Stage::start(vec![member(Protocols::Http1, 1).await], &[PARTIAL]).await;
    until(&stage, |names| names == ["member1"]).await;
    let member = stage.member(0);
    member.fault_on("/apis/custom.metrics.k8s.io", Fault::Delay(Duration::from_secs(1)));
    let responses = beside_hung_queries(&stage, 1, async {
        member.until(|counters| counters.in_flight == 1).await;
        // Only new connections see the new CA.
        member.rotate_authority();
        assert_none_lost(&stage, 1, 1).await;
    })
    .await;
    assert!(responses[0].contains("MetricValueList"), "{responses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn short_client_deadline_does_not_start_waiting_for_a_late_response() {
    for protocols in BOTH {
        let stage = Stage::start(vec![member(protocols, 1).await], &["--discovery-interval=1h"]).await;
        until(&stage, |names| names == ["member1"]).await;
        stage.member(0).fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
        let short_queries = (0..60).map(async |number| {
            let path = format!("{}&timeout=50ms", distinct(number));
            let status = stage.get(&path).await.status;
            assert!([StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&status));
        });
        join_all(short_queries).await;
        let ended = stage.member(0).until(|counters| counters.in_flight == 0);
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("no request stays in flight");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_responses_are_bounded() {
    for (protocols, most) in [(Protocols::Http1, 6), (Protocols::Http2, 8)] {
        let flags = ["--member-timeout=1s", "--discovery-interval=1h"];
        let stage = Stage::start(vec![member(protocols, 1).await], &flags).await;
        until(&stage, |names| names == ["member1"]).await;
        stage.member(0).fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
        beside_hung_queries(&stage, 60, async {}).await;
        let bounded = stage.member(0).until(|counters| counters.in_flight <= most);
        tokio::time::timeout(Duration::from_secs(10), bounded).await.expect("the other requests have ended");
        assert!(stage.member(0).in_flight() > 0, "the adapter waits for some late responses");
    }
}
