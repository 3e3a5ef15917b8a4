//! Compares the adapter's peak memory with the formula of docs/operations.md ("Memory").
//!
//! `STATIC_ADAPTER` names the binary of the image. Without it, the unoptimized binary under test is used.

mod discovery;

use std::iter;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderName, Method, Request, StatusCode};
use testkit::adapter::AdapterProcess;
use testkit::api_client::ApiClient;
use testkit::fleet::Fleet;
use testkit::member::{Fault, Formats, Member, MemberOptions, ScriptedAnswer};
use testkit::pki::Identity;
use testkit::protobuf::Message;
use tokio::task::JoinSet;

use crate::raw::{END_HEADERS, END_STREAM, HEADERS, HTTP1, Raw, block, frame};
use crate::stage::{GENEROUS, PODS, Stage, binary, front, members};

const MIB: usize = 1 << 20;

/// Timeouts that do not expire on a busy machine.
const LONG_TIMEOUTS: [&str; 2] = ["--member-timeout=5m", "--request-timeout=10m"];

/// The terms of the formula in docs/operations.md.
const INFLIGHT: usize = 256 * MIB;
const LAST_KNOWN: usize = 16 * MIB;
const DISCOVERED: usize = 64 * MIB;
const WINDOW: usize = 4 * MIB;
const CLIENT_REQUEST: usize = 256 << 10;
/// The memory of a client request with a short head. These tests send such requests.
const SHORT_REQUEST: usize = 16 << 10;
const REQUEST: usize = 16 << 10;
const LONG_REQUEST: usize = 64 << 10;
const CONNECTION: usize = 256 << 10;
const BASE: usize = 48 * MIB;

const ALICE: [(&str, &str); 1] = [("x-remote-user", "alice")];
/// A user in `system:masters`, which is exempt from the request limit.
const MASTER: [(&str, &str); 2] = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];

/// The largest number of members, requests and connections.
#[derive(Clone, Copy)]
struct Load {
    members: usize,
    requests: usize,
    connections: usize,
}

impl Load {
    /// The memory bound in bytes, with the defaults of all flags.
    fn bound(self) -> usize {
        let Self { members, requests, connections } = self;
        INFLIGHT
            + LAST_KNOWN
            + DISCOVERED
            + members * WINDOW
            + requests * (SHORT_REQUEST + members * REQUEST)
            + connections * CONNECTION
            + BASE
    }

    fn assert_holds(self, adapter: &AdapterProcess) {
        let (peak, bound) = (adapter.peak_bytes().expect("the adapter runs"), self.bound());
        println!("peak {} MiB, {} MiB by the formula", peak / MIB, bound / MIB);
        assert!(peak <= bound, "peak {} MiB exceeds the {} MiB of the formula", peak / MIB, bound / MIB);
    }
}

/// Starts the image's binary. The user `alice` can read all metrics and is not in `system:masters`.
async fn stage(members: Vec<Member>, flags: &[&str]) -> Stage {
    let binary = std::env::var_os("STATIC_ADAPTER").map_or_else(|| binary().to_owned(), PathBuf::from);
    let fleet = Fleet::start(members).await.expect("the fleet starts");
    let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
    let adapter = fleet.start_adapter(&binary, &flags, None).await.expect("the adapter starts");
    fleet.plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["*"]);
    Stage::of(fleet, adapter)
}

/// Members that return the same JSON for each of `queries` distinct queries.
async fn senders(count: usize, queries: usize, json: &Bytes) -> Vec<Member> {
    let options = MemberOptions { formats: Formats::Json, ..MemberOptions::default() };
    senders_of(&options, count, queries, &scripted("application/json", json)).await
}

/// Like [`senders`], with any response.
async fn senders_of(
    options: &MemberOptions,
    count: usize,
    queries: usize,
    response: &ScriptedAnswer,
) -> Vec<Member> {
    let mut senders = Vec::new();
    for number in 0..count {
        let started = Member::start_with(&format!("member{number}"), options.clone()).await;
        let member = started.expect("a member starts");
        (0..queries).for_each(|query| member.answer(&path(query), response.clone()));
        senders.push(member);
    }
    senders
}

fn scripted(content_type: &str, body: &Bytes) -> ScriptedAnswer {
    ScriptedAnswer { status: StatusCode::OK, content_type: content_type.to_owned(), body: body.clone() }
}

fn path(query: usize) -> String {
    format!("{PODS}?labelSelector=a%21%3D{query}")
}

/// A list of at least `bytes` bytes that repeats one item.
fn list(bytes: usize, item: &str) -> Bytes {
    const HEAD: &str = r#"{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":["#;
    let items = vec![item; bytes / (item.len() + 1) + 1].join(",");
    format!("{HEAD}{items}]}}").into()
}

const POD: &str = r#"{"describedObject":{"kind":"Pod","namespace":"default","name":"sample-app-6b8c5d9f7d-00001","apiVersion":"/v1"},"metric":{"name":"http_requests","selector":null},"timestamp":"2026-01-01T00:00:00Z","value":"600m"}"#;
/// The smallest valid item.
const SMALLEST_ITEM: &str = r#"{"describedObject":{"name":"a"}}"#;

async fn status(client: &ApiClient, query: usize) -> StatusCode {
    let mut request = Request::builder().method(Method::GET).uri(path(query));
    for (name, value) in ALICE {
        request = request.header(name, value);
    }
    client.send(request.body(Bytes::new()).expect("a request")).await.expect("a response").status
}

/// Waits until no query uses memory.
async fn released(stage: &Stage) {
    let deadline = Instant::now() + GENEROUS;
    while stage.metric("inflight_bytes").await > 0 {
        assert!(Instant::now() < deadline, "memory is still in use: {}", stage.metrics().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Sends a query over HTTP/1.1 and reads only the head of the response. True if the status is 200.
async fn start_over_http1(adapter: &AdapterProcess, identity: &Identity, query: usize) -> (Raw, bool) {
    let mut raw = Raw::connect(adapter, HTTP1, Some(identity)).await.expect("a connection");
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: alice\r\n\r\n", path(query));
    raw.send(request.as_bytes()).await.expect("the connection is open");
    let head = raw.until(b"\r\n\r\n").await.expect("a response");
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 200 ") || head.starts_with("HTTP/1.1 429 "), "{head}");
    (raw, head.starts_with("HTTP/1.1 200 "))
}

/// Like [`start_over_http1`], over HTTP/2. HPACK encodes the status 200 in one byte.
async fn start_over_http2(adapter: &AdapterProcess, identity: &Identity, query: usize) -> (Raw, bool) {
    let mut raw = Raw::http2(adapter, Some(identity), &[]).await.expect("a connection");
    let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block("GET", &path(query), &ALICE));
    raw.send(&head).await.expect("the connection is open");
    let head = raw.frame_like(|frame| frame.kind == HEADERS && frame.stream == 1).await.expect("a response");
    let is_ok = head.payload[0] == 0x88;
    (raw, is_ok)
}

/// Thirty clients request 34 MB each and do not read the body.
async fn slow_readers(start: impl AsyncFn(&AdapterProcess, &Identity, usize) -> (Raw, bool)) {
    const READERS: usize = 30;
    let stage = stage(senders(2, READERS, &list(17 * MIB, POD)).await, &LONG_TIMEOUTS).await;
    let identity = stage.fleet.plane.front_proxy_identity();
    // The first one starts alone: if all start at the same moment, each may be throttled.
    let first = start(&stage.adapter, &identity, 0).await;
    let others = join_all((1..READERS).map(|query| start(&stage.adapter, &identity, query))).await;
    let readers: Vec<_> = iter::once(first).chain(others).collect();
    let served = readers.iter().filter(|(_, is_ok)| *is_ok).count();
    assert!((1..READERS).contains(&served), "{served} of {READERS} requests are served");
    Load { members: 2, requests: READERS, connections: READERS }.assert_holds(&stage.adapter);
    drop(readers);
    released(&stage).await;
    let client = front(&stage.fleet, &stage.adapter);
    assert_eq!(status(&client, 0).await, StatusCode::OK, "the memory is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_stay_within_the_formula_over_http1() {
    slow_readers(start_over_http1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_responses_stay_within_the_formula_over_http2() {
    slow_readers(start_over_http2).await;
}

/// Sends `requests` queries at once to members that return this list. Each query must fail with one of the statuses `expected`.
async fn assert_refused(members: usize, requests: usize, json: &Bytes, expected: &[StatusCode]) {
    let stage = stage(senders(members, requests, json).await, &LONG_TIMEOUTS).await;
    let client = front(&stage.fleet, &stage.adapter);
    let responses = join_all((0..requests).map(|query| status(&client, query))).await;
    assert!(responses.iter().all(|status| expected.contains(status)), "{responses:?}");
    Load { members, requests, connections: 1 }.assert_holds(&stage.adapter);
    released(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn smallest_items_stay_within_the_formula() {
    // 503 if the list of each member alone is too large.
    let expected = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    assert_refused(4, 2, &list(58 * MIB, SMALLEST_ITEM), &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_responses_of_many_members_stay_within_the_formula() {
    assert_refused(100, 4, &list(4 * MIB, POD), &[StatusCode::TOO_MANY_REQUESTS]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_member_response_does_not_affect_other_members() {
    let mut members = members(1, 1).await;
    members.extend(senders(1, 1, &list(58 * MIB, SMALLEST_ITEM)).await);
    let stage = stage(members, &LONG_TIMEOUTS).await;
    let response = stage.get(&path(0)).await;
    assert_eq!(response.status, StatusCode::OK);
    let warning = response.headers["warning"].to_str().expect("text");
    assert!(warning.contains("more than half of the memory for all queries"), "{warning}");
}

/// The start of a list with this item; the text may close the list.
fn item(text: &str) -> String {
    format!(r#"{{"kind":"MetricValueList","apiVersion":"custom.metrics.k8s.io/v1beta2","items":[{text}"#)
}

/// Sends queries at once to members with hostile bodies and checks the memory.
async fn hostile_bodies(name: &str, senders: Vec<Member>, requests: usize) {
    let members = senders.len();
    let stage = stage(senders, &LONG_TIMEOUTS).await;
    let client = front(&stage.fleet, &stage.adapter);
    let responses = join_all((0..requests).map(|query| status(&client, query))).await;
    println!("{name}: {responses:?}");
    Load { members, requests, connections: 1 }.assert_holds(&stage.adapter);
    released(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_json_stays_within_the_formula() {
    const MEMBERS: usize = 2;
    const REQUESTS: usize = 2;
    const LONG: usize = 58 * MIB;
    let much = |text: &str| text.repeat(LONG / text.len());
    let many = |text: &str| item(&vec![text; LONG / (text.len() + 1)].join(",")) + "]}";
    let hostile = [
        (
            "a string where another type is needed",
            item(&format!(r#"{{"value":1,"metric":"{}"}}]}}"#, much("a"))),
        ),
        ("a string with escapes", item(&format!(r#"{{"value":1,"metric":"{}"}}]}}"#, much("\\\"")))),
        ("a long kind", format!(r#"{{"kind":"{}"}}"#, much("a"))),
        ("arrays in arrays", item(&much("["))),
        ("arrays in arrays between strings", item(&format!(r#"{{"x":{}"#, much(r#"["","#)))),
        ("arrays in arrays in a field that is kept", item(&format!(r#"{{"value":{}"#, much(r#"["","#)))),
        ("a value of many digits", item(&format!(r#"{{"value":"0.{}"}}]}}"#, much("1")))),
        ("a number of many digits", item(&format!(r#"{{"value":0.{}}}]}}"#, much("1")))),
        ("white space", item(&much(" "))),
        (
            "values of many digits",
            many(&format!(r#"{{"value":"{}.{}"}}"#, "9".repeat(1000), "9".repeat(1000))),
        ),
        (
            "names that are all escapes",
            many(&format!(r#"{{"describedObject":{{"name":"{}"}},"value":"1"}}"#, "\\u0061".repeat(3_000))),
        ),
    ];
    for (name, json) in hostile {
        hostile_bodies(name, senders(MEMBERS, REQUESTS, &json.into()).await, REQUESTS).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_protobuf_stays_within_the_formula() {
    const MEMBERS: usize = 2;
    const REQUESTS: usize = 2;
    const LONG: usize = 58 * MIB;
    let text = "a".repeat(LONG);
    let number = format!("0.{}", "1".repeat(LONG));
    let item = Message::new;
    let hostile = [
        ("empty items", vec![item(); LONG / 2]),
        ("a long name", vec![item().message(1, &Message::new().string(3, &text))]),
        ("a value of many digits", vec![item().message(5, &Message::new().string(1, &number))]),
        (
            "a selector with empty requirements",
            vec![item().message(2, &Message::new().message(2, &requirements(LONG)))],
        ),
    ];
    for (name, items) in hostile {
        let list = Message::new().message(1, &Message::new()).repeated(2, items);
        let body: Bytes = list.into_envelope("custom.metrics.k8s.io/v1beta2", "MetricValueList").into();
        let response = scripted("application/vnd.kubernetes.protobuf", &body);
        let senders = senders_of(&MemberOptions::default(), MEMBERS, REQUESTS, &response).await;
        hostile_bodies(name, senders, REQUESTS).await;
    }
}

/// A label selector with empty requirements of this total size.
fn requirements(bytes: usize) -> Message {
    Message::new().repeated(2, vec![Message::new(); bytes / 2])
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_queries_stay_within_the_formula() {
    const CONNECTIONS: usize = 100;
    const STREAMS: usize = 100;
    let stage = stage(senders(2, STREAMS, &list(4 * MIB, POD)).await, &LONG_TIMEOUTS).await;
    let identity = stage.fleet.plane.front_proxy_identity();
    let mut leaving = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mut raw = Raw::http2(&stage.adapter, Some(&identity), &[]).await.expect("a connection");
        leaving.spawn(async move {
            for number in 0..STREAMS {
                let path = path((connection + number) % STREAMS);
                let stream = u32::try_from(2 * number + 1).expect("a small number");
                let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block("GET", &path, &MASTER));
                raw.send(&head).await.expect("the connection is open");
            }
            // Read one response, then close the connection with all other streams open.
            raw.frame_like(|frame| frame.kind == HEADERS).await.expect("a response");
        });
    }
    leaving.join_all().await;
    let requests = CONNECTIONS * STREAMS;
    Load { members: 2, requests, connections: CONNECTIONS }.assert_holds(&stage.adapter);
    released(&stage).await;
    let client = front(&stage.fleet, &stage.adapter);
    assert_eq!(status(&client, 0).await, StatusCode::OK, "the memory is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn member_requests_and_connections_stay_within_the_formula() {
    const MEMBERS: usize = 20;
    const REQUESTS: usize = 100;
    const CONNECTIONS: usize = 200;
    let flags = ["--member-timeout=1h", "--request-timeout=1h", "--max-requests-inflight=0"];
    let stage = stage(members(MEMBERS, 1).await, &flags).await;
    let base = stage.adapter.peak_bytes().expect("the adapter runs");
    println!("base: {} KiB", base >> 10);
    assert!(base <= BASE, "{base} bytes");

    let identity = stage.fleet.plane.front_proxy_identity();
    let mut connections = Vec::new();
    for query in 0..CONNECTIONS {
        let (raw, is_ok) = if query % 2 == 0 {
            start_over_http1(&stage.adapter, &identity, query).await
        } else {
            start_over_http2(&stage.adapter, &identity, query).await
        };
        assert!(is_ok);
        connections.push(raw);
    }
    let before = stage.adapter.peak_bytes().expect("the adapter runs");
    let connection = (before - base) / CONNECTIONS;
    println!("a connection: {} KiB", connection >> 10);
    assert!(connection <= CONNECTION, "{connection} bytes");

    let grown = grown_by(&stage, (0..REQUESTS).map(path), &ALICE).await;
    let request = grown / (REQUESTS * MEMBERS);
    println!("a request to a member: {request} bytes");
    assert!(request <= REQUEST, "{request} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn longest_request_head_stays_within_the_formula() {
    const MEMBERS: usize = 10;
    const REQUESTS: usize = 100;
    let flags = ["--member-timeout=1h", "--request-timeout=1h", "--max-requests-inflight=0"];
    let stage = stage(members(MEMBERS, 1).await, &flags).await;
    let value = "a".repeat(63);
    // 15 KiB of URL and 45 KiB of headers per request.
    let values = vec![value.as_str(); 235].join(",");
    let paths = (0..REQUESTS).map(|query| format!("{}%2Cb+notin+({values})", path(query)));
    let groups = [("x-remote-group", value.as_str()); 450];
    let headers: Vec<_> = ALICE.into_iter().chain(groups).collect();
    let grown = grown_by(&stage, paths, &headers).await;
    println!("a request with a long head: {} KiB", (grown / REQUESTS) >> 10);
    let bound = CLIENT_REQUEST + MEMBERS * LONG_REQUEST;
    assert!(grown / REQUESTS <= bound, "{} bytes exceed {bound}", grown / REQUESTS);
}

/// The growth of peak memory in bytes by these requests while all members hang.
async fn grown_by(stage: &Stage, paths: impl Iterator<Item = String>, headers: &[(&str, &str)]) -> usize {
    for member in &stage.fleet.members {
        member.reset_counters();
        member.fault(Fault::Hang);
    }
    let before = stage.adapter.peak_bytes().expect("the adapter runs");
    let client = front(&stage.fleet, &stage.adapter);
    let mut in_flight = JoinSet::new();
    for path in paths {
        let mut request = Request::get(path).body(Bytes::new()).expect("a request");
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a name");
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        let client = client.clone();
        in_flight.spawn(async move { client.send(request).await });
    }
    let requests = in_flight.len();
    for member in &stage.fleet.members {
        let all = member.until(|counters| counters.in_flight == requests);
        tokio::time::timeout(GENEROUS, all).await.expect("the member gets all queries");
    }
    stage.adapter.peak_bytes().expect("the adapter runs") - before
}
