//! `query` prints values by cluster. It sends the same requests as the server.

use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::control_plane::MemberSpec;
use testkit::fleet::Fleet;
use testkit::member::wire::{ExternalMetricValue, Version};
use testkit::member::{Fault, Member, MemberOptions, Resource, Series};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::fleet_kubeconfig::{Kubeconfig, cluster};
use crate::process::run;
use crate::stage::{GENEROUS, PODS, binary, members};

/// Runs `query` for the fleet of a control plane.
async fn query(fleet: &Fleet, flags: &[&str]) -> (Option<i32>, String, String) {
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig is written");
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    run(&[&["query", kubeconfig.as_str()], flags].concat()).await
}

/// Runs `query -o json`. Returns the exit code and the report.
async fn query_json(fleet: &Fleet, flags: &[&str]) -> (Option<i32>, Value) {
    let (code, out, err) = query(fleet, &[&["-o", "json"], flags].concat()).await;
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{err}")))
}

/// The name, outcome and number of values of each cluster.
fn outcomes(report: &Value) -> Vec<String> {
    let clusters = report["clusters"].as_array().expect("clusters");
    let outcome = |cluster: &Value| {
        let text = |key: &str| cluster[key].as_str().expect("text").to_owned();
        let values = cluster["values"].as_array().expect("values").len();
        format!("{} {} {values}", text("cluster"), text("outcome"))
    };
    clusters.iter().map(outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_printed_with_cluster_age_and_latency() {
    let fleet = Fleet::start(members(2, 2).await).await.expect("the fleet starts");
    let empty = Member::start("member3").await.expect("a member starts");
    fleet.plane.join(&MemberSpec::from(&empty)).expect("the cluster joins");
    let (code, out, err) = query(&fleet, &["--metric=http_requests"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["CLUSTER", "LATENCY", "OBJECT", "METRIC", "VALUE", "AGE"]);
    for (line, (cluster, pod, value)) in lines[1..5].iter().zip([
        ("member1", "default/sample-app-member1-0001", "38m"),
        ("member1", "default/sample-app-member1-0002", "75m"),
        ("member2", "default/sample-app-member2-0001", "38m"),
        ("member2", "default/sample-app-member2-0002", "75m"),
    ]) {
        let [seen_cluster, latency, seen_pod, metric, seen_value, age] = line[..] else { panic!("{out}") };
        assert_eq!((seen_cluster, seen_pod, metric, seen_value), (cluster, pod, "http_requests", value));
        assert!(latency.ends_with("ms") && age.ends_with('s'), "{out}");
    }
    assert_eq!((lines[5][0], lines[5][2]), ("member3", "<NotFound>"));
    assert_eq!(lines.last().expect("a summary").join(" "), "2 found, 1 not found");
    // One query per member, and at most two requests for versions.
    for member in &fleet.members {
        assert_eq!(member.requests_to(PODS).len(), 1);
        assert!(member.counters().requests <= 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn path_is_parsed_like_in_the_server_and_equals_the_flags() {
    let fleet = Fleet::start(members(3, 2).await).await.expect("the fleet starts");
    let chosen = format!("{PODS}?metricLabelSelector=resource.karmada.io%2Fquery-from-cluster%21%3Dmember2");
    let (code, report) = query_json(&fleet, &[&chosen]).await;
    assert_eq!(code, Some(0));
    assert_eq!(outcomes(&report), ["member1 Found 2", "member3 Found 2"]);
    let one = format!("--name={}", "sample-app-member1-0002");
    let (_, report) = query_json(&fleet, &["--metric=http_requests", "-l", "app=sample-app", &one]).await;
    assert_eq!(
        report["path"],
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/sample-app-member1-0002/http_requests\
         ?labelSelector=app%3Dsample-app"
    );
    assert_eq!(outcomes(&report), ["member1 Found 1", "member2 NotFound 0", "member3 NotFound 0"]);
    let only = "--metric-selector=resource.karmada.io/query-from-cluster in (member2,member3)";
    let (_, report) = query_json(&fleet, &["--metric=http_requests", only, "--cluster=member3"]).await;
    assert_eq!(outcomes(&report), ["member3 Found 2"]);
    let (code, _, err) = query(&fleet, &["--metric=http_requests", "--cluster=nowhere"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(
        err,
        "karmada-metrics-adapter: no cluster to query: there are none, or none matches --cluster and the selector\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_kinds_of_metrics_are_printed() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let member = &fleet.members[0];
    member.set_metric(Series::new(Resource::NODES, None, "node-1", "watts", "42"));
    let queue = ExternalMetricValue::new("queue_length", "7");
    member.set_external_metric("default", queue.label("queue", "orders"));
    let values = async |flags: &[&str]| {
        let (code, report) = query_json(&fleet, flags).await;
        assert_eq!(code, Some(0), "{report}");
        report["clusters"][0]["values"].clone()
    };
    let pods = values(&["--group=resource"]).await;
    assert_eq!(
        pods[0]["object"],
        json!({"kind": "Pod", "namespace": "default", "name": "sample-app-member1-0001"})
    );
    assert_eq!([&pods[0]["metric"], &pods[1]["metric"]], ["cpu", "memory"]);
    assert_eq!(pods[1]["value"], "21Mi");
    let everywhere = values(&["--group=resource", "--namespace="]).await;
    for number in 0..2 {
        assert_eq!(everywhere[number]["object"], pods[number]["object"]);
        assert_eq!(everywhere[number]["value"], pods[number]["value"]);
    }
    let external = values(&["--group=external", "--metric=queue_length", "--selector=queue=orders"]).await;
    assert_eq!((&external[0]["labels"], &external[0]["value"]), (&json!({"queue": "orders"}), &json!("7")));
    assert!(external[0]["ageSeconds"].is_i64());
    let nodes = values(&["--metric=watts", "--resource=nodes"]).await;
    assert_eq!(
        (&nodes[0]["object"], &nodes[0]["value"]),
        (&json!({"kind": "Node", "name": "node-1"}), &json!("42"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_cluster_is_named_and_the_exit_code_is_1() {
    let fleet = Fleet::start(members(4, 1).await).await.expect("the fleet starts");
    fleet.members[1].fault_on("/apis/custom.metrics.k8s.io/v1beta2/namespaces", Fault::Hang);
    fleet.members[2].fault(Fault::Refused);
    fleet.plane.join(&MemberSpec { ready: false, ..MemberSpec::from(&fleet.members[3]) }).expect("changed");
    let pull = MemberSpec { name: "member5".to_owned(), ready: true, ..MemberSpec::default() };
    fleet.plane.join(&pull).expect("the cluster joins");
    let started = Instant::now();
    let (code, report) = query_json(&fleet, &["--metric=http_requests", "--member-timeout=1s"]).await;
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    assert_eq!(code, Some(1));
    assert_eq!(
        outcomes(&report),
        [
            "member1 Found 1",
            "member2 Timeout 0",
            "member3 ConnectionRefused 0",
            "member4 NotReady 0",
            "member5 PullMode 0",
        ]
    );
    let (_, out, err) = query(&fleet, &["--metric=http_requests", "--member-timeout=1s"]).await;
    assert_eq!(err, "karmada-metrics-adapter: 3 of 5 clusters failed\n");
    for words in [
        "1 found, 0 not found, 3 failed, 1 in Pull mode",
        "member2:   no response from the metrics API within 1s [Timeout]",
        "member3:   the API server ",
        "member4:   the cluster is not Ready",
        "member5:   it has no API endpoint (Pull mode, or still joining)",
    ] {
        assert!(out.contains(words), "{words}\n{out}");
    }
    fleet.members[1].clear_faults();
    let (code, _, _) = query(&fleet, &["--metric=http_requests", "--cluster=member2"]).await;
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn member_with_only_the_old_version_is_queried_with_it() {
    let options = MemberOptions { versions: vec![Version::V1Beta1], ..MemberOptions::default() };
    let member = Member::start_with("old", options).await.expect("a member starts");
    let fleet = Fleet::start(vec![member.with_pods("http_requests", 1)]).await.expect("the fleet starts");
    let (code, report) = query_json(&fleet, &["--metric=http_requests"]).await;
    assert_eq!((code, outcomes(&report)), (Some(0), vec!["old Found 1".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_of_a_kubeconfig_are_queried_and_invalid_ones_fail() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet);
    let query = async |kubeconfig: &Kubeconfig| {
        let (code, out, err) = run(&["query", &kubeconfig.flag(), "--metric=http_requests", "-o=json"]).await;
        (code, serde_json::from_str::<Value>(&out).expect("JSON"), err)
    };
    let (code, report, err) = query(&kubeconfig).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(outcomes(&report), ["member1 Found 1", "member2 Found 1"]);
    kubeconfig.add("basic", cluster(&fleet[0]), json!({"username": "a", "password": "s3cr3t"}));
    kubeconfig.write();
    let (code, report, _) = query(&kubeconfig).await;
    assert_eq!(code, Some(1));
    assert_eq!(outcomes(&report)[0], "basic CredentialsMalformed 0");
    let message = report["clusters"][0]["message"].as_str().expect("a message");
    let expected = "the context \"basic\": API servers no longer accept user name and password";
    assert!(message.starts_with(expected), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_repeats_until_its_reader_exits() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let kubeconfig = fleet.plane.adapter_kubeconfig().expect("a kubeconfig is written");
    let mut child = Command::new(binary())
        .args(["query", "--metric=http_requests", "--watch=100ms", "-o", "json", "--kubeconfig"])
        .arg(kubeconfig)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the command runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = async || {
        let line = tokio::time::timeout(GENEROUS, lines.next_line()).await.expect("in time");
        serde_json::from_str::<Value>(&line.expect("text").expect("a line")).expect("each line is a report")
    };
    let value = |report: &Value| report["clusters"][0]["values"][0]["value"].clone();
    assert_eq!(value(&next().await), "38m");
    let series =
        Series::new(Resource::PODS, Some("default"), "sample-app-member1-0001", "http_requests", "5");
    fleet.members[0].set_metric(series);
    while value(&next().await) != "5" {}
    fleet.members[0].fault(Fault::Refused);
    while next().await["clusters"][0]["failed"] != true {}
    fleet.members[0].clear_faults();
    while next().await["clusters"][0]["outcome"] != "Found" {}
    drop(lines);
    let status = tokio::time::timeout(GENEROUS, child.wait()).await.expect("the command exits in time");
    assert_eq!(status.expect("a status").code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_query_is_reported_in_one_line() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    for (flags, code, line) in [
        (&[][..], 2, "a path or --metric is missing (see --help)"),
        (&["--group=external"], 2, "--metric <NAME> is missing"),
        (&[PODS, "--metric=a"], 2, "--metric"),
        (&["--metric=a", "--watch=0s"], 2, "--watch: \"0s\""),
        (&["/api/v1/pods"], 1, "\"/api/v1/pods\" is not the path of a metric: the server could not find"),
        (&["a b"], 1, "\"a b\" is not the path of a metric"),
        (&["--metric=..", "--namespace=.."], 1, "invalid request path"),
        (&["--metric=a", "-l", "a in b"], 1, "is not the path of a metric"),
        (&["--group=resource", "--resource=jobs"], 1, "--resource: \"jobs\" has no CPU and memory"),
        (&["--group=external", "--metric=a", "--name=b"], 1, "--name: external metrics have no objects"),
        (&["--group=resource", "--metric-selector=a=b"], 1, "--metric-selector: only for custom metrics"),
    ] {
        let (seen, out, err) = query(&fleet, flags).await;
        assert_eq!((seen, out.as_str(), err.lines().count()), (Some(code), "", 1), "{flags:?}: {err}");
        assert!(err.starts_with("karmada-metrics-adapter: ") && err.contains(line), "{flags:?}: {err}");
    }
    fleet.plane.revoke(testkit::control_plane::ADAPTER_USER);
    let (code, _, err) = query(&fleet, &["--metric=a"]).await;
    assert_eq!(code, Some(1));
    assert!(
        err.contains("cannot list the Clusters of the control plane") && err.contains("forbidden"),
        "{err}"
    );
}
