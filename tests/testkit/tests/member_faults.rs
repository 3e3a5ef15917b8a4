//! Every fault of a simulated member.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use testkit::api_client::{Answer, ApiClient};
use testkit::member::{Fault, Flaw, Member, MemberOptions, Protocols};
use tokio::time::timeout;

const LIST: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/http_requests";
const DISCOVERY: &str = "/apis/custom.metrics.k8s.io/v1beta2";

/// A generous limit. The tests end in milliseconds unless something hangs.
const LIMIT: Duration = Duration::from_secs(20);
/// A request without a response within this time counts as hanging.
const HANG_LIMIT: Duration = Duration::from_millis(300);

/// For each protocol a member with three pods, and a client that is already connected.
async fn members() -> [(Member, ApiClient); 2] {
    [connected(Protocols::Http1).await, connected(Protocols::Http2).await]
}

async fn connected(protocols: Protocols) -> (Member, ApiClient) {
    let options = MemberOptions { protocols, ..MemberOptions::default() };
    let member = Member::start_with("member1", options).await.unwrap().with_pods("http_requests", 3);
    let client = member.access().client();
    assert_eq!(get(&client, "/livez").await.unwrap().status, StatusCode::OK);
    member.reset_counters();
    (member, client)
}

async fn get(client: &ApiClient, path: &str) -> Result<Answer> {
    timeout(LIMIT, client.get(path)).await?
}

/// The body of a response, not read yet.
async fn open(client: &ApiClient, path: &str) -> Incoming {
    let request = Request::builder().uri(path).body(Bytes::new()).unwrap();
    timeout(LIMIT, client.open(request)).await.unwrap().unwrap().into_body()
}

async fn get_until(client: &ApiClient, wanted: impl Fn(&Result<Answer>) -> bool) {
    let polling = async { while !wanted(&client.get(LIST).await) {} };
    timeout(LIMIT, polling).await.expect("the responses match in time");
}

/// Checks for a complete valid response with three items.
async fn assert_valid_list(client: &ApiClient) {
    let list = get(client, LIST).await.unwrap().json().unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn delayed_response_is_valid() {
    for (member, client) in members().await {
        member.fault(Fault::Delay(HANG_LIMIT));
        let start = Instant::now();
        assert_valid_list(&client).await;
        assert!(start.elapsed() >= HANG_LIMIT);
    }
}

#[tokio::test]
async fn hang_of_some_paths_affects_no_other_paths() {
    for (member, client) in members().await {
        member.fault_on("/apis/custom.metrics.k8s.io/v1beta2/namespaces/", Fault::Hang);
        assert!(timeout(HANG_LIMIT, client.get(LIST)).await.is_err());
        assert_eq!(get(&client, DISCOVERY).await.unwrap().status, StatusCode::OK);
        timeout(LIMIT, member.until(|counters| counters.cancelled == 1 && counters.in_flight == 0))
            .await
            .unwrap();
        member.clear_faults();
        assert_valid_list(&client).await;
    }
}

#[tokio::test]
async fn longest_prefix_wins() {
    let (member, client) = connected(Protocols::Both).await;
    member.fault(Fault::Hang);
    member.fault_on(DISCOVERY, Fault::Status(StatusCode::BAD_GATEWAY, "discovery".to_owned()));
    member.fault_on(&LIST[..LIST.len() - 5], Fault::Status(StatusCode::BAD_GATEWAY, "list".to_owned()));
    assert_eq!(get(&client, &LIST.replace('*', "%2A")).await.unwrap().body, "list");
    assert_eq!(get(&client, DISCOVERY).await.unwrap().body, "discovery");
    assert!(timeout(HANG_LIMIT, client.get("/livez")).await.is_err());
}

#[tokio::test]
async fn fault_of_the_whole_member_replaces_the_previous_one() {
    for (member, client) in members().await {
        for before in [Fault::Frozen, Fault::Refused, Fault::BadCertificate(Flaw::Expired), Fault::Hang] {
            member.fault(before);
            member.fault(Fault::Status(StatusCode::BAD_GATEWAY, "failing".to_owned()));
            get_until(&client, |answer| answer.as_ref().is_ok_and(|answer| answer.body == "failing")).await;
        }
        member.fault(Fault::Refused);
        member.clear_faults();
        get_until(&client, Result::is_ok).await;
        assert_valid_list(&client).await;
    }
}

#[tokio::test]
async fn status_has_its_text() {
    for (member, client) in members().await {
        let text = "error trying to reach service: net/http: TLS handshake timeout\n";
        member.fault(Fault::Status(StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
        let answer = get(&client, LIST).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::SERVICE_UNAVAILABLE, text.as_bytes()));
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
}

#[tokio::test]
async fn error_status_has_the_requested_format() {
    let message = "pods.custom.metrics.k8s.io \"*\" is forbidden";
    for (member, client) in members().await {
        member.fault(Fault::Refusal(StatusCode::FORBIDDEN, "Forbidden", message.to_owned()));
        let answer = get(&client, LIST).await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let status = answer.json().unwrap();
        assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &"Forbidden".into()));
        assert_eq!(status["message"], message);
        let protobuf = "application/vnd.kubernetes.protobuf";
        let request = Request::get(LIST).header("accept", protobuf).body(Bytes::new()).unwrap();
        let answer = timeout(LIMIT, client.send(request)).await.unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.headers["content-type"].as_bytes()),
            (StatusCode::FORBIDDEN, protobuf.as_bytes())
        );
        assert!(answer.body.starts_with(b"k8s\0"), "{:?}", answer.body);
    }
}

#[tokio::test]
async fn broken_responses_are_transport_errors() {
    for (member, client) in members().await {
        for fault in [Fault::Abort, Fault::Reset, Fault::Truncated] {
            member.fault(fault.clone());
            let broken = timeout(LIMIT, client.get(LIST)).await.unwrap();
            assert!(broken.is_err(), "{fault:?}: {broken:?}");
            member.clear_faults();
            assert_valid_list(&client).await;
        }
        timeout(LIMIT, member.until(|counters| counters.in_flight == 0)).await.unwrap();
        assert_eq!(member.counters().cancelled, 0, "the member cancelled them, not the client");
    }
}

#[tokio::test]
async fn reset_comes_after_half_of_the_body() {
    let (member, client) = connected(Protocols::Http1).await;
    member.fault(Fault::Reset);
    let mut body = open(&client, LIST).await;
    assert!(timeout(LIMIT, body.frame()).await.unwrap().unwrap().is_ok());
    assert!(timeout(LIMIT, body.frame()).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn endless_body_ends_when_the_client_disconnects() {
    let (member, client) = connected(Protocols::Http1).await;
    member.fault(Fault::Endless);
    let mut body = open(&client, LIST).await;
    let mut received = 0;
    while received < 4 << 20 {
        let frame = timeout(LIMIT, body.frame()).await.unwrap().unwrap().unwrap();
        received += frame.into_data().unwrap().len();
    }
    drop(body);
    timeout(LIMIT, member.until(|counters| counters.cancelled == 1)).await.unwrap();
}

#[tokio::test]
async fn invalid_bodies_have_status_200() {
    for (member, client) in members().await {
        member.fault(Fault::Garbage);
        let garbage = get(&client, LIST).await.unwrap();
        assert_eq!((garbage.status, garbage.json().is_err()), (StatusCode::OK, true));
        assert!(!garbage.body.starts_with(b"k8s\0"));
        member.fault(Fault::WrongKind);
        assert_eq!(get(&client, LIST).await.unwrap().json().unwrap()["kind"], "PodList");
        member.fault(Fault::BadQuantity);
        let list = get(&client, LIST).await.unwrap().json().unwrap();
        assert_eq!(list["items"][2]["value"], "12 apples");
        assert_eq!(get(&client, DISCOVERY).await.unwrap().json().unwrap()["kind"], "APIResourceList");
        member.fault(Fault::DeepJson);
        let deep = get(&client, LIST).await.unwrap();
        assert!(deep.body.len() > 200_000 && deep.json().is_err(), "too deep for a recursive parser");
    }
}

#[tokio::test]
async fn slow_drip_takes_an_interval_per_byte() {
    for (member, client) in members().await {
        member.fault(Fault::SlowDrip(Duration::from_millis(2)));
        let start = Instant::now();
        let answer = get(&client, &LIST.replace("http_requests", "nosuch")).await.unwrap();
        assert_eq!(answer.json().unwrap()["code"], 404);
        assert!(start.elapsed() >= Duration::from_millis(2) * 165);
    }
}

#[tokio::test]
async fn redirect_has_its_target() {
    for (member, client) in members().await {
        member.fault(Fault::Redirect("https://elsewhere.example/".to_owned()));
        let answer = get(&client, LIST).await.unwrap();
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(answer.headers["location"], "https://elsewhere.example/");
    }
}

#[tokio::test]
async fn huge_header_works_over_http1_and_fails_over_http2() {
    let [(http1, client1), (http2, client2)] = members().await;
    http1.fault(Fault::Headers { count: 1, bytes: 256 << 10 });
    let answer = get(&client1, LIST).await.unwrap();
    assert_eq!(answer.headers["x-more-0"].len(), 256 << 10);
    http2.fault(Fault::Headers { count: 1, bytes: 256 << 10 });
    assert!(timeout(LIMIT, client2.get(LIST)).await.unwrap().is_err());
}

#[tokio::test]
async fn refused_connection_fails_at_once_and_the_port_is_kept() {
    for (member, connected) in members().await {
        member.fault(Fault::Refused);
        let fresh = member.access().client();
        assert!(timeout(LIMIT, fresh.get(LIST)).await.unwrap().is_err());
        assert!(timeout(LIMIT, connected.get(LIST)).await.unwrap().is_err());
        member.clear_faults();
        get_until(&fresh, Result::is_ok).await;
        assert_valid_list(&connected).await;
    }
}

#[tokio::test]
async fn frozen_member_responds_after_the_freeze() {
    for (member, connected) in members().await {
        member.fault(Fault::Frozen);
        let fresh = member.access().client();
        assert!(timeout(HANG_LIMIT, fresh.get("/livez")).await.is_err());
        let waiting = tokio::spawn(async move { get(&connected, LIST).await });
        assert!(timeout(HANG_LIMIT, member.arrived()).await.is_err(), "the request must not be read");
        member.clear_faults();
        let answer = timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert_valid_list(&fresh).await;
    }
}

#[tokio::test]
async fn bad_certificate_fails_every_handshake() {
    for (member, client) in members().await {
        for flaw in [Flaw::OtherAuthority, Flaw::WrongName, Flaw::Expired] {
            member.fault(Fault::BadCertificate(flaw));
            // The open connections are cut shortly after.
            get_until(&client, |answer| {
                answer.as_ref().is_err_and(|error| format!("{error:?}").contains("certificate"))
            })
            .await;
            member.clear_faults();
            get_until(&client, Result::is_ok).await;
            assert_valid_list(&client).await;
        }
    }
}
