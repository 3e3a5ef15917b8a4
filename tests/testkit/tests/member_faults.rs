//! Every way in which a simulated member can be ill.

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

/// Generous: passes in milliseconds unless something hangs that must not.
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough to tell a request that is never answered, short enough to wait for.
const PATIENCE: Duration = Duration::from_millis(300);

/// A member with three pods for each protocol, and a client that is already connected.
async fn members() -> [(Member, ApiClient); 2] {
    [connected(Protocols::Http1).await, connected(Protocols::Http2).await]
}

async fn connected(protocols: Protocols) -> (Member, ApiClient) {
    let options = MemberOptions { protocols, ..MemberOptions::default() };
    let member = Member::start_with("member1", options).await.unwrap().with_pods("http_requests", 3);
    let client = member.access().client();
    assert_eq!(ask(&client, "/livez").await.unwrap().status, StatusCode::OK);
    member.reset_counters();
    (member, client)
}

async fn ask(client: &ApiClient, path: &str) -> Result<Answer> {
    timeout(LIMIT, client.get(path)).await?
}

/// An answer's body, as it comes.
async fn open(client: &ApiClient, path: &str) -> Incoming {
    let request = Request::builder().uri(path).body(Bytes::new()).unwrap();
    timeout(LIMIT, client.open(request)).await.unwrap().unwrap().into_body()
}

async fn ask_until(client: &ApiClient, wanted: impl Fn(&Result<Answer>) -> bool) {
    let asking = async { while !wanted(&client.get(LIST).await) {} };
    timeout(LIMIT, asking).await.expect("the answers become as wanted");
}

/// A whole and good answer of three items.
async fn is_well(client: &ApiClient) {
    let list = ask(client, LIST).await.unwrap().json().unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_delay_is_waited_for_and_the_answer_is_good() {
    for (member, client) in members().await {
        member.fault(Fault::Delay(PATIENCE));
        let asked = Instant::now();
        is_well(&client).await;
        assert!(asked.elapsed() >= PATIENCE);
    }
}

#[tokio::test]
async fn a_hang_of_some_paths_leaves_the_others_and_the_connection_alone() {
    for (member, client) in members().await {
        member.fault_on("/apis/custom.metrics.k8s.io/v1beta2/namespaces/", Fault::Hang);
        assert!(timeout(PATIENCE, client.get(LIST)).await.is_err());
        assert_eq!(ask(&client, DISCOVERY).await.unwrap().status, StatusCode::OK);
        timeout(LIMIT, member.until(|counters| counters.cancelled == 1 && counters.in_flight == 0))
            .await
            .unwrap();
        member.heal();
        is_well(&client).await;
    }
}

#[tokio::test]
async fn the_longest_prefix_decides() {
    let (member, client) = connected(Protocols::Both).await;
    member.fault(Fault::Hang);
    member.fault_on(DISCOVERY, Fault::Status(StatusCode::BAD_GATEWAY, "discovery".to_owned()));
    member.fault_on(&LIST[..LIST.len() - 5], Fault::Status(StatusCode::BAD_GATEWAY, "list".to_owned()));
    assert_eq!(ask(&client, &LIST.replace('*', "%2A")).await.unwrap().body, "list");
    assert_eq!(ask(&client, DISCOVERY).await.unwrap().body, "discovery");
    assert!(timeout(PATIENCE, client.get("/livez")).await.is_err());
}

#[tokio::test]
async fn a_fault_of_the_whole_member_takes_the_place_of_the_one_before() {
    for (member, client) in members().await {
        for before in [Fault::Frozen, Fault::Refused, Fault::BadCertificate(Flaw::Expired), Fault::Hang] {
            member.fault(before);
            member.fault(Fault::Status(StatusCode::BAD_GATEWAY, "ill".to_owned()));
            ask_until(&client, |answer| answer.as_ref().is_ok_and(|answer| answer.body == "ill")).await;
        }
        member.fault(Fault::Refused);
        member.heal();
        ask_until(&client, Result::is_ok).await;
        is_well(&client).await;
    }
}

#[tokio::test]
async fn a_status_comes_with_its_text() {
    for (member, client) in members().await {
        let text = "error trying to reach service: net/http: TLS handshake timeout\n";
        member.fault(Fault::Status(StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
        let answer = ask(&client, LIST).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (StatusCode::SERVICE_UNAVAILABLE, text.as_bytes()));
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
}

#[tokio::test]
async fn a_refusal_comes_in_the_format_that_was_asked_for() {
    let said = "pods.custom.metrics.k8s.io \"*\" is forbidden";
    for (member, client) in members().await {
        member.fault(Fault::Refusal(StatusCode::FORBIDDEN, "Forbidden", said.to_owned()));
        let answer = ask(&client, LIST).await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let status = answer.json().unwrap();
        assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &"Forbidden".into()));
        assert_eq!(status["message"], said);
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
async fn broken_answers_are_errors_of_the_transport() {
    for (member, client) in members().await {
        for fault in [Fault::Abort, Fault::Reset, Fault::Truncated] {
            member.fault(fault.clone());
            let broken = timeout(LIMIT, client.get(LIST)).await.unwrap();
            assert!(broken.is_err(), "{fault:?}: {broken:?}");
            member.heal();
            is_well(&client).await;
        }
        timeout(LIMIT, member.until(|counters| counters.in_flight == 0)).await.unwrap();
        assert_eq!(member.counters().cancelled, 0, "the member broke them off, not the client");
    }
}

#[tokio::test]
async fn a_reset_comes_after_half_of_the_body() {
    let (member, client) = connected(Protocols::Http1).await;
    member.fault(Fault::Reset);
    let mut body = open(&client, LIST).await;
    assert!(timeout(LIMIT, body.frame()).await.unwrap().unwrap().is_ok());
    assert!(timeout(LIMIT, body.frame()).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn an_endless_body_goes_on_until_the_client_leaves() {
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
async fn nonsense_is_answered_with_200() {
    for (member, client) in members().await {
        member.fault(Fault::Garbage);
        let garbage = ask(&client, LIST).await.unwrap();
        assert_eq!((garbage.status, garbage.json().is_err()), (StatusCode::OK, true));
        assert!(!garbage.body.starts_with(b"k8s\0"));
        member.fault(Fault::WrongKind);
        assert_eq!(ask(&client, LIST).await.unwrap().json().unwrap()["kind"], "PodList");
        member.fault(Fault::BadQuantity);
        let list = ask(&client, LIST).await.unwrap().json().unwrap();
        assert_eq!(list["items"][2]["value"], "12 apples");
        assert_eq!(ask(&client, DISCOVERY).await.unwrap().json().unwrap()["kind"], "APIResourceList");
        member.fault(Fault::DeepJson);
        let deep = ask(&client, LIST).await.unwrap();
        assert!(deep.body.len() > 200_000 && deep.json().is_err(), "too deep for a recursive reader");
    }
}

#[tokio::test]
async fn a_slow_drip_takes_an_interval_for_each_byte() {
    for (member, client) in members().await {
        member.fault(Fault::SlowDrip(Duration::from_millis(2)));
        let asked = Instant::now();
        let answer = ask(&client, &LIST.replace("http_requests", "nosuch")).await.unwrap();
        assert_eq!(answer.json().unwrap()["code"], 404);
        assert!(asked.elapsed() >= Duration::from_millis(2) * 165);
    }
}

#[tokio::test]
async fn a_redirect_names_its_target() {
    for (member, client) in members().await {
        member.fault(Fault::Redirect("https://elsewhere.example/".to_owned()));
        let answer = ask(&client, LIST).await.unwrap();
        assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(answer.headers["location"], "https://elsewhere.example/");
    }
}

#[tokio::test]
async fn a_huge_header_comes_over_http1_and_is_too_much_for_http2() {
    let [(http1, client1), (http2, client2)] = members().await;
    http1.fault(Fault::Headers { count: 1, bytes: 256 << 10 });
    let answer = ask(&client1, LIST).await.unwrap();
    assert_eq!(answer.headers["x-more-0"].len(), 256 << 10);
    http2.fault(Fault::Headers { count: 1, bytes: 256 << 10 });
    assert!(timeout(LIMIT, client2.get(LIST)).await.unwrap().is_err());
}

#[tokio::test]
async fn a_refused_connection_fails_at_once_and_the_port_is_kept() {
    for (member, connected) in members().await {
        member.fault(Fault::Refused);
        let fresh = member.access().client();
        assert!(timeout(LIMIT, fresh.get(LIST)).await.unwrap().is_err());
        assert!(timeout(LIMIT, connected.get(LIST)).await.unwrap().is_err());
        member.heal();
        ask_until(&fresh, Result::is_ok).await;
        is_well(&connected).await;
    }
}

#[tokio::test]
async fn a_frozen_member_answers_when_it_thaws() {
    for (member, connected) in members().await {
        member.fault(Fault::Frozen);
        let fresh = member.access().client();
        assert!(timeout(PATIENCE, fresh.get("/livez")).await.is_err());
        let waiting = tokio::spawn(async move { ask(&connected, LIST).await });
        assert!(timeout(PATIENCE, member.arrived()).await.is_err(), "not even read");
        member.heal();
        let answer = timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        is_well(&fresh).await;
    }
}

#[tokio::test]
async fn a_bad_certificate_fails_the_handshake_of_every_connection() {
    for (member, client) in members().await {
        for flaw in [Flaw::OtherAuthority, Flaw::WrongName, Flaw::Expired] {
            member.fault(Fault::BadCertificate(flaw));
            // The connections are cut a moment after.
            ask_until(&client, |answer| {
                answer.as_ref().is_err_and(|error| format!("{error:?}").contains("certificate"))
            })
            .await;
            member.heal();
            ask_until(&client, Result::is_ok).await;
            is_well(&client).await;
        }
    }
}
