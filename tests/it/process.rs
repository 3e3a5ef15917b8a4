//! The process: start, health, metrics and log.

use std::process::Stdio;

use http::StatusCode;
use testkit::fleet::Fleet;
use testkit::member::Fault;
use tokio::process::Command;

use crate::stage::{GENEROUS, PODS, Stage, binary, members};

/// Runs the binary until it exits. Returns its exit code, stdout and stderr.
pub async fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    run_in(&[], arguments).await
}

/// Like [`run`], with additional environment variables.
async fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.args(arguments).envs(environment.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(GENEROUS, command.output())
        .await
        .expect("the process exits in time")
        .expect("the process runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn commands_report_ignored_proxy_variables() {
    let environment = [("HTTPS_PROXY", "ftp://user:secret@p"), ("NO_PROXY", "a b")];
    let environment = [&environment[..], &[("KUBECONFIG", "/nowhere")]].concat();
    for command in [&["check"][..], &["query", "--metric=a"]] {
        let (code, out, err) = run_in(&environment, command).await;
        assert_eq!((code, out.as_str()), (Some(1), ""));
        let lines: Vec<_> = err.lines().collect();
        assert!(lines[0].starts_with("karmada-metrics-adapter: ignored: HTTPS_PROXY: "), "{err}");
        assert_eq!(
            lines[1],
            "karmada-metrics-adapter: ignored: NO_PROXY: \"a b\" is not a name, an address or a network"
        );
        assert_eq!(lines.len(), 3, "{err}");
        assert!(!err.contains("secret"), "{err}");
    }
}

#[tokio::test]
async fn invalid_flag_is_reported_in_one_line() {
    for (argument, words) in [("--secure-port=abc", "--secure-port"), ("--no-such-flag", "--no-such-flag")] {
        let (code, out, err) = run(&[argument]).await;
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(err.starts_with("karmada-metrics-adapter: ") && err.contains(words), "{err}");
    }
}

#[tokio::test]
async fn missing_kubeconfig_is_reported_in_one_error() {
    let (code, _, err) = run(&["--kubeconfig=/nowhere/kubeconfig", "--secure-port=0", "--cert-dir="]).await;
    assert_eq!(code, Some(1));
    let last = err.lines().last().expect("a line");
    assert!(
        last.starts_with("karmada-metrics-adapter: --kubeconfig: ") && last.contains("/nowhere/kubeconfig"),
        "{err}"
    );
}

#[tokio::test]
async fn unreadable_kubeconfig_from_the_environment_is_an_error() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("config");
    std::fs::write(&path, "clusters: [").expect("the file is written");
    // Like in a Pod. Its service account could belong to another cluster.
    let environment =
        [("KUBECONFIG", path.to_str().expect("text")), ("KUBERNETES_SERVICE_HOST", "127.0.0.1")];
    let (code, _, err) = run_in(&environment, &["--secure-port=0", "--cert-dir="]).await;
    assert_eq!(code, Some(1), "{err}");
    let last = err.lines().last().expect("a line");
    assert!(last.starts_with("karmada-metrics-adapter: KUBECONFIG or ~/.kube/config: "), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_queries_and_member_results() {
    let stage = Stage::start(members(2, 1).await, &[]).await;
    stage.get(PODS).await;
    stage.member(1).fault(Fault::Status(StatusCode::BAD_GATEWAY, String::new()));
    stage.get(PODS).await;
    let metrics = stage.metrics().await;
    for line in [
        r#"karmada_metrics_adapter_queries_total{group="custom.metrics.k8s.io"} 2"#,
        r#"karmada_metrics_adapter_member_outcomes_total{cluster="member1",group="custom.metrics.k8s.io",outcome="Found"} 2"#,
        r#"karmada_metrics_adapter_member_outcomes_total{cluster="member2",group="custom.metrics.k8s.io",outcome="Found"} 1"#,
        r#"karmada_metrics_adapter_member_outcomes_total{cluster="member2",group="custom.metrics.k8s.io",outcome="APIFailing"} 1"#,
        r#"karmada_metrics_adapter_member_request_duration_seconds_count{cluster="member1",group="custom.metrics.k8s.io"} 2"#,
        r#"karmada_metrics_adapter_clusters{standing="asked"} 2"#,
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let counted = metrics
        .lines()
        .find(|line| line.starts_with("apiserver_request_total{") && line.contains("http_requests"));
    let counted = counted.expect("requests are counted");
    for label in [r#"verb="GET""#, r#"group="custom.metrics.k8s.io""#, r#"resource="pods""#, r#"code="200""#]
    {
        assert!(counted.contains(label), "{label} is not in {counted}");
    }
    stage.member(0).fault(Fault::Status(StatusCode::BAD_GATEWAY, String::new()));
    // This query has no last-known values.
    let failed = stage.get(&format!("{PODS}?labelSelector=app")).await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    let metrics = stage.metrics().await;
    let is_failure =
        |line: &&str| line.starts_with("apiserver_request_total{") && line.contains(r#"code="503""#);
    let failure = metrics.lines().find(is_failure).expect("failures are counted");
    // The alerts of deploy/monitoring select by this label.
    assert!(failure.contains(r#"group="custom.metrics.k8s.io","#), "{failure}");
    for name in [
        "karmada_build_info{",
        "apiserver_request_duration_seconds_bucket{",
        "workqueue_queue_duration_seconds_count{name=",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} is not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_input_does_not_create_series() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let lines = async || stage.metrics().await.lines().count();
    stage.get(&PODS.replace("http_requests", "made_up")).await;
    lines().await;
    let before = lines().await;
    for number in 0..20 {
        stage.get(&PODS.replace("http_requests", &format!("made_up_{number}"))).await;
    }
    assert_eq!(lines().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_can_be_requested_separately() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let text = async |path: &str| {
        let response = stage.get(path).await;
        (response.status.as_u16(), String::from_utf8(response.body.to_vec()).expect("text"))
    };
    assert_eq!(text("/readyz").await, (200, "ok".to_owned()));
    assert_eq!(text("/livez/ping").await, (200, "ok".to_owned()));
    assert_eq!(text("/readyz/nonsense").await.0, 404);
    let (status, verbose) = text("/readyz?verbose&exclude=discovery&exclude=moon").await;
    assert_eq!(status, 200);
    assert_eq!(
        verbose,
        "[+]ping ok\n[+]informer-sync ok\n[+]discovery excluded: ok\n[+]shutdown ok\n\
         warn: some health checks cannot be excluded: no matches for \"moon\"\nreadyz check passed\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn log_has_no_credentials_at_any_level() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("adapter.log");
    let fleet = Fleet::start(members(2, 1).await).await.expect("the fleet starts");
    let flags = ["--v=10".to_owned(), "--logging-format=json".to_owned()];
    let adapter = fleet.start_adapter(binary(), &flags, Some(log.clone())).await.expect("the adapter starts");
    let front = crate::stage::front(&fleet, &adapter);
    front.get(PODS).await.expect("a response");
    fleet.members[1].rotate_token();
    front.get(PODS).await.expect("a response");
    let text = std::fs::read_to_string(&log).expect("a log");
    assert!(text.lines().count() > 20, "{text}");
    assert!(
        text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "each line is JSON"
    );
    for member in &fleet.members {
        assert!(!text.contains(&member.access().token));
    }
    assert!(!text.contains("PRIVATE KEY"));
}
