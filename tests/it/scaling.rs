//! The replicas that a FederatedHPA wants while a cluster fails. It has 10 replicas, 5 in each of two clusters, and a target
//! for which 10 is right. `docs/reliability.md` has the table.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use http::StatusCode;
use testkit::federated_hpa::{
    Cluster, FederatedHpa, Loop, Metric, ObjectTarget, Round, ScaleTo, Spec, Target,
};
use testkit::member::{Fault, Member, Pod, Resource, Series};

use crate::stage::{CLUSTER_LABEL, GENEROUS, Stage};

const POLICIES: [&str; 3] = ["last-known", "partial", "fail"];
const BEGIN: &str = "<!-- replicas wanted, written by tests/it/scaling.rs -->\n";
const END: &str = "<!-- end -->";

/// The expected table.
const WANTED: [(&str, &str, [&str; 3]); 6] = [
    ("Pods", "metrics API fails", ["10", "10", "stays"]),
    ("Object, Value", "metrics API fails", ["10", "5", "stays"]),
    ("Object, AverageValue", "metrics API fails", ["10", "5", "stays"]),
    ("Pods", "API server unreachable", ["10", "10", "stays"]),
    ("Object, Value", "API server unreachable", ["5", "5", "stays"]),
    ("Object, AverageValue", "API server unreachable", ["10", "10", "stays"]),
];

fn metrics() -> [(&'static str, Metric); 3] {
    let object = |target| Metric::Object {
        resource: "services".to_owned(),
        object: "front".to_owned(),
        name: "hits".to_owned(),
        selector: String::new(),
        target,
    };
    [
        ("Pods", Metric::pods("http_requests", 700)),
        ("Object, Value", object(ObjectTarget::Value(7000))),
        ("Object, AverageValue", object(ObjectTarget::AverageValue(700))),
    ]
}

async fn half(name: &str) -> Member {
    let member = Member::start(name).await.expect("a member starts");
    for number in 0..5 {
        let pod = format!("{name}-{number}");
        member.store().set_pod(Pod::running("default", &pod, &[("app", "sample-app")]));
        let series = Series::new(Resource::PODS, Some("default"), &pod, "http_requests", "700m");
        member.set_metric(series.object_label("app", "sample-app"));
    }
    member.set_metric(Series::new(Resource::SERVICES, Some("default"), "front", "hits", "3500m"));
    member
}

/// One round of a new FederatedHPA with this metric. It does not change replicas.
async fn round(stage: &Stage, metric: Metric) -> Round {
    let clusters = stage.fleet.members.iter().map(|member| {
        let access = member.access();
        let scale_to: ScaleTo = Arc::new(|_| async { Ok(()) }.boxed());
        Cluster { member: access.client(), name: access.name, weight: 1, wanted: 5, scale_to }
    });
    let target = Target { namespace: "default".to_owned(), selector: "app=sample-app".to_owned() };
    let hpa = FederatedHpa::new(Spec::new(metric, 1..=100));
    let control_plane = stage.fleet.plane.admin_client();
    let scaling = Loop::new(hpa, target, control_plane, clusters.collect(), 10);
    tokio::time::timeout(GENEROUS, scaling.with_read_limit(Duration::from_secs(5)).round())
        .await
        .expect("the round ends in time")
}

/// The replicas that the metrics propose, before limits and stabilization.
fn wanted(round: &Round) -> String {
    let proposed = round.decision.as_ref().map(|decision| decision.proposed);
    proposed.map_or_else(
        |_| "stays".to_owned(),
        |proposed| proposed.expect("a proposal within the limits").to_string(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn default_policy_never_scales_up_and_scales_down_in_one_known_case() {
    let mut found = Vec::new();
    let mut columns = Vec::new();
    for policy in POLICIES {
        let members = vec![half("member1").await, half("member2").await];
        let stage = Stage::start(members, &[&format!("--on-member-failure={policy}")]).await;
        for (name, metric) in metrics() {
            assert_eq!(wanted(&round(&stage, metric).await), "10", "{name} without a fault");
        }
        let mut column = Vec::new();
        for (words, fault) in [
            ("metrics API fails", Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned())),
            ("API server unreachable", Fault::Refused),
        ] {
            match fault {
                Fault::Refused => stage.member(1).fault(fault),
                _ => stage.member(1).fault_on("/apis/custom.metrics.k8s.io", fault),
            }
            for (name, metric) in metrics() {
                found.push((name, words));
                column.push(wanted(&round(&stage, metric).await));
            }
            stage.member(1).clear_faults();
        }
        columns.push(column);
    }
    for (row, (metric, fault, expected)) in WANTED.iter().enumerate() {
        assert_eq!(found[row], (*metric, *fault));
        let wanted: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
        assert_eq!(wanted, expected, "{metric}, {fault}: {POLICIES:?}");
        let default: Result<u32, _> = expected[0].parse();
        assert!(default.is_ok_and(|default| default == 10 || (default < 10 && *metric == "Object, Value")));
    }
    check_document();
}

#[tokio::test(flavor = "multi_thread")]
async fn metric_selector_limits_scaling_to_chosen_clusters() {
    let stage = Stage::start(vec![half("member1").await, half("member2").await], &[]).await;
    for (cluster, expected) in [("member1", "5"), ("member2", "5"), ("member3", "stays")] {
        let metric = Metric::Object {
            resource: "services".to_owned(),
            object: "front".to_owned(),
            name: "hits".to_owned(),
            selector: format!("{CLUSTER_LABEL}={cluster}"),
            target: ObjectTarget::Value(7000),
        };
        assert_eq!(wanted(&round(&stage, metric).await), expected, "{cluster}");
    }
}

/// Checks that the document has this table. `UPDATE_DOCS=1` writes it.
fn check_document() {
    let mut table = format!(
        "| metric | member2 | {} |\n|---|---|---|---|---|\n",
        POLICIES.map(|p| format!("`{p}`")).join(" | ")
    );
    for (metric, fault, wanted) in WANTED {
        writeln!(table, "| {metric} | {fault} | {} |", wanted.join(" | ")).expect("writing to a string");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let text = std::fs::read_to_string(&path).expect("the document");
    let start = text.find(BEGIN).expect("the begin marker") + BEGIN.len();
    let end = start + text[start..].find(END).expect("the end marker");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{}{table}{}", &text[..start], &text[end..]))
            .expect("the document is written");
        return;
    }
    assert_eq!(&text[start..end], table, "run with UPDATE_DOCS=1 to write it");
}
