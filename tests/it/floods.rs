//! Clients that press on sockets: each is cut off, memory stays bounded, and clients of good will are served meanwhile.

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

/// How long a client of good will waits at most, on a machine that the test itself keeps busy.
const PROMPT: Duration = Duration::from_secs(10);
/// How much memory an attack may take, in a debug build.
const MEMORY: usize = 96 << 20;

/// How often an answer of some 2 MB is asked for by those who do not read it.
const AGAIN: usize = 20;

const MASTER: [(&str, &str); 2] = [("x-remote-user", "admin"), ("x-remote-group", "system:masters")];

/// A client that connects anew and one that is connected get what they ask for.
async fn healthy(stage: &Stage) {
    let served = async {
        let new = client(&stage.adapter, Credentials::None);
        assert_eq!(new.get("/readyz").await.expect("an answer").status, StatusCode::OK);
        assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    };
    tokio::time::timeout(PROMPT, served).await.expect("clients of good will are served");
}

/// Serves clients of good will while an attack goes on, and then checks what it has cost.
async fn beside(stage: &Stage, attack: impl Future<Output = ()>) {
    healthy(stage).await;
    let before = stage.adapter.resident_bytes().expect("it runs");
    let serving = async {
        loop {
            healthy(stage).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = tokio::time::timeout(GENEROUS, attack) => ended.expect("attackers are cut off"),
        () = serving => {}
    }
    healthy(stage).await;
    let grown = stage.adapter.resident_bytes().expect("it runs").saturating_sub(before);
    assert!(grown < MEMORY, "it has grown by {grown} bytes");
}

fn identity(stage: &Stage) -> Identity {
    stage.fleet.plane.front_proxy_identity()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_half_open_connections_keep_nobody_out_and_end() {
    let stage = Stage::start(members(1, 1).await, &["--client-timeout=2s"]).await;
    let address = stage.adapter.address();
    beside(&stage, async {
        let mut open = Vec::new();
        for _ in 0..2000 {
            open.push(TcpStream::connect(address).await.expect("a connection"));
        }
        healthy(&stage).await;
        for mut stream in open {
            // The first ones made room for the last ones, whose time was up.
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_for_new_ones() {
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
        tokio::time::timeout(GENEROUS, raw.rest()).await.expect("it had to make room");
    }
    healthy(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed_after_its_time() {
    let stage = Stage::start(members(1, 1).await, &["--idle-timeout=1s", "--client-timeout=1h"]).await;
    let began = Instant::now();
    let mut http1 = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    http1.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
    let mut http2 = Raw::http2(&stage.adapter, None, &[]).await.expect("a connection");
    // One that speaks no HTTP/2 after all, and one that pings on and on.
    let mut silent = Raw::connect(&stage.adapter, crate::raw::HTTP2, None).await.expect("a connection");
    let mut pinging = Raw::http2(&stage.adapter, None, &[]).await.expect("a connection");
    let pings = async {
        while pinging.send(&frame(PING, 0, 0, &[0; 8])).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let closed = async {
        let answer = http1.rest().await;
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
        http2.frame_like(|frame| frame.kind == GOAWAY).await.expect("it says so before it closes");
        http2.rest().await;
        silent.rest().await;
    };
    tokio::time::timeout(GENEROUS, async { tokio::join!(closed, pings) }).await.expect("they are closed");
    assert!(began.elapsed() >= Duration::from_secs(1));
    healthy(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_comes_slowly_is_cut_and_an_idle_client_beside_it_is_not() {
    let stage = Stage::start(members(1, 1).await, &["--client-timeout=1s"]).await;
    let mut idle = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    let adapter = &stage.adapter;
    let slow = async |began: &'static [u8]| {
        let mut raw = Raw::connect(adapter, HTTP1, None).await.expect("a connection");
        raw.send(began).await.expect("it is open");
        while raw.send(b"X-A: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let slow = async {
        let other = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n";
        tokio::join!(slow(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"), slow(other));
    };
    beside(&stage, slow).await;
    idle.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open still");
    idle.until(b"\r\n\r\nok").await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_urls_beyond_their_limits_are_refused() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let big = "x".repeat(70_000);
    let mut http1 = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Big: {big}\r\n\r\n");
    http1.send(head.as_bytes()).await.expect("it is open");
    let answer = http1.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer));

    let mut http2 = Raw::http2(&stage.adapter, None, &[]).await.expect("a connection");
    let head = block("GET", "/healthz", &[("x-big", &big)]);
    let pieces: Vec<&[u8]> = head.chunks(16_000).collect();
    for (number, piece) in pieces.iter().enumerate() {
        let (kind, flags) = if number == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let last = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
        http2.send(&frame(kind, flags | last, 1, piece)).await.expect("it is open");
    }
    let answer = http2.frame_like(|frame| frame.kind == HEADERS && frame.stream == 1);
    let status = tokio::time::timeout(GENEROUS, answer).await.expect("in time").expect("an answer").payload;
    assert_eq!(status, [0x48, 0x83, 0x69, 0x90, 0xff], "HPACK of a status of 431");

    let long = format!("{PODS}?labelSelector={}", "x".repeat(17_000));
    let answer = stage.get(&long).await;
    assert_eq!(answer.status, StatusCode::URI_TOO_LONG);
    assert_eq!(answer.json().expect("JSON")["kind"], "Status");

    // As many groups as a user may have in a big directory.
    let groups: Vec<String> = (0..500).map(|number| format!("X-Remote-Group: team-{number}\r\n")).collect();
    let mut many = Raw::connect(&stage.adapter, HTTP1, Some(&identity(&stage))).await.expect("a connection");
    let head = format!(
        "GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Remote-User: a\r\n\
         X-Remote-Group: system:masters\r\n{}\r\n",
        groups.concat()
    );
    many.send(head.as_bytes()).await.expect("it is open");
    assert!(many.rest().await.starts_with(b"HTTP/1.1 200 "));
    healthy(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_is_not_read_and_its_sender_gets_a_405() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let identity = identity(&stage);
    let attack = async {
        let mut http1 = Raw::connect(&stage.adapter, HTTP1, Some(&identity)).await.expect("a connection");
        let head = format!(
            "POST {PODS} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
             X-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\r\n"
        );
        http1.send(head.as_bytes()).await.expect("it is open");
        let head = http1.until(b"\r\n\r\n").await.expect("an answer before the body");
        assert!(head.starts_with(b"HTTP/1.1 405 "), "{}", String::from_utf8_lossy(&head));
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 65_536], b"\r\n"].concat();
        while http1.send(&chunk).await.is_ok() {}

        let mut http2 = Raw::http2(&stage.adapter, Some(&identity), &[]).await.expect("a connection");
        let head = block("POST", PODS, &MASTER);
        http2.send(&frame(HEADERS, END_HEADERS, 1, &head)).await.expect("it is open");
        http2.send(&frame(DATA, 0, 1, &[b'x'; 8192])).await.expect("it is open");
        let ended = http2.frame_like(|frame| frame.stream == 1 && frame.kind == RESET).await;
        assert_eq!(ended.expect("the stream is closed").number(0), 0, "NO_ERROR after a whole answer");
    };
    beside(&stage, attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_cut_and_frees_its_place() {
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
    // More than the system's own buffers take.
    http1.send(request.repeat(AGAIN).as_bytes()).await.expect("it is open");
    taken().await;
    free().await;
    let whole = stage.get(PODS).await.body.len();
    assert!(http1.rest().await.len() < AGAIN * whole, "it was cut before the end");

    // Over HTTP/2 the stream is reset, and its neighbours go on.
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
        .expect("it is reset in time")
        .expect("the connection is open");
    free().await;
    http2.send(&settings(&[(INITIAL_WINDOW, 65_535)])).await.expect("it is open");
    http2
        .send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block("GET", "/healthz", &alice)))
        .await
        .expect("open");
    let answer = http2.frame_like(|frame| frame.kind == DATA && frame.stream == 3).await.expect("an answer");
    assert_eq!(answer.payload, b"ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_drop_by_drop_is_cut_once_its_answer_has_taken_too_long() {
    let flags = ["--client-timeout=2s", "--request-timeout=10s"];
    let stage = Stage::start(members(2, 3000).await, &flags).await;
    let mut raw = Raw::connect(&stage.adapter, HTTP1, Some(&identity(&stage))).await.expect("a connection");
    let request = format!(
        "GET {PODS} HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: a\r\nX-Remote-Group: system:masters\r\n\r\n"
    );
    raw.send(request.repeat(AGAIN).as_bytes()).await.expect("it is open");
    let whole = stage.get(PODS).await.body.len();
    beside(&stage, async {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(14) {
            raw.some().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(raw.rest().await.len() < (AGAIN - 1) * whole, "it was cut before the end");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_no_more_streams_than_allowed() {
    let flags = ["--http2-max-streams-per-connection=7", "--member-timeout=1h", "--request-timeout=1h"];
    let stage = Stage::start(members(1, 1).await, &flags).await;
    stage.member(0).fault(testkit::member::Fault::Hang);
    let mut raw = Raw::http2(&stage.adapter, Some(&identity(&stage)), &[]).await.expect("a connection");
    let theirs = raw.frame_like(|frame| frame.kind == SETTINGS && frame.flags == 0).await.expect("settings");
    let most = theirs.payload.chunks(6).find(|setting| setting[..2] == MAX_STREAMS.to_be_bytes());
    assert_eq!(most.map(|setting| &setting[2..]), Some(&7_u32.to_be_bytes()[..]));
    for number in 0..8 {
        let head = block("GET", &format!("{PODS}?labelSelector=a%21%3D{number}"), &MASTER);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &head)).await.expect("it is open");
    }
    let refused = raw.frame_like(|frame| frame.kind == RESET).await.expect("the eighth is refused");
    assert_eq!((refused.stream, refused.number(0)), (15, 7), "REFUSED_STREAM");
}

/// Sends what `burst` gives until the other end closes or `most` bursts are sent; the bursts that it took.
async fn flood(adapter: &AdapterProcess, most: u32, mut burst: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let mut raw = Raw::http2(adapter, None, &[]).await.expect("a connection");
    for number in 0..most {
        if raw.send(&burst(number)).await.is_err() {
            return number;
        }
    }
    most
}

/// A request and its reset, for each of so many streams.
fn resets(head: &[u8], streams: std::ops::Range<u32>) -> Vec<u8> {
    let pair = |number: u32| {
        let stream = 2 * number + 1;
        let reset = frame(RESET, 0, stream, &8_u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, head), reset].concat()
    };
    streams.flat_map(pair).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_their_connection() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let head = block("GET", "/healthz", &[]);
    beside(&stage, async {
        for _ in 0..8 {
            let took = flood(&stage.adapter, 1000, |burst| resets(&head, burst * 2000..(burst + 1) * 2000));
            assert!(took.await < 1000, "the connection is closed");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_shared_connection_that_leave_at_once_end_nobody_elses_query() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    stage.member(0).fault(Fault::Delay(Duration::from_millis(20)));
    let mut raw = Raw::http2(&stage.adapter, Some(&identity(&stage)), &[]).await.expect("a connection");
    let mut stream = 0;
    // 4,000 a second, 100 of them within the same moment.
    for round in 0..80_u32 {
        let leaving = block("GET", &format!("{PODS}?labelSelector=a%21%3D{round}"), &MASTER);
        raw.send(&resets(&leaving, stream..stream + 100)).await.expect("it is open");
        stream += 100;
        let steady = block("GET", PODS, &MASTER);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, &steady))
            .await
            .expect("it is open");
        let answer = raw.frame_like(|frame| {
            assert_ne!(frame.kind, GOAWAY, "round {round}");
            frame.kind == HEADERS && frame.stream == 2 * stream + 1
        });
        let answer = tokio::time::timeout(GENEROUS, answer).await.expect("in time").expect("it is open");
        assert_eq!(answer.payload[0], 0x88, "HPACK of a status of 200");
        stream += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_go_on_and_on_end_their_connection() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let piece = [0].iter().chain(&[1, b'a', 1, b'b']).copied().collect::<Vec<u8>>().repeat(3000);
    beside(&stage, async {
        for piece in [piece.as_slice(), &[]] {
            let took = flood(&stage.adapter, 100_000, |burst| {
                if burst == 0 {
                    return frame(HEADERS, END_STREAM, 1, &block("GET", "/healthz", &[]));
                }
                frame(CONTINUATION, 0, 1, piece)
            });
            assert!(took.await < 10_000, "the connection is closed");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_pings_and_settings_take_no_memory_and_keep_nobody_waiting() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let adapter = &stage.adapter;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    let changes = settings(&[(INITIAL_WINDOW, 1000)]).repeat(1000);
    beside(&stage, async {
        // Nobody reads the answers, so the sender is held up and then cut, or gets through with it.
        let flooding = async |burst: &[u8]| {
            let flood = flood(adapter, 500, |_| burst.to_vec());
            let _ = tokio::time::timeout(Duration::from_secs(3), flood).await;
        };
        tokio::join!(flooding(&pings), flooding(&changes), flooding(&pings), flooding(&changes));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_cut_however_much_it_asks() {
    let stage = Stage::start(members(1, 1).await, &["--client-timeout=1s"]).await;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    beside(&stage, async {
        let took = flood(&stage.adapter, 1_000_000, |_| pings.clone()).await;
        assert!(took < 1_000_000);
    })
    .await;
}
