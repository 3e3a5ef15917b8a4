//! Attacks on sockets: each attacking connection is closed, memory stays bounded, and normal clients are served meanwhile.

use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::adapter::AdapterProcess;
use testkit::api_client::Credentials;
use testkit::member::Fault;
use testkit::pki::Identity;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, HTTP1, INITIAL_WINDOW, MAX_STREAMS, PING,
    RESET, Raw, SETTINGS, block, frame, settings,
};
use crate::stage::{GENEROUS, PODS, Stage, client, members};

/// The longest wait of a normal client, on a machine that the test keeps busy.
const PROMPT: Duration = Duration::from_secs(10);
/// The most memory growth by an attack, in a debug build.
const MEMORY: usize = 96 << 20;

/// How many responses of about 2 MB a client requests and does not read.
const REPEATS: usize = 20;

const MASTER: [(&str, &str); 2] = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];

/// A new client and a connected client get their responses.
async fn healthy(stage: &Stage) {
    let served = async {
        let new = client(&stage.adapter, Credentials::None);
        assert_eq!(new.get("/readyz").await.expect("a response").status, StatusCode::OK);
        assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    };
    tokio::time::timeout(PROMPT, served).await.expect("normal clients are served");
}

/// Serves normal clients during an attack and then checks the growth of memory.
async fn beside(stage: &Stage, attack: impl Future<Output = ()>) {
    healthy(stage).await;
    let before = stage.adapter.resident_bytes().expect("the adapter runs");
    let serving = async {
        loop {
            healthy(stage).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(GENEROUS, attack) => ended.expect("the attacker's connections are closed"),
        () = serving => {}
    }
    healthy(stage).await;
    let grown = stage.adapter.resident_bytes().expect("the adapter runs").saturating_sub(before);
    assert!(grown < MEMORY, "memory has grown by {grown} bytes");
}

fn identity(stage: &Stage) -> Identity {
    stage.fleet.plane.front_proxy_identity()
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_do_not_block_clients_and_are_closed() {
    let stage = Stage::start(members(1, 1).await, &["--client-timeout=2s"]).await;
    let address = stage.adapter.address();
    beside(&stage, async {
        let mut open = Vec::new();
        for _ in 0..2000 {
            open.push(TcpStream::connect(address).await.expect("a connection"));
        }
        healthy(&stage).await;
        for mut stream in open {
            // Each one was evicted for a later one or timed out.
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_evicted_for_new_ones() {
    let stage = Stage::start(members(1, 1).await, &["--max-connections=16"]).await;
    let mut idle = Vec::new();
    for number in 0..48 {
        let protocol = if number % 2 == 0 { HTTP1 } else { crate::raw::HTTP2 };
        idle.push(Raw::connect(&stage.adapter, protocol, None).await.expect("a connection"));
        if number % 8 == 0 {
            healthy(&stage).await;
        }
    }
    for raw in &mut idle[..16] {
        tokio::time::timeout(GENEROUS, raw.rest()).await.expect("the connection is evicted");
    }
    healthy(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_a_request_times_out() {
    let stage = Stage::start(members(1, 1).await, &["--idle-timeout=1s", "--client-timeout=1h"]).await;
    let started = Instant::now();
    let mut http1 = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    http1.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("the connection is open");
    let mut http2 = Raw::http2(&stage.adapter, None, &[]).await.expect("a connection");
    // One connection sends no HTTP/2 preface, another one only sends pings.
    let mut silent = Raw::connect(&stage.adapter, crate::raw::HTTP2, None).await.expect("a connection");
    let mut pinging = Raw::http2(&stage.adapter, None, &[]).await.expect("a connection");
    let pings = async {
        while pinging.send(&frame(PING, 0, 0, &[0; 8])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let closed = async {
        let response = http1.rest().await;
        assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&response));
        http2.frame_like(|frame| frame.kind == GOAWAY).await.expect("GOAWAY before the end");
        http2.rest().await;
        silent.rest().await;
    };
    tokio::time::timeout(GENEROUS, async { tokio::join!(closed, pings) })
        .await
        .expect("the connections are closed");
    assert!(started.elapsed() >= Duration::from_secs(1));
    healthy(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_request_head_times_out_and_idle_client_stays() {
    let stage = Stage::start(members(1, 1).await, &["--client-timeout=1s"]).await;
    let mut idle = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    let adapter = &stage.adapter;
    let slow = async |start: &'static [u8]| {
        let mut raw = Raw::connect(adapter, HTTP1, None).await.expect("a connection");
        raw.send(start).await.expect("the connection is open");
        while raw.send(b"X-A: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let slow = async {
        let other = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n";
        tokio::join!(slow(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"), slow(other));
    };
    beside(&stage, slow).await;
    idle.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .expect("the connection is still open");
    idle.until(b"\r\n\r\nok").await.expect("a response");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_heads_and_urls_are_rejected() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let big = "x".repeat(70_000);
    let mut http1 = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: {big}\r\n\r\n");
    http1.send(head.as_bytes()).await.expect("the connection is open");
    let response = http1.rest().await;
    assert!(response.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&response));

    let mut http2 = Raw::http2(&stage.adapter, None, &[]).await.expect("a connection");
    let head = block("GET", "/healthz", &[("x-big", &big)]);
    let pieces: Vec<&[u8]> = head.chunks(16_000).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let (kind, flags) = if number == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let last = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
        http2.send(&frame(kind, flags | last, 1, piece)).await.expect("the connection is open");
    }
    let response = http2.frame_like(|frame| frame.kind == HEADERS && frame.stream == 1);
    let status =
        tokio::time::timeout(GENEROUS, response).await.expect("in time").expect("a response").payload;
    assert_eq!(status, [0x48, 0x83, 0x69, 0x90, 0xff], "status 431 in HPACK");

    let long = format!("{PODS}?labelSelector={}", "x".repeat(17_000));
    let response = stage.get(&long).await;
    assert_eq!(response.status, StatusCode::URI_TOO_LONG);
    assert_eq!(response.json().expect("JSON")["kind"], "Status");

    // A user in a big directory can have this many groups.
    let groups: Vec<String> = (0..500).map(|number| format!("X-Remote-Group: team-{number}\r\n")).collect();
    let mut many = Raw::connect(&stage.adapter, HTTP1, Some(&identity(&stage))).await.expect("a connection");
    let head = format!(
        "GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Remote-User: a\r\n\
         X-Remote-Group: system:masters\r\n{}\r\n",
        groups.concat()
    );
    many.send(head.as_bytes()).await.expect("the connection is open");
    assert!(many.rest().await.starts_with(b"HTTP/1.1 200 "));
    healthy(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_body_is_not_read_and_gets_405() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let identity = identity(&stage);
    let attack = async {
        let mut http1 = Raw::connect(&stage.adapter, HTTP1, Some(&identity)).await.expect("a connection");
        let head = format!(
            "POST {PODS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
             X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\r\n"
        );
        http1.send(head.as_bytes()).await.expect("the connection is open");
        let head = http1.until(b"\r\n\r\n").await.expect("a response before the body");
        assert!(head.starts_with(b"HTTP/1.1 405 "), "{}", String::from_utf8_lossy(&head));
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
        while http1.send(&chunk).await.is_ok() {}

        let mut http2 = Raw::http2(&stage.adapter, Some(&identity), &[]).await.expect("a connection");
        let head = block("POST", PODS, &MASTER);
        http2.send(&frame(HEADERS, END_HEADERS, 1, &head)).await.expect("the connection is open");
        http2.send(&frame(DATA, 0, 1, &[b'x'; 8192])).await.expect("the connection is open");
        let ended = http2.frame_like(|frame| frame.stream == 1 && frame.kind == RESET).await;
        assert_eq!(ended.expect("the stream is closed").number(0), 0, "NO_ERROR after a complete response");
    };
    beside(&stage, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_does_not_read_is_closed_and_frees_its_slot() {
    let flags = ["--max-requests-inflight=1", "--client-timeout=1s", "--request-timeout=4s"];
    let stage = Stage::start(members(2, 3000).await, &flags).await;
    stage.fleet.plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["*"]);
    let identity = identity(&stage);
    let alice = [("x-remote-user", "alice")];
    let free = async || {
        let deadline = Instant::now() + GENEROUS;
        while stage.get_with(&PODS.replace("http", "no"), &alice).await.status != StatusCode::NOT_FOUND {
            assert!(Instant::now() < deadline);
        }
    };
    let taken = async || {
        let deadline = Instant::now() + GENEROUS;
        while !stage.metrics().await.contains("inflight_requests{request_kind=\"readOnly\"} 1") {
            assert!(Instant::now() < deadline);
        }
    };

    let mut http1 = Raw::connect(&stage.adapter, HTTP1, Some(&identity)).await.expect("a connection");
    let request = format!("GET {PODS} HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: alice\r\n\r\n");
    // More than the socket buffers of the system hold.
    http1.send(request.repeat(REPEATS).as_bytes()).await.expect("the connection is open");
    taken().await;
    free().await;
    let length = stage.get(PODS).await.body.len();
    assert!(http1.rest().await.len() < REPEATS * length, "the connection is closed before the end");

    // In HTTP/2, the stream is reset and other streams continue.
    let mut http2 =
        Raw::http2(&stage.adapter, Some(&identity), &[(INITIAL_WINDOW, 0)]).await.expect("a connection");
    http2
        .send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block("GET", PODS, &alice)))
        .await
        .expect("open");
    taken().await;
    let reset = http2.frame_like(|frame| frame.kind == RESET && frame.stream == 1);
    tokio::time::timeout(GENEROUS, reset)
        .await
        .expect("the stream is reset in time")
        .expect("the connection is open");
    free().await;
    http2.send(&settings(&[(INITIAL_WINDOW, 65_535)])).await.expect("the connection is open");
    http2
        .send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block("GET", "/healthz", &alice)))
        .await
        .expect("open");
    let response =
        http2.frame_like(|frame| frame.kind == DATA && frame.stream == 3).await.expect("a response");
    assert_eq!(response.payload, b"ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_reader_is_closed_after_the_write_timeout() {
    let flags = ["--client-timeout=2s", "--request-timeout=10s"];
    let stage = Stage::start(members(2, 3000).await, &flags).await;
    let mut raw = Raw::connect(&stage.adapter, HTTP1, Some(&identity(&stage))).await.expect("a connection");
    let request = format!(
        "GET {PODS} HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: a\r\nX-Remote-Group: system:masters\r\n\r\n"
    );
    raw.send(request.repeat(REPEATS).as_bytes()).await.expect("the connection is open");
    let length = stage.get(PODS).await.body.len();
    beside(&stage, async {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(14) {
            raw.some().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(raw.rest().await.len() < (REPEATS - 1) * length, "the connection is closed before the end");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_per_connection_are_limited() {
    let flags = ["--http2-max-streams-per-connection=7", "--member-timeout=1h", "--request-timeout=1h"];
    let stage = Stage::start(members(1, 1).await, &flags).await;
    stage.member(0).fault(testkit::member::Fault::Hang);
    let mut raw = Raw::http2(&stage.adapter, Some(&identity(&stage)), &[]).await.expect("a connection");
    let server_settings =
        raw.frame_like(|frame| frame.kind == SETTINGS && frame.flags == 0).await.expect("settings");
    let most = server_settings.payload.chunks(6).find(|setting| setting[..2] == MAX_STREAMS.to_be_bytes());
    assert_eq!(most.map(|setting| &setting[2..]), Some(&7_u32.to_be_bytes()[..]));
    for number in 0..8 {
        let head = block("GET", &format!("{PODS}?labelSelector=a%21%3D{number}"), &MASTER);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &head))
            .await
            .expect("the connection is open");
    }
    let refused = raw.frame_like(|frame| frame.kind == RESET).await.expect("the eighth is refused");
    assert_eq!((refused.stream, refused.number(0)), (15, 7), "REFUSED_STREAM");
}

/// Sends up to `most` bursts until the server closes the connection. Returns the number of bursts sent.
async fn flood(adapter: &AdapterProcess, most: u32, mut burst: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut raw = Raw::http2(adapter, None, &[]).await.expect("a connection");
    for number in 0..most {
        if raw.send(&burst(number)).await.is_err() {
            return number;
        }
    }
    most
}

/// A request and its reset for each of these streams.
fn resets(head: &[u8], streams: std::ops::Range<u32>) -> Vec<u8> {
    let pair = |number: u32| {
        let stream = 2 * number + 1;
        let reset = frame(RESET, 0, stream, &8_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, head), reset].concat()
    };
    streams.flat_map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_close_the_connection() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let head = block("GET", "/healthz", &[]);
    beside(&stage, async {
        for _ in 0..8 {
            let sent = flood(&stage.adapter, 1000, |burst| resets(&head, burst * 2000..(burst + 1) * 2000));
            assert!(sent.await < 1000, "the connection is closed");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_on_a_shared_connection_do_not_end_other_queries() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    stage.member(0).fault(Fault::Delay(Duration::from_millis(20)));
    let mut raw = Raw::http2(&stage.adapter, Some(&identity(&stage)), &[]).await.expect("a connection");
    let mut stream = 0;
    // 4,000 resets a second, in groups of 100.
    for round in 0..80_u32 {
        let leaving = block("GET", &format!("{PODS}?labelSelector=a%21%3D{round}"), &MASTER);
        raw.send(&resets(&leaving, stream..stream + 100)).await.expect("the connection is open");
        stream += 100;
        let steady = block("GET", PODS, &MASTER);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &steady))
            .await
            .expect("the connection is open");
        let response = raw.frame_like(|frame| {
            assert_ne!(frame.kind, GOAWAY, "round {round}");
            frame.kind == HEADERS && frame.stream == 2 * stream + 1
        });
        let response =
            tokio::time::timeout(GENEROUS, response).await.expect("in time").expect("the connection is open");
        assert_eq!(response.payload[0], 0x88, "status 200 in HPACK");
        stream += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_headers_close_the_connection() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let piece = [0].iter().chain(&[1, b'a', 1, b'b']).copied().collect::<Vec<u8>>().repeat(3000);
    beside(&stage, async {
        for piece in [piece.as_slice(), &[]] {
            let sent = flood(&stage.adapter, 100_000, |burst| {
                if burst == 0 {
                    return frame(HEADERS, END_STREAM, 1, &block("GET", "/healthz", &[]));
                }
                frame(CONTINUATION, 0, 1, piece)
            });
            assert!(sent.await < 10_000, "the connection is closed");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_and_settings_floods_do_not_grow_memory_or_delay_clients() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let adapter = &stage.adapter;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    let changes = settings(&[(INITIAL_WINDOW, 1000)]).repeat(1000);
    beside(&stage, async {
        // The responses are not read, so the server blocks and then closes the connection, or it handles all frames.
        let flooding = async |burst: &[u8]| {
            let flood = flood(adapter, 500, |_| burst.to_vec());
            let _ = tokio::time::timeout(Duration::from_secs(3), flood).await;
        };
        tokio::join!(flooding(&pings), flooding(&changes), flooding(&pings), flooding(&changes));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_never_reads_is_closed() {
    let stage = Stage::start(members(1, 1).await, &["--client-timeout=1s"]).await;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    beside(&stage, async {
        let sent = flood(&stage.adapter, 1_000_000, |_| pings.clone()).await;
        assert!(sent < 1_000_000);
    })
    .await;
}
