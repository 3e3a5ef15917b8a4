//! Alerts and the dashboard of `deploy/monitoring`: they use existing metrics and labels, and the alerts fire.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use http::StatusCode;
use serde_json::Value;
use testkit::member::Fault;

use crate::stage::{PODS, Stage, members};

/// The labels of each metric, by name.
type Known = BTreeMap<String, BTreeSet<String>>;

/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["instance", "job"];

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(monitoring().join(file)).expect("a readable file")
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_use_existing_metrics_and_labels() {
    let stage = Stage::start(members(2, 1).await, &[]).await;
    stage.get(PODS).await;
    stage.member(1).fault(Fault::Status(StatusCode::BAD_GATEWAY, String::new()));
    // Identical queries in flight share a response, which creates the counter.
    while !stage.metrics().await.contains("karmada_metrics_adapter_queries_shared_total{") {
        futures::future::join_all((0..8).map(|_| stage.get(PODS))).await;
    }
    let known = known(&stage.metrics().await);
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let mut texts: Vec<String> =
        targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect();
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    texts.extend(variables.filter_map(|variable| Some(variable["query"].as_str()?.to_owned())));
    let expressions = texts.len();
    texts.push(read("alerts.yaml"));
    let mut used = 0;
    for text in &texts {
        for (metric, labels) in selectors(text) {
            used += 1;
            let has = known.get(&metric).unwrap_or_else(|| panic!("/metrics has no {metric}: {text}"));
            for label in labels {
                assert!(has.contains(&label), "{metric} has no label {label}, but {has:?}");
            }
        }
    }
    assert!(expressions >= 10 && used > 20, "{expressions} expressions with {used} metrics");
}

#[test]
fn alerts_fire_only_when_expected() {
    let Some(promtool) = promtool() else {
        eprintln!("skipped: promtool is not on PATH");
        return;
    };
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let output = Command::new(&promtool).current_dir(monitoring()).args(arguments).output();
        let run = output.expect("promtool runs");
        let output = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "promtool {}: {output}", arguments.join(" "));
    }
    let alerts = read("alerts.yaml");
    let operations =
        std::fs::read_to_string(monitoring().join("../../docs/operations.md")).expect("a document");
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(
            read("alerts_test.yaml").contains(&format!("alertname: {alert}\n")),
            "alerts_test.yaml has no test of {alert}"
        );
        assert!(operations.contains(&format!("`{alert}`")), "docs/operations.md does not explain {alert}");
    }
}

/// The path in `PROMTOOL`, or promtool on PATH.
fn promtool() -> Option<PathBuf> {
    std::env::var_os("PROMTOOL").map(PathBuf::from).or_else(|| testkit::on_path("promtool"))
}

/// The metrics and labels of `/metrics`.
fn known(metrics: &str) -> Known {
    let mut known = Known::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap_or_default(), ""));
        let labels = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        known.entry(name.to_owned()).or_default().extend(labels);
    }
    known
}

/// The metrics in PromQL text, with the labels of their selector and of the surrounding `by`.
fn selectors(text: &str) -> Vec<(String, Vec<String>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for prefix in ["karmada_", "apiserver_", "workqueue_"] {
        for (at, _) in text.match_indices(prefix).filter(|(at, _)| !text[..*at].ends_with(word)) {
            let rest = &text[at..];
            let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
            let mut labels = Vec::new();
            if let Some(selector) = rest[end..].strip_prefix('{') {
                let selector = &selector[..selector.find('}').expect("the end of the selector")];
                labels.extend(
                    selector
                        .split(", ")
                        .map(|label| label[..label.find(|c| !word(c)).unwrap_or(0)].to_owned()),
                );
            }
            let before = &text[text[..at].rfind('\n').map_or(0, |line| line + 1)..at];
            if let Some((_, by)) = before.rsplit_once(" by (") {
                let by = &by[..by.find(')').expect("the end of the list")];
                labels.extend(
                    by.split(", ").map(str::to_owned).filter(|label| !ADDED.contains(&label.as_str())),
                );
            }
            found.push((rest[..end].to_owned(), labels));
        }
    }
    found
}
