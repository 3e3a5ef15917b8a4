//! Shutdown: readiness fails first, then requests are served for a while, then only requests in flight delay the exit.

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
    let id = stage.adapter.id().expect("the adapter runs").to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
    assert!(killed.success());
}

async fn assert_exits(stage: &mut Stage) {
    let status =
        tokio::time::timeout(GENEROUS, stage.adapter.ended()).await.expect("the adapter exits in time");
    assert_eq!(status.expect("an exit status").code(), Some(0), "{}", stage.adapter.log_tail());
}

async fn status(client: &ApiClient, path: &str) -> StatusCode {
    crate::stage::send(client, "GET", path, &MASTER, "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_signal_readiness_fails_and_connections_are_still_served() {
    let delay = Duration::from_secs(4);
    let mut stage = Stage::start(members(1, 1).await, &["--shutdown-delay-duration=4s"]).await;
    let identity = stage.fleet.plane.front_proxy_identity();
    let mut http2 = Raw::http2(&stage.adapter, None, &[]).await.expect("a connection");
    let mut http1 = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    http1.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("the connection is open");
    http1.until(b"\r\n\r\nok").await.expect("a response");
    let started = Instant::now();
    terminate(&stage).await;
    let unready = async { while stage.get("/readyz").await.status == StatusCode::OK {} };
    tokio::time::timeout(GENEROUS, unready).await.expect("readiness fails in time");
    let mut rounds = 0;
    while started.elapsed() < delay / 2 {
        let new = client(&stage.adapter, Credentials::Certificate(&identity));
        let expected = [
            ("/readyz", StatusCode::INTERNAL_SERVER_ERROR),
            ("/livez", StatusCode::OK),
            (PODS, StatusCode::OK),
        ];
        for (path, expected) in expected {
            assert_eq!((stage.get(path).await.status, status(&new, path).await), (expected, expected));
        }
        rounds += 1;
    }
    assert!(rounds > 0, "no request in half of the delay: the machine is too slow");
    let goaway = tokio::time::timeout(GENEROUS, http2.frame_like(|frame| frame.kind == GOAWAY)).await;
    goaway.expect("in time").expect("GOAWAY before the end");
    tokio::time::timeout(GENEROUS, http1.rest()).await.expect("an idle connection is closed");
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
    assert_exits(&mut stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_delay_shutdown() {
    let mut stage = Stage::start(members(1, 1).await, &["--shutdown-delay-duration=0s"]).await;
    let _unencrypted = TcpStream::connect(stage.adapter.address()).await.expect("a connection");
    let mut silent = Vec::new();
    for protocol in [HTTP1, HTTP2] {
        silent.push(Raw::connect(&stage.adapter, protocol, None).await.expect("a connection"));
    }
    silent.push(Raw::http2(&stage.adapter, None, &[]).await.expect("a connection"));
    let mut half = Raw::connect(&stage.adapter, HTTP1, None).await.expect("a connection");
    half.send(b"GET /livez HTTP/1.1\r\nHost: local").await.expect("the connection is open");
    let started = Instant::now();
    terminate(&stage).await;
    assert_exits(&mut stage).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_complete_before_exit() {
    let mut stage = Stage::start(members(1, 1).await, &["--shutdown-delay-duration=0s"]).await;
    stage.member(0).reset_counters();
    stage.member(0).fault(Fault::Delay(Duration::from_secs(2)));
    let identity = stage.fleet.plane.front_proxy_identity();
    let mut http1 = Raw::connect(&stage.adapter, HTTP1, Some(&identity)).await.expect("a connection");
    let head = format!(
        "GET {PODS}?labelSelector=a%21%3Db HTTP/1.1\r\nHost: localhost\r\nX-Remote-User: admin\r\nX-Remote-Group: system:masters\r\n\r\n"
    );
    http1.send(head.as_bytes()).await.expect("the connection is open");
    let (response, ()) = tokio::join!(stage.get(PODS), async {
        stage.member(0).until(|counters| counters.in_flight == 2).await;
        terminate(&stage).await;
    });
    assert_eq!(response.status, StatusCode::OK);
    let response = tokio::time::timeout(GENEROUS, http1.rest())
        .await
        .expect("the connection is closed after the response");
    assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&response));
    assert_exits(&mut stage).await;
}
