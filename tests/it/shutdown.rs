//! How it ends: not ready at once, served for a while, then nothing is kept from ending but requests in progress.

use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::api_client::{ApiClient, Credentials};
use testkit::member::Fault;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::raw::{GOAWAY, HTTP1, HTTP2, Raw};
use crate::stage::{GENEROUS, PODS, Stage, client, members};

const MASTER: [(&str, &str); 2] = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];

async fn terminate(stage: &Stage) {
    let id = stage.adapter.id().expect("it runs").to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
    assert!(killed.success());
}

async fn ended(stage: &mut Stage) {
    let ended = tokio::time::timeout(GENEROUS, stage.adapter.ended()).await.expect("it ends in time");
    assert_eq!(ended.expect("it ran").code(), Some(0), "{}", stage.adapter.log_tail());
}

async fn status(client: &ApiClient, path: &str) -> StatusCode {
    crate::stage::send(client, "GET", path, &MASTER, "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_signal_it_is_not_ready_and_still_serves_old_and_new_connections_for_a_while() {
    let delay = Duration::from_secs(4);
    let mut stage = Stage::start(members(1, 1).await, &["--shutdown-delay-duration=4s"]).await;
    let identity = stage.fleet.plane.front_proxy_identity();
    let mut http2 = Raw::http2(&stage.adapter, None, &[]).await.expect("a connection");
    let mut http1 = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    http1.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it is open");
    http1.until(b"\r\n\r\nok").await.expect("an answer");
    let begun = Instant::now();
    terminate(&stage).await;
    let unready = async { while stage.get("/readyz").await.status == StatusCode::OK {} };
    tokio::time::timeout(GENEROUS, unready).await.expect("it is not ready");
    let mut asked = 0;
    while begun.elapsed() < delay / 2 {
        let new = client(&stage.adapter, Credentials::Certificate(&identity));
        let expected = [
            ("/readyz", StatusCode::INTERNAL_SERVER_ERROR),
            ("/livez", StatusCode::OK),
            (PODS, StatusCode::OK),
        ];
        for (path, expected) in expected {
            assert_eq!((stage.get(path).await.status, status(&new, path).await), (expected, expected));
        }
        asked += 1;
    }
    assert!(asked > 0, "this machine is too slow for the delay");
    let goaway = tokio::time::timeout(GENEROUS, http2.frame_like(|frame| frame.kind == GOAWAY)).await;
    goaway.expect("in time").expect("it says so before it closes");
    tokio::time::timeout(GENEROUS, http1.rest()).await.expect("an idle connection is closed");
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    ended(&mut stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_do_not_keep_it_from_ending() {
    let mut stage = Stage::start(members(1, 1).await, &["--shutdown-delay-duration=0s"]).await;
    let _unencrypted = TcpStream::connect(stage.adapter.address()).await.expect("a connection");
    let mut silent = Vec::new();
    for protocol in [HTTP1, HTTP2] {
        silent.push(Raw::connect(&stage.adapter, protocol, None).await.expect("a connection"));
    }
    silent.push(Raw::http2(&stage.adapter, None, &[]).await.expect("a connection"));
    let mut half = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    half.send(b"GET /livez HTTP/1.1\r\nHost: local").await.expect("it is open");
    let begun = Instant::now();
    terminate(&stage).await;
    ended(&mut stage).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_progress_are_answered_before_it_ends() {
    let mut stage = Stage::start(members(1, 1).await, &["--shutdown-delay-duration=0s"]).await;
    stage.member(0).reset_counters();
    stage.member(0).fault(Fault::Delay(Duration::from_secs(2)));
    let identity = stage.fleet.plane.front_proxy_identity();
    let mut http1 = Raw::connect(&stage.adapter, HTTP1, Some(&identity)).await.expect("a connection");
    let head = format!(
        "GET {PODS}?labelSelector=a%21%3Db HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\r\n"
    );
    http1.send(head.as_bytes()).await.expect("it is open");
    let (answer, ()) = tokio::join!(stage.get(PODS), async {
        stage.member(0).until(|counters| counters.in_flight == 2).await;
        terminate(&stage).await;
    });
    assert_eq!(answer.status, StatusCode::OK);
    let answer = tokio::time::timeout(GENEROUS, http1.rest()).await.expect("it is closed after the answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
    ended(&mut stage).await;
}
