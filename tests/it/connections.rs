//! What API servers may do to connections and responses as HTTP allows it, and no query is lost by it: as with Go's client.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use testkit::member::{Fault, Member, MemberOptions, Protocols};

use crate::raw_member::{Manner, RawMember};
use crate::stage::{PODS, Stage, distinct, until};

/// Without it lost queries are stood in for.
const PARTIAL: &str = "--on-member-failure=partial";
const BOTH: [Protocols; 2] = [Protocols::Http1, Protocols::Http2];

/// Sends so many queries, so many at a time, of which none is like another; fails unless each is answered by all members.
async fn none_is_lost(stage: &Stage, queries: usize, at_once: usize) {
    let next = AtomicUsize::new(0);
    let client = async || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= queries {
                return;
            }
            let answer = stage.get(&distinct(number)).await;
            let warnings = answer.warnings();
            assert!(warnings.is_empty(), "query {number}: {warnings:?}");
            assert_eq!(answer.status, StatusCode::OK, "query {number}: {:?}", answer.body);
        }
    };
    join_all((0..at_once).map(|_| client())).await;
}

/// A fleet of one raw member.
async fn raw(manner: Manner, latency: Duration) -> (RawMember, Stage) {
    let member = RawMember::start("raw", manner, latency).await;
    let stage = Stage::start(Vec::new(), &[PARTIAL, "--discovery-interval=1h"]).await;
    stage.fleet.plane.join(member.spec()).expect("it joins");
    until(&stage, |names| names == ["raw"]).await;
    (member, stage)
}

async fn member(protocols: Protocols, pods: usize) -> Member {
    let options = MemberOptions { protocols, ..MemberOptions::default() };
    let member = Member::start_with("member1", options).await.expect("a member starts");
    member.with_pods("http_requests", pods)
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_come_as_a_connection_is_closed_go_out_on_another() {
    // As kube-apiserver with `--goaway-chance` does.
    let (member, stage) = raw(Manner::GoAwayAt(50), Duration::from_millis(2)).await;
    none_is_lost(&stage, 1000, 8).await;
    assert!(member.answered() >= 1000);
    assert!(member.connections() >= 20, "{} connections", member.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_queries_on_a_connection_that_is_closed_share_the_next_one() {
    let (member, stage) = raw(Manner::GoAwayAt(100), Duration::from_millis(20)).await;
    none_is_lost(&stage, 3000, 150).await;
    // At most 100 are answered on one, and none is made for a single query.
    assert!((30..=80).contains(&member.connections()), "{} connections", member.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_refused_before_it_is_processed_goes_out_again() {
    let (_member, stage) = raw(Manner::RefuseEach(20), Duration::from_millis(2)).await;
    none_is_lost(&stage, 200, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_refuses_every_request_is_named_and_not_skipped() {
    let (member, stage) = raw(Manner::GoAwayAt(usize::MAX), Duration::ZERO).await;
    member.set(Manner::RefuseEach(1));
    for number in 0..5 {
        let answer = stage.get(&distinct(number)).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        let body = String::from_utf8(answer.body.to_vec()).expect("text");
        assert!(body.contains(r#""reason":"ConnectionClosed""#), "{body}");
    }
    member.set(Manner::GoAwayAt(usize::MAX));
    none_is_lost(&stage, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_many_small_pieces_is_taken() {
    for protocols in BOTH {
        let member = member(protocols, 1000).await;
        member.fault_on("/apis/custom.metrics.k8s.io", Fault::Pieces(170));
        let stage = Stage::start(vec![member], &[PARTIAL]).await;
        none_is_lost(&stage, 100, 20).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_thousands_of_frames_that_come_at_once_is_taken() {
    let (_member, stage) = raw(Manner::Frames(20), Duration::ZERO).await;
    none_is_lost(&stage, 20, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_and_many_headers_are_taken() {
    for protocols in BOTH {
        let stage = Stage::start(vec![member(protocols, 1).await], &[PARTIAL]).await;
        for (count, bytes) in [(1, 17_000), (150, 10), (100, 1000)] {
            stage.member(0).fault_on("/apis/custom.metrics.k8s.io", Fault::Headers { count, bytes });
            none_is_lost(&stage, 5, 1).await;
        }
    }
}

/// h2 takes 1024 frames of streams that are gone in a connection's life.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_cancelled_queries_cost_no_other_one() {
    for protocols in BOTH {
        let slow = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/slow";
        let stage = Stage::start(vec![member(protocols, 1).await], &[PARTIAL]).await;
        stage.member(0).fault_on(slow, Fault::Delay(Duration::from_millis(50)));
        let slow = PODS.replace("http_requests", "slow");
        let cancelled = async {
            for round in 0..100 {
                let hurried = (0..50).map(|number| {
                    let path = format!("{slow}?labelSelector=a%21%3D{round},b%21%3D{number}&timeout=20ms");
                    let stage = &stage;
                    async move { stage.get(&path).await.status }
                });
                join_all(hurried).await;
            }
        };
        tokio::select! {
            () = cancelled => {}
            () = none_is_lost(&stage, usize::MAX, 1) => {}
        }
    }
}

/// Sends so many queries at once that hang, and meanwhile does what `meanwhile` does. The answers, in any order.
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
async fn however_many_queries_of_one_api_hang_those_of_another_are_sent() {
    const RESOURCE: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
    // Of 8 connections, and of 200 streams, the other two APIs have an eighth each to themselves.
    for (protocols, sent) in [(Protocols::Http1, 6), (Protocols::Http2, 150)] {
        let flags = [PARTIAL, "--member-timeout=5s", "--discovery-interval=1h"];
        let stage = Stage::start(vec![member(protocols, 1).await], &flags).await;
        until(&stage, |names| names == ["member1"]).await;
        let member = stage.member(0);
        member.fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
        let waiting = 3;
        let answers = beside_hung_queries(&stage, sent + waiting, async {
            member.until(|counters| counters.in_flight == sent).await;
            let answer = stage.get(RESOURCE).await;
            assert_eq!((answer.status, answer.warnings()), (StatusCode::OK, Vec::new()));
        })
        .await;
        let busy = answers.iter().filter(|answer| answer.contains(r#""reason":"Busy""#)).count();
        let late = answers.iter().filter(|answer| answer.contains(r#""reason":"Timeout""#)).count();
        assert_eq!((busy, late), (waiting, sent), "{protocols:?}");
        // Nothing of that was the API server's fault.
        let answer = stage.get(RESOURCE).await;
        assert_eq!((answer.status, answer.warnings()), (StatusCode::OK, Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_wait_behind_others_skip_nobody() {
    let flags = [PARTIAL, "--member-timeout=2s", "--member-connections=1", "--discovery-interval=1h"];
    let stage = Stage::start(vec![member(Protocols::Http1, 1).await], &flags).await;
    until(&stage, |names| names == ["member1"]).await;
    let hung = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/slow";
    stage.member(0).fault_on(hung, Fault::Hang);
    let slow = PODS.replace("http_requests", "slow");
    let (hung, ()) = tokio::join!(stage.get(&slow), async {
        stage.member(0).until(|counters| counters.in_flight == 1).await;
        // Some of them get the connection in the last moment, the others have no answer.
        join_all((0..5).map(async |number| stage.get(&distinct(number)).await)).await;
    });
    assert!(hung.json().expect("JSON").to_string().contains("Timeout"));
    none_is_lost(&stage, 5, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_cannot_be_made_beside_one_that_is_busy_is_waited_out() {
    let stage = Stage::start(vec![member(Protocols::Http1, 1).await], &[PARTIAL]).await;
    until(&stage, |names| names == ["member1"]).await;
    let member = stage.member(0);
    member.fault_on("/apis/custom.metrics.k8s.io", Fault::Delay(Duration::from_secs(1)));
    let answers = beside_hung_queries(&stage, 1, async {
        member.until(|counters| counters.in_flight == 1).await;
        // Only those that are made from now on see another authority.
        member.rotate_authority();
        none_is_lost(&stage, 1, 1).await;
    })
    .await;
    assert!(answers[0].contains("MetricValueList"), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_late_reply_is_waited_for_because_of_a_client_in_a_hurry() {
    for protocols in BOTH {
        let stage = Stage::start(vec![member(protocols, 1).await], &["--discovery-interval=1h"]).await;
        until(&stage, |names| names == ["member1"]).await;
        stage.member(0).fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
        let hurried = (0..60).map(async |number| {
            let path = format!("{}&timeout=50ms", distinct(number));
            let status = stage.get(&path).await.status;
            assert!([StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT].contains(&status));
        });
        join_all(hurried).await;
        let ended = stage.member(0).until(|counters| counters.in_flight == 0);
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("no request goes on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_replies_that_are_waited_for_are_bounded() {
    for (protocols, most) in [(Protocols::Http1, 6), (Protocols::Http2, 8)] {
        let flags = ["--member-timeout=1s", "--discovery-interval=1h"];
        let stage = Stage::start(vec![member(protocols, 1).await], &flags).await;
        until(&stage, |names| names == ["member1"]).await;
        stage.member(0).fault_on("/apis/custom.metrics.k8s.io", Fault::Hang);
        beside_hung_queries(&stage, 60, async {}).await;
        let bounded = stage.member(0).until(|counters| counters.in_flight <= most);
        tokio::time::timeout(Duration::from_secs(10), bounded).await.expect("the others have ended");
        assert!(stage.member(0).in_flight() > 0, "some are waited for");
    }
}
