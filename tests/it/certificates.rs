//! The serving certificate: it is reloaded at run time, an invalid one is rejected, and a warning is logged before it expires.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use testkit::adapter::AdapterProcess;
use testkit::pki::Authority;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::raw::{HTTP1, Raw};
use crate::stage::{GENEROUS, PODS, Stage, members};

const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
const SOON: &str = "--reload-interval=100ms";

/// The serial number of the certificate that the server presents to a new connection.
async fn presented_serial(adapter: &AdapterProcess) -> Vec<u8> {
    serial(&Raw::connect(adapter, HTTP1, None).await.expect("a connection").certificate())
}

fn serial(der: &[u8]) -> Vec<u8> {
    X509Certificate::from_der(der).expect("a certificate").1.raw_serial().to_vec()
}

async fn until_presented(adapter: &AdapterProcess, wanted: &[u8]) {
    let deadline = Instant::now() + GENEROUS;
    while presented_serial(adapter).await != wanted {
        assert!(Instant::now() < deadline, "{}", adapter.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_serving_certificate_is_used_without_failed_requests() {
    let stage = Stage::start(members(1, 1).await, &[SOON]).await;
    for _ in 0..3 {
        let new = stage.adapter.authority().server(&NAMES);
        stage.adapter.replace_serving_files(&new.certificate, &new.key).expect("files are written");
        let wanted = serial(&new.chain()[0]);
        let rotation = until_presented(&stage.adapter, &wanted);
        let queries = async {
            loop {
                // The existing connection stays in use.
                assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
            }
        };
        tokio::select! {
            () = rotation => {}
            () = queries => {}
        }
    }
    let line =
        stage.adapter.wait_for_log_line("files have changed and are in use", GENEROUS).await.expect("a line");
    assert!(line.contains("--tls-cert-file=") && line.contains("--tls-private-key-file="), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_or_mismatched_pair_keeps_the_old_certificate() {
    let stage = Stage::start(members(1, 1).await, &[SOON]).await;
    let adapter = &stage.adapter;
    let before = presented_serial(adapter).await;
    let (one, other) = (adapter.authority().server(&NAMES), adapter.authority().server(&NAMES));
    for (certificate, key, words) in [
        ("no certificate", one.key.as_str(), "--tls-cert-file has no certificate in PEM"),
        (one.certificate.as_str(), "", "--tls-private-key-file has no private key in PEM"),
        (one.certificate.as_str(), other.key.as_str(), "cannot be used: "),
    ] {
        adapter.replace_serving_files(certificate, key).expect("files are written");
        let line = adapter.wait_for_log_line(words, GENEROUS).await.expect("a line");
        assert!(line.contains("the previous content stays in use"), "{line}");
        assert_eq!(presented_serial(adapter).await, before, "{words}");
    }
    adapter.replace_serving_files(&one.certificate, &one.key).expect("files are written");
    until_presented(adapter, &serial(&one.chain()[0])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_certificate_expiry_has_a_metric_and_an_early_warning() {
    let stage = Stage::start(members(1, 1).await, &[SOON]).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for certificate in ["serving", "client-ca", "front-proxy-ca"] {
        let end = expiry(&stage, certificate).await;
        assert!(
            end > now + 365 * 24 * 60 * 60,
            "the certificates of the test kit are valid for more than a year: {certificate} {end}"
        );
    }
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    assert!(!log.contains("a certificate expires soon"), "{log}");

    let short = stage.adapter.authority().short_lived_server(&NAMES, 4);
    stage.adapter.replace_serving_files(&short.certificate, &short.key).expect("files are written");
    let line = stage
        .adapter
        .wait_for_log_line("a certificate expires soon: renew it", GENEROUS)
        .await
        .expect("a warning");
    assert!(line.contains("WARN") && line.contains("certificate=\"serving\""), "{line}");
    let end = expiry(&stage, "serving").await;
    assert!((now..now + 3600).contains(&end), "{end}");
    let line = stage
        .adapter
        .wait_for_log_line("a certificate has expired: renew it", GENEROUS)
        .await
        .expect("an error");
    assert!(line.contains("ERROR") && line.contains("certificate=\"serving\""), "{line}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    for words in ["a certificate expires soon", "a certificate has expired"] {
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
async fn certificate_of_another_ca_is_not_accepted() {
    // The tests above rely on the verification in `Raw`.
    let stage = Stage::start(members(1, 1).await, &[SOON]).await;
    let other = Authority::new("other").server(&NAMES);
    stage.adapter.replace_serving_files(&other.certificate, &other.key).expect("files are written");
    let deadline = Instant::now() + GENEROUS;
    while Raw::connect(&stage.adapter, HTTP1, None).await.is_ok() {
        assert!(Instant::now() < deadline, "{}", stage.adapter.log_tail());
    }
}
