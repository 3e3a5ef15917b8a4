//! `--max-connections` is exact, and no request pays for it.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::adapter::AdapterProcess;
use testkit::member::Fault;
use testkit::sockets::connections;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::raw::{END_HEADERS, END_STREAM, HEADERS, HTTP1, Raw, block, frame};
use crate::stage::{GENEROUS, PODS, Stage, distinct, members};

/// How many connections the process has accepted at an address.
fn open(adapter: &AdapterProcess, address: SocketAddr) -> usize {
    let connections = connections(adapter.id().expect("it runs")).expect("its sockets");
    connections.iter().filter(|connection| connection.local == address.port()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_never_more_connections_than_allowed() {
    let stage = Stage::start(members(1, 1).await, &["--max-connections=8"]).await;
    let (adapter, address) = (&stage.adapter, stage.adapter.metrics_address());
    let clients = (0..64).map(|_| async move {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
        let mut answer = Vec::new();
        // Until another one comes in its place.
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.read_to_end(&mut answer)).await;
        answer
    });
    let mut most = 0;
    let answers = tokio::select! {
        answers = futures::future::join_all(clients) => answers,
        () = async {
            loop {
                most = most.max(open(adapter, address));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } => unreachable!(),
    };
    // One is accepted and waits for its place.
    assert!((4..=9).contains(&most), "{most}");
    let answered = answers.iter().filter(|answer| answer.starts_with(b"HTTP/1.1 200 OK")).count();
    assert!(answered >= 8, "{answered}");
}

fn head(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_with_a_request_in_progress_makes_room() {
    // Without an aggregation layer, which would come again and again for a connection of its own.
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
        raw.send(head(&distinct(number)).as_bytes()).await.expect("it is open");
        http1.push(raw);
        let mut raw = Raw::http2(&stage.adapter, Some(&identity), &[]).await.expect("a connection");
        let headers = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];
        let head = block("GET", &distinct(2 + number), &headers);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)).await.expect("it is open");
        http2.push(raw);
        let asked = member.until(|counters| counters.in_flight == 2 * (number + 1));
        tokio::time::timeout(GENEROUS, asked).await.expect("they are asked");
    }
    for _ in 0..20 {
        let mut late = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
        assert_eq!(late.rest().await, b"", "there is no room for it");
    }
    assert_eq!(member.counters().in_flight, 4, "all of them wait still");
    for raw in &mut http2 {
        let answer = raw.frame_like(|frame| frame.kind == HEADERS && frame.stream == 1);
        let answer = tokio::time::timeout(GENEROUS, answer).await.expect("in time").expect("an answer");
        assert_eq!(answer.payload[0], 0x88, "HPACK of a status of 200");
    }
    for raw in &mut http1 {
        let answer = tokio::time::timeout(GENEROUS, raw.until(b"\r\n\r\n")).await.expect("in time");
        assert!(answer.expect("an answer").starts_with(b"HTTP/1.1 200 OK"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_connection_makes_room_gets_a_whole_answer_or_nothing() {
    let stage = Stage::start(members(1, 1).await, &["--max-connections=4"]).await;
    let identity = stage.fleet.plane.front_proxy_identity();
    let (adapter, identity) = (&stage.adapter, &identity);
    let clients = (0..12).map(|_| async move {
        let (mut answered, mut unanswered) = (0, 0);
        while answered < 20 && answered + unanswered < 2000 {
            let Ok(mut raw) = Raw::connect(adapter, HTTP1, Some(identity)).await else { continue };
            while answered < 20 {
                if raw.send(head(PODS).as_bytes()).await.is_err() {
                    unanswered += 1;
                    break;
                }
                let Some(head) = raw.until(b"\r\n\r\n").await else {
                    unanswered += 1;
                    break;
                };
                let text = String::from_utf8(head).expect("a head");
                assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length = length.expect("a length").parse().expect("a number");
                assert!(raw.take(length).await.is_some(), "an answer is cut off");
                answered += 1;
            }
        }
        (answered, unanswered)
    });
    let counts = tokio::time::timeout(GENEROUS, futures::future::join_all(clients)).await.expect("in time");
    assert!(counts.iter().all(|(answered, _)| *answered >= 20), "{counts:?}");
}
