//! The serving certificate: replaced while it runs, refused when it does not do, warned of before it ends.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use testkit::adapter::AdapterProcess;
use testkit::pki::Authority;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::raw::{HTTP1, Raw};
use crate::stage::{GENEROUS, PODS, Stage, members};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
const SOON: &str = "--reload-interval=100ms";

/// The serial number of the certificate that a new connection is shown.
async fn shown(adapter: &AdapterProcess) -> Vec<u8> {
    serial(&Raw::connect(adapter, HTTP1, None).await.expect("a connection").certificate())
}

fn serial(der: &[u8]) -> Vec<u8> {
    X509Certificate::from_der(der).expect("a certificate").1.raw_serial().to_vec()
}

async fn until_shown(adapter: &AdapterProcess, wanted: &[u8]) {
    let deadline = Instant::now() + GENEROUS;
    while shown(adapter).await != wanted {
        assert!(Instant::now() < deadline, "{}", adapter.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_serving_certificate_is_shown_and_no_request_fails_meanwhile() {
    let stage = Stage::start(members(1, 1).await, &[SOON]).await;
    for _ in 0..3 {
        let new = stage.adapter.authority().server(&NAMES);
        stage.adapter.replace_serving_files(&new.certificate, &new.key).expect("files are written");
        let wanted = serial(&new.chain()[0]);
        let rotated = until_shown(&stage.adapter, &wanted);
        let asking = async {
            loop {
                // The connection that was there before goes on.
                assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
            }
        };
        tokio::select! {
            () = rotated => {}
            () = asking => {}
        }
    }
    let line = stage.adapter.says("files have changed and are in use", GENEROUS).await.expect("a line");
    assert!(line.contains("--tls-cert-file=") && line.contains("--tls-private-key-file="), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_pair_or_one_that_does_not_match_leaves_the_old_one_in_use() {
    let stage = Stage::start(members(1, 1).await, &[SOON]).await;
    let adapter = &stage.adapter;
    let before = shown(adapter).await;
    let (one, other) = (adapter.authority().server(&NAMES), adapter.authority().server(&NAMES));
    for (certificate, key, words) in [
        ("no certificate", one.key.as_str(), "--tls-cert-file has no certificate in PEM"),
        (one.certificate.as_str(), "", "--tls-private-key-file has no private key in PEM"),
        (one.certificate.as_str(), other.key.as_str(), "cannot be served: "),
    ] {
        adapter.replace_serving_files(certificate, key).expect("files are written");
        let line = adapter.says(words, GENEROUS).await.expect("a line");
        assert!(line.contains("what was in use stays in use"), "{line}");
        assert_eq!(shown(adapter).await, before, "{words}");
    }
    adapter.replace_serving_files(&one.certificate, &one.key).expect("files are written");
    until_shown(adapter, &serial(&one.chain()[0])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_serving_certificate_is_a_metric_and_a_warning_ahead_of_time() {
    let stage = Stage::start(members(1, 1).await, &[SOON]).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for certificate in ["serving", "client-ca", "front-proxy-ca"] {
        let end = expiry(&stage, certificate).await;
        assert!(end > now + 365 * 24 * 60 * 60, "the test kit's certificates last: {certificate} {end}");
    }
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    assert!(!log.contains("a certificate ends soon"), "{log}");

    let short = stage.adapter.authority().short_lived_server(&NAMES, 4);
    stage.adapter.replace_serving_files(&short.certificate, &short.key).expect("files are written");
    let line = stage.adapter.says("a certificate ends soon: renew it", GENEROUS).await.expect("a warning");
    assert!(line.contains("WARN") && line.contains("certificate=\"serving\""), "{line}");
    let end = expiry(&stage, "serving").await;
    assert!((now..now + 3600).contains(&end), "{end}");
    let line = stage.adapter.says("a certificate has ended: renew it", GENEROUS).await.expect("an error");
    assert!(line.contains("ERROR") && line.contains("certificate=\"serving\""), "{line}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    for words in ["a certificate ends soon", "a certificate has ended"] {
        assert_eq!(log.matches(words).count(), 1, "{log}");
    }
}

async fn expiry(stage: &Stage, certificate: &str) -> u64 {
    let metrics = stage.metrics().await;
    let name = "karmada_metrics_adapter_certificate_expiry_timestamp_seconds";
    let name = format!("{name}{{certificate=\"{certificate}\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("the metric");
    value.parse().expect("a number")
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_taken_for_the_adapters() {
    // The checks above stand on what `Raw` verifies.
    let stage = Stage::start(members(1, 1).await, &[SOON]).await;
    let stranger = Authority::new("stranger").server(&NAMES);
    stage.adapter.replace_serving_files(&stranger.certificate, &stranger.key).expect("files are written");
    let deadline = Instant::now() + GENEROUS;
    while Raw::connect(&stage.adapter, HTTP1, None).await.is_ok() {
        assert!(Instant::now() < deadline, "{}", stage.adapter.log_tail());
    }
}
