//! `--max-connections` is an exact limit. A connection with a request in flight is never evicted.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::adapter::AdapterProcess;
use testkit::member::Fault;
use testkit::sockets::connections;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::raw::{END_HEADERS, END_STREAM, HEADERS, HTTP1, Raw, block, frame};
use crate::stage::{GENEROUS, PODS, Stage, distinct, members};

/// The number of accepted connections on this port.
fn open(adapter: &AdapterProcess, address: SocketAddr) -> usize {
    let connections = connections(adapter.id().expect("the adapter runs")).expect("sockets");
    connections.iter().filter(|connection| connection.local == address.port()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited() {
    let stage = Stage::start(members(1, 1).await, &["--max-connections=8"]).await;
    let (adapter, address) = (&stage.adapter, stage.adapter.metrics_address());
    let clients = (0..64).map(|_| async move {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .expect("the connection is open");
        let mut response = Vec::new();
        // The connection is closed when it is evicted.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut response)).await;
        response
    });
    let mut most = 0;
    let responses = tokio::select! {
        responses = futures::future::join_all(clients) => responses,
        () = async {
            loop {
                most = most.max(open(adapter, address));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => unreachable!(),
    };
    // One more connection is accepted and waits for a slot.
    assert!((4..=9).contains(&most), "{most}");
    let responded = responses.iter().filter(|response| response.starts_with(b"HTTP/1.1 200 OK")).count();
    assert!(responded >= 8, "{responded}");
}

fn head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_with_a_request_in_flight_is_not_evicted() {
    // No aggregation layer: it would open its own connections again and again.
    let flags = ["--max-connections=4", "--member-timeout=20s"];
    let stage = Stage::start_bare(members(1, 1).await, &flags).await;
    let member = stage.member(0);
    let identity = stage.fleet.plane.front_proxy_identity();
    let mut http1 = Vec::new();
    let mut http2 = Vec::new();
    member.reset_counters();
    member.fault(Fault::Delay(Duration::from_secs(8)));
    for number in 0..2 {
        let mut raw = Raw::connect(&stage.adapter, HTTP1, Some(&identity)).await.expect("a connection");
        raw.send(head(&distinct(number)).as_bytes()).await.expect("the connection is open");
        http1.push(raw);
        let mut raw = Raw::http2(&stage.adapter, Some(&identity), &[]).await.expect("a connection");
        let headers = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];
        let head = block("GET", &distinct(2 + number), &headers);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await.expect("the connection is open");
        http2.push(raw);
        let queried = member.until(|counters| counters.in_flight == 2 * (number + 1));
        tokio::time::timeout(GENEROUS, queried).await.expect("they are queried");
    }
    for _ in 0..20 {
        let mut late = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
        assert_eq!(late.rest().await, b"", "the late connection is closed");
    }
    assert_eq!(member.counters().in_flight, 4, "all queries are still in flight");
    for raw in &mut http2 {
        let response = raw.frame_like(|frame| frame.kind == HEADERS && frame.stream == 1);
        let response = tokio::time::timeout(GENEROUS, response).await.expect("in time").expect("a response");
        assert_eq!(response.payload[0], 0x88, "status 200 in HPACK");
    }
    for raw in &mut http1 {
        let response = tokio::time::timeout(GENEROUS, raw.until(b"\r\n\r\n")).await.expect("in time");
        assert!(response.expect("a response").starts_with(b"HTTP/1.1 200 OK"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_client_gets_a_complete_response_or_none() {
    let stage = Stage::start(members(1, 1).await, &["--max-connections=4"]).await;
    let identity = stage.fleet.plane.front_proxy_identity();
    let (adapter, identity) = (&stage.adapter, &identity);
    let clients = (0..12).map(|_| async move {
        let (mut responded, mut closed) = (0, 0);
        while responded < 20 && responded + closed < 2000 {
            let Ok(mut raw) = Raw::connect(adapter, HTTP1, Some(identity)).await else { continue };
            while responded < 20 {
                if raw.send(head(PODS).as_bytes()).await.is_err() {
                    closed += 1;
                    break;
                }
                let Some(head) = raw.until(b"\r\n\r\n").await else {
                    closed += 1;
                    break;
                };
                let text = String::from_utf8(head).expect("a head");
                assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length = length.expect("a length").parse().expect("a number");
                assert!(raw.take(length).await.is_some(), "the response is complete");
                responded += 1;
            }
        }
        (responded, closed)
    });
    let counts = tokio::time::timeout(GENEROUS, futures::future::join_all(clients)).await.expect("in time");
    assert!(counts.iter().all(|(responded, _)| *responded >= 20), "{counts:?}");
}
