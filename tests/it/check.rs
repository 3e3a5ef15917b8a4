//! `check`: what is wrong with a member is named by its cause, and nobody else is called broken.

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
use misconfigurations::{BROKEN, QUERY, Surroundings, spoil, start};

/// What every row is asked for.
const SAMPLE: [&str; 3] = ["--metric=http_requests", "-n=default", "-l=app=sample-app"];

/// A fleet with an adapter that serves all four APIServices.
pub async fn served(members: Vec<Member>) -> (Fleet, AdapterProcess) {
    let fleet = Fleet::start(members).await.expect("the fleet starts");
    let adapter = fleet.start_adapter(binary(), &[], None).await.expect("the adapter starts");
    let names = [RESOURCE_METRICS, EXTERNAL_METRICS];
    fleet.register(&adapter, &names).expect("they are registered");
    for name in names {
        let available = tokio::time::timeout(GENEROUS, fleet.plane.available(name)).await;
        available.expect("it is available in time").expect("it is registered");
    }
    (fleet, adapter)
}

/// What `check -o json` prints as whoever the kubeconfig names, and its exit code.
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

/// What is not well, as `cluster: link: verdict: cause`, `-` standing for the control plane.
pub fn amiss(report: &Value) -> BTreeSet<String> {
    let findings = report["findings"].as_array().expect("findings").iter();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line =
        |finding: &Value| ["cluster", "link", "verdict", "cause"].map(|key| text(&finding[key])).join(": ");
    findings.filter(|finding| finding["verdict"] != "ok").map(line).collect()
}

/// The message about a link that is not well.
pub fn message(report: &Value, cause: &str) -> String {
    let findings = report["findings"].as_array().expect("findings");
    let found = findings.iter().find(|finding| finding["cause"] == cause);
    found.and_then(|finding| finding["message"].as_str()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misconfiguration_is_named_by_its_cause_and_nobody_else_is_called_broken() {
    let mut all = members(2, 1).await;
    for (name, ..) in BROKEN {
        all.push(start(name).await);
    }
    let (fleet, _adapter) = served(all).await;
    let around = Surroundings::start().await;
    let mut secrets: Vec<String> = fleet.members.iter().map(Member::token).collect();
    fleet.members.iter().for_each(|member| spoil(&fleet, member, &around));
    secrets.extend(fleet.members.iter().map(Member::token));
    secrets.extend(["proxy-password", "other-password"].map(str::to_owned));
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let line = |(name, link, cause, _): &(&str, &str, &str, &str)| format!("{name}: {link}: broken: {cause}");

    // An application need not be in each cluster.
    let beside_others = |row: &(&str, &str, &str, &str)| {
        let is_absent = ["WrongNamespace", "SelectorMatchesNothing"].contains(&row.2);
        line(row).replace("broken", if is_absent { "warning" } else { "broken" })
    };
    let (code, report) = check(&kubeconfig, &[&["--member-timeout=3s"][..], &SAMPLE].concat()).await;
    assert_eq!(amiss(&report), BROKEN.iter().map(beside_others).collect::<BTreeSet<_>>());
    assert_eq!(code, Some(1));
    for (_, _, cause, words) in BROKEN {
        let findings = report["findings"].as_array().expect("findings").iter();
        let mut messages = findings
            .filter(|finding| finding["cause"] == *cause)
            .filter_map(|finding| finding["message"].as_str());
        assert!(messages.any(|message| message.contains(words)), "{cause}: nobody says {words:?}");
    }
    let printed = report.to_string();
    assert!(secrets.iter().all(|secret| !printed.contains(secret)), "a secret is in {printed}");

    // And each by itself.
    let each = stream::iter(BROKEN).map(async |row| {
        let only = format!("--cluster={}", row.0);
        let (code, report) =
            check(&kubeconfig, &[&["--member-timeout=3s", &only][..], &SAMPLE].concat()).await;
        assert_eq!((code, amiss(&report)), (Some(1), [line(row)].into()));
        assert!(message(&report, row.2).contains(row.3), "{report}");
    });
    each.buffer_unordered(4).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_in_order_is_called_so_and_values_are_shown() {
    let (fleet, _adapter) = served(members(3, 2).await).await;
    for kubeconfig in [fleet.plane.adapter_kubeconfig(), fleet.plane.admin_kubeconfig()] {
        let (code, report) = check(&kubeconfig.expect("a kubeconfig"), &SAMPLE).await;
        assert_eq!((code, amiss(&report)), (Some(0), BTreeSet::new()), "{report}");
        let findings = report["findings"].as_array().expect("findings").iter();
        let values: Vec<_> = findings.filter(|finding| finding["link"] == QUERY).collect();
        assert_eq!(values.len(), 3, "{report}");
        assert!(
            values
                .iter()
                .all(|found| found["message"].as_str().is_some_and(|text| text.starts_with("values: 2, ")))
        );
    }
    // For people: a table, and nothing to do.
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, out, err) = run(&["check", "--kubeconfig", &kubeconfig.display().to_string()]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.ends_with(" links, 0 broken, 0 with a warning\n") && !out.contains("What to do"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_no_value_away_is_a_warning_and_no_failure() {
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
    assert_eq!((code, amiss(&report)), (Some(0), expected.map(str::to_owned).into()));
    let messages = report.to_string();
    assert!(
        messages.contains(" s ahead of this one") && messages.contains(" s behind this one"),
        "{messages}"
    );

    // Who asks for a custom metric misses those of the cluster with KEDA alone.
    let (code, report) = check(&kubeconfig, &[&["--cluster=keda-only"][..], &SAMPLE].concat()).await;
    let expected = "keda-only: custom.metrics.k8s.io: broken: APIMissing".to_owned();
    assert_eq!((code, amiss(&report)), (Some(1), [expected].into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_read_metrics_is_found_without_a_sample_query() {
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
    assert_eq!((code, amiss(&report)), (Some(1), expected.map(str::to_owned).into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_prometheus_is_gone_is_found_without_a_sample_query() {
    let (fleet, _adapter) = served(members(2, 1).await).await;
    // A kind of object that the cluster lacks is a 500 too, and no fault.
    for member in &fleet.members {
        member.set_metric(Series::new(Resource::SERVICES, Some("default"), "s", "http_requests", "1"));
    }
    for (member, resource) in fleet.members.iter().zip(["pods", "services"]) {
        let said = "Internal error occurred: unable to fetch metrics".to_owned();
        let fault = Fault::Refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", said);
        member
            .fault_on(&format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/{resource}/"), fault);
    }
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let (code, report) = check(&kubeconfig, &[]).await;
    let expected = "member1: custom.metrics.k8s.io: broken: APIFailing".to_owned();
    assert_eq!((code, amiss(&report)), (Some(1), [expected].into()));
    let said = "a query of it: HTTP 500: Internal error occurred: unable to fetch metrics";
    assert_eq!(message(&report, "APIFailing"), said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_a_member_does_not_have_is_named_for_any_resource() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    let member = &fleet.members[0];
    member.set_metric(Series::new(Resource::SERVICES, Some("default"), "s", "http_requests", "1"));
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    for resource in ["--resource=pods", "--resource=services"] {
        let (code, report) = check(&kubeconfig, &["--metric=http_requests", "-n=nowhere", resource]).await;
        let expected = format!("member1: {QUERY}: broken: WrongNamespace");
        assert_eq!((code, amiss(&report)), (Some(1), [expected].into()), "{resource}");
        assert!(message(&report, "WrongNamespace").contains("no namespace nowhere"), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_members_of_which_five_are_black_holes_take_no_longer_than_one() {
    let all = members(30, 1).await;
    let (fleet, _adapter) = served(all).await;
    let hole = BlackHole::start().await.expect("a black hole");
    for member in &fleet.members[..5] {
        let endpoint = format!("https://{}", hole.address());
        fleet.plane.join(&MemberSpec { endpoint, ..member.into() }).expect("it joins");
    }
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig");
    let begun = Instant::now();
    let (code, report) = check(&kubeconfig, &[&["--member-timeout=5s"][..], &SAMPLE].concat()).await;
    let took = begun.elapsed();
    let expected =
        (1..=5).map(|number| format!("member{number}: connection: broken: NoConnection")).collect();
    assert_eq!((code, amiss(&report)), (Some(1), expected));
    // One after the other they would take 25 s.
    assert!(took < Duration::from_secs(15), "{took:?}");
}
