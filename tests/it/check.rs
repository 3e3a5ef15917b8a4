//! `check` reports each member's problem with its cause and reports no other member as broken.

mod misconfigurations;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::Value;
use testkit::adapter::AdapterProcess;
use testkit::black_hole::BlackHole;
use testkit::control_plane::{EXTERNAL_METRICS, MemberSpec, RESOURCE_METRICS};
use testkit::fleet::Fleet;
use testkit::member::{ExternalMetrics, Fault, Member, MemberOptions, Registration, Resource, Series};

use crate::process::run;
use crate::stage::{GENEROUS, binary, members};
use misconfigurations::{BROKEN, Environment, QUERY, misconfigure, start};

/// The sample query of the tests.
const SAMPLE: [&str; 3] = ["--metric=http_requests", "-n=default", "-l=app=sample-app"];

/// A fleet with an adapter that serves all four APIServices.
pub async fn served(members: Vec<Member>) -> (Fleet, AdapterProcess) {
    let fleet = Fleet::start(members).await.expect("the fleet starts");
    let adapter = fleet.start_adapter(binary(), &[], None).await.expect("the adapter starts");
    let names = [RESOURCE_METRICS, EXTERNAL_METRICS];
    fleet.register(&adapter, &names).expect("the APIServices are registered");
    for name in names {
        let available = tokio::time::timeout(GENEROUS, fleet.plane.available(name)).await;
        available.expect("the APIService is available in time").expect("the APIService is registered");
    }
    (fleet, adapter)
}

/// Runs `check -o json` with this kubeconfig. Returns its exit code and report.
pub async fn check(kubeconfig: &Path, flags: &[&str]) -> (Option<i32>, Value) {
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let (code, out, err) = run(&[&["check", "-o", "json", &kubeconfig], flags].concat()).await;
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    for finding in report["findings"].as_array().expect("findings") {
        let (is_ok, has_remedy) = (finding["verdict"] == "ok", finding["remedy"].is_string());
        assert_eq!((is_ok, is_ok), (finding["cause"].is_null(), !has_remedy), "{finding}");
    }
    (code, report)
}

/// The problems of a report as `cluster: link: verdict: cause`. The cluster of the control plane is `-`.
pub fn problems(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("findings").iter();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line =
        |finding: &Value| ["cluster", "link", "verdict", "cause"].map(|key| text(&finding[key])).join(": ");
    findings.filter(|finding| finding["verdict"] != "ok").map(line).collect()
}

/// The message of the finding with this cause.
pub fn message(report: &Value, cause: &str) -> String {
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["cause"] == cause);
    found.and_then(|finding| finding["message"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misconfiguration_is_reported_with_its_cause() {
    let mut all = members(2, 1).await;
    for (name, ..) in BROKEN {
        all.push(start(name).await);
    }
    let (fleet, _adapter) = served(all).await;
    let environment = Environment::start().await;
    let mut secrets: Vec<String> = fleet.members.iter().map(Member::token).collect();
    fleet.members.iter().for_each(|member| misconfigure(&fleet, member, &environment));
    secrets.extend(fleet.members.iter().map(Member::token));
    secrets.extend(["proxy-password", "other-password"].map(str::to_owned));
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let line = |(name, link, cause, _): &(&str, &str, &str, &str)| format!("{name}: {link}: broken: {cause}");

    // Other clusters have the application, so its absence from one cluster is only a warning.
    let in_fleet = |row: &(&str, &str, &str, &str)| {
        let is_absent = ["WrongNamespace", "SelectorMatchesNothing"].contains(&row.2);
        line(row).replace("broken", if is_absent { "warning" } else { "broken" })
    };
    let (code, report) = check(&kubeconfig, &[&["--member-timeout=3s"][..], &SAMPLE].concat()).await;
    assert_eq!(problems(&report), BROKEN.iter().map(in_fleet).collect::<BTreeSet<_>>());
    assert_eq!(code, Some(1));
    for (_, _, cause, words) in BROKEN {
        let findings = report["findings"].as_array().expect("findings").iter();
        let mut messages = findings
            .filter(|finding| finding["cause"] == *cause)
            .filter_map(|finding| finding["message"].as_str());
        assert!(messages.any(|message| message.contains(words)), "{cause}: no message contains {words:?}");
    }
    let printed = report.to_string();
    assert!(secrets.iter().all(|secret| !printed.contains(secret)), "a secret is in {printed}");

    // Check each cluster alone.
    let each = stream::iter(BROKEN).map(async |row| {
        let only = format!("--cluster={}", row.0);
        let (code, report) =
            check(&kubeconfig, &[&["--member-timeout=3s", &only][..], &SAMPLE].concat()).await;
        assert_eq!((code, problems(&report)), (Some(1), [line(row)].into()));
        assert!(message(&report, row.2).contains(row.3), "{report}");
    });
    each.buffer_unordered(4).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_fleet_is_reported_with_values() {
    let (fleet, _adapter) = served(members(3, 2).await).await;
    for kubeconfig in [fleet.plane.adapter_kubeconfig(), fleet.plane.admin_kubeconfig()] {
        let (code, report) = check(&kubeconfig.expect("a kubeconfig"), &SAMPLE).await;
        assert_eq!((code, problems(&report)), (Some(0), BTreeSet::new()), "{report}");
        let findings = report["findings"].as_array().expect("findings").iter();
        let values: Vec<_> = findings.filter(|finding| finding["link"] == QUERY).collect();
        assert_eq!(values.len(), 3, "{report}");
        assert!(
            values
                .iter()
                .all(|found| found["message"].as_str().is_some_and(|text| text.starts_with("values: 2, ")))
        );
    }
    // The default output is a table. It has no remedies if all is well.
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, out, err) = run(&["check", "--kubeconfig", &kubeconfig.display().to_string()]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.ends_with(" checks, 0 broken, 0 with a warning\n") && !out.contains("What to do"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn harmless_problem_is_a_warning() {
    let mut all = members(3, 1).await;
    let keda = MemberOptions {
        versions: Vec::new(),
        external_metrics: ExternalMetrics::Keda,
        ..MemberOptions::default()
    };
    all.push(Member::start_with("keda-only", keda).await.expect("a member starts"));
    let (fleet, _adapter) = served(all).await;
    fleet.members[0].fault(Fault::ClockAhead(120));
    fleet.members[1].fault(Fault::ClockAhead(-3600));
    let cpu =
        Registration::Unavailable { reason: "Gone".to_owned(), message: "no metrics-server".to_owned() };
    fleet.members[2].set_api_service(RESOURCE_METRICS, cpu);
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, report) = check(&kubeconfig, &[]).await;
    let expected = [
        "keda-only: custom.metrics.k8s.io: warning: APIMissing",
        "member1: clock: warning: ClockSkew",
        "member2: clock: warning: ClockSkew",
        "member3: metrics.k8s.io: warning: APIUnavailable",
    ];
    assert_eq!((code, problems(&report)), (Some(0), expected.map(str::to_owned).into()));
    let messages = report.to_string();
    assert!(
        messages.contains(" s ahead of the local clock") && messages.contains(" s behind the local clock"),
        "{messages}"
    );

    // A query of a custom metric has no values of a cluster that has only KEDA.
    let (code, report) = check(&kubeconfig, &[&["--cluster=keda-only"][..], &SAMPLE].concat()).await;
    let expected = "keda-only: custom.metrics.k8s.io: broken: APIMissing".to_owned();
    assert_eq!((code, problems(&report)), (Some(1), [expected].into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_token_is_found_without_a_sample_query() {
    let (fleet, _adapter) = served(members(4, 1).await).await;
    for (member, prefix) in fleet
        .members
        .iter()
        .zip(["/apis/custom.metrics.k8s.io/v1beta2/namespaces", "/apis/metrics.k8s.io/v1beta1/namespaces"])
    {
        member.fault_on(prefix, Fault::Refusal(StatusCode::FORBIDDEN, "Forbidden", "Forbidden".to_owned()));
    }
    fleet.members[2].fault_on("/apis/custom.metrics.k8s.io/v1beta2/namespaces", Fault::Hang);
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, report) = check(&kubeconfig, &["--member-timeout=2s"]).await;
    let expected = [
        "member1: custom.metrics.k8s.io: broken: Forbidden",
        "member2: metrics.k8s.io: warning: Forbidden",
        "member3: custom.metrics.k8s.io: broken: Timeout",
    ];
    assert_eq!((code, problems(&report)), (Some(1), expected.map(str::to_owned).into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_prometheus_is_found_without_a_sample_query() {
    let (fleet, _adapter) = served(members(2, 1).await).await;
    // A 500 for an object kind that the cluster does not have is not a fault.
    for member in &fleet.members {
        member.set_metric(Series::new(Resource::SERVICES, Some("default"), "s", "http_requests", "1"));
    }
    for (member, resource) in fleet.members.iter().zip(["pods", "services"]) {
        let error = "Internal error occurred: unable to fetch metrics".to_owned();
        let fault = Fault::Refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", error);
        member
            .fault_on(&format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/{resource}/"), fault);
    }
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, report) = check(&kubeconfig, &[]).await;
    let expected = "member1: custom.metrics.k8s.io: broken: APIFailing".to_owned();
    assert_eq!((code, problems(&report)), (Some(1), [expected].into()));
    let expected = "a test query failed: HTTP 500: Internal error occurred: unable to fetch metrics";
    assert_eq!(message(&report, "APIFailing"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_namespace_is_reported_for_every_resource() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    let member = &fleet.members[0];
    member.set_metric(Series::new(Resource::SERVICES, Some("default"), "s", "http_requests", "1"));
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    for resource in ["--resource=pods", "--resource=services"] {
        let (code, report) = check(&kubeconfig, &["--metric=http_requests", "-n=nowhere", resource]).await;
        let expected = format!("member1: {QUERY}: broken: WrongNamespace");
        assert_eq!((code, problems(&report)), (Some(1), [expected].into()), "{resource}");
        assert!(message(&report, "WrongNamespace").contains("no namespace nowhere"), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_checked_in_parallel() {
    let all = members(30, 1).await;
    let (fleet, _adapter) = served(all).await;
    let hole = BlackHole::start().await.expect("a black hole");
    for member in &fleet.members[..5] {
        let endpoint = format!("https://{}", hole.address());
        fleet.plane.join(&MemberSpec { endpoint, ..member.into() }).expect("the cluster joins");
    }
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let started = Instant::now();
    let (code, report) = check(&kubeconfig, &[&["--member-timeout=5s"][..], &SAMPLE].concat()).await;
    let elapsed = started.elapsed();
    let expected =
        (1..=5).map(|number| format!("member{number}: connection: broken: NoConnection")).collect();
    assert_eq!((code, problems(&report)), (Some(1), expected));
    // Sequential checks would take 25 s.
    assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
}
