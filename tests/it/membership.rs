//! Members join, leave and change, and the control plane fails. No member is lost and no false member is added.

use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::StatusCode;
use serde_json::{Value, json};
use testkit::control_plane::{ADAPTER_USER, MemberSpec};
use testkit::fleet::Fleet;
use testkit::https::Network;
use testkit::member::{Fault, Member, MemberOptions};

use crate::stage::{CLUSTER_LABEL, GENEROUS, PODS, Stage, binary, clusters, distinct, members, until};

/// The namespace of the members' Secrets, as in Karmada.
const CLUSTER_NAMESPACE: &str = "karmada-cluster";

/// One query returns values of exactly these members, without warnings.
async fn assert_complete(stage: &Stage, expected: &[&str]) {
    let response = stage.get(PODS).await;
    assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()), "{:?}", response.body);
    assert_eq!(clusters(&response.json().expect("JSON")), expected);
}

async fn member(name: &str) -> Member {
    Member::start(name).await.expect("a member starts").with_pods("http_requests", 1)
}

fn cluster(name: &str, namespace: &str, endpoint: &str) -> Value {
    json!({
        "apiVersion": "cluster.karmada.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {
            "apiEndpoint": endpoint,
            "syncMode": "Push",
            "secretRef": {"namespace": namespace, "name": name},
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn secret(name: &str, namespace: &str, token: &str, bundle: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"token": BASE64_STANDARD.encode(token.as_bytes()), "caBundle": BASE64_STANDARD.encode(bundle.as_bytes())},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_joins_create_few_snapshots() {
    const CLUSTERS: usize = 1_000;
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let spec = MemberSpec::from(stage.member(0));
    for number in 0..CLUSTERS {
        let spec = MemberSpec { name: format!("cluster{number}"), ready: false, ..spec.clone() };
        stage.fleet.plane.join(&spec).expect("the cluster joins");
    }
    let deadline = Instant::now() + GENEROUS;
    while stage.metric("clusters{standing=\"not_ready\"}").await != CLUSTERS {
        assert!(Instant::now() < deadline, "not all clusters have joined: {}", stage.metrics().await);
    }
    // The cost of a snapshot is proportional to the number of clusters: one per change would be a million steps.
    let snapshots = stage.metric("fleet_snapshots_total").await;
    assert!((1..CLUSTERS / 4).contains(&snapshots), "{snapshots} snapshots");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_endpoint_replaces_the_old_one() {
    let stage = Stage::start(members(2, 1).await, &[]).await;
    let moved = member("member1").await;
    stage.fleet.plane.join(&MemberSpec::from(&moved)).expect("the cluster joins");
    moved.until(|counters| counters.requests > 0).await;
    until(&stage, |names| names == ["member1", "member2"]).await;
    stage.member(0).reset_counters();
    for _ in 0..5 {
        assert_complete(&stage, &["member1", "member2"]).await;
    }
    assert_eq!(stage.member(0).counters().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_secret_creates_the_member() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let late = member("late").await;
    let access = late.access();
    stage.fleet.plane.apply(cluster("late", CLUSTER_NAMESPACE, &access.endpoint)).expect("applied");
    stage.logged("its Secret karmada-cluster/late does not exist", 1).await;
    assert_complete(&stage, &["member1"]).await;
    let secret = secret("late", CLUSTER_NAMESPACE, &access.token, &access.ca_pem);
    stage.fleet.plane.apply(secret).expect("applied");
    until(&stage, |names| names == ["late", "member1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_or_invalid_secret_keeps_the_last_valid_credentials() {
    let stage = Stage::start(members(2, 1).await, &[]).await;
    let (plane, access) = (&stage.fleet.plane, stage.member(0).access());
    let both = ["member1", "member2"];
    let last_valid = "credentials are not usable; the cluster is queried with its last valid ones";
    assert!(plane.delete("Secret", CLUSTER_NAMESPACE, "member1"));
    stage.logged(last_valid, 1).await;
    assert_complete(&stage, &both).await;
    for (number, (token, bundle)) in
        [("", access.ca_pem.as_str()), ("two\nlines", &access.ca_pem), (&access.token, "no certificate")]
            .into_iter()
            .enumerate()
    {
        plane.apply(secret("member1", CLUSTER_NAMESPACE, token, bundle)).expect("applied");
        stage.logged(last_valid, 2 + number).await;
        assert_complete(&stage, &both).await;
    }
    let token = stage.member(0).rotate_token();
    plane.apply(secret("member1", CLUSTER_NAMESPACE, &token, &access.ca_pem)).expect("applied");
    let updated = async { while !stage.get(PODS).await.warnings().is_empty() {} };
    tokio::time::timeout(GENEROUS, updated).await.expect("the new token is used");
    assert_complete(&stage, &both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_mode_or_terminating_cluster_is_not_a_member() {
    let stage = Stage::start(members(3, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    let pull = MemberSpec { name: "member1".to_owned(), ready: true, ..MemberSpec::default() };
    plane.join(&pull).expect("the cluster is changed");
    until(&stage, |names| names == ["member2", "member3"]).await;
    let mut leaving = Value::clone(&plane.object("Cluster", "", "member2").expect("the cluster exists"));
    leaving["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
    plane.apply(leaving).expect("applied");
    until(&stage, |names| names == ["member3"]).await;
    assert_complete(&stage, &["member3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_cluster_is_ignored() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let mut malformed = cluster("malformed", CLUSTER_NAMESPACE, "");
    malformed["spec"]["apiEndpoint"] = json!(["no", "text"]);
    stage.fleet.plane.apply(malformed).expect("applied");
    stage.fleet.plane.apply(cluster("nowhere", CLUSTER_NAMESPACE, "ftp://nowhere")).expect("applied");
    let late = member("late").await;
    stage.fleet.plane.join(&MemberSpec::from(&late)).expect("the cluster joins");
    until(&stage, |names| names == ["late", "member1"]).await;
    stage.logged("the Cluster object is malformed and is ignored", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn path_prefix_of_an_endpoint_is_used() {
    let options = MemberOptions { path_prefix: "/k8s/clusters/c-1".to_owned(), ..MemberOptions::default() };
    let behind = Member::start_with("behind", options).await.expect("a member starts");
    let stage = Stage::start(vec![behind.with_pods("http_requests", 2)], &[]).await;
    assert_complete(&stage, &["behind"]).await;
    assert!(!stage.member(0).requests_to("/k8s/clusters/c-1/apis/custom.metrics.k8s.io/v1beta2/").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ca_bundle_can_contain_the_server_certificate() {
    let (own, signed, other) = (member("own").await, member("signed").await, member("other").await);
    let stage = Stage::start(Vec::new(), &[]).await;
    let leaf_of_another = other.renew_certificate();
    other.renew_certificate();
    let leaves =
        [(&own, own.sign_itself()), (&signed, signed.renew_certificate()), (&other, leaf_of_another)];
    for (member, leaf) in leaves {
        let joining = MemberSpec { ca_bundle: Some(leaf), ..MemberSpec::from(member) };
        stage.fleet.plane.join(&joining).expect("the cluster joins");
    }
    until(&stage, |names| names == ["own", "signed"]).await;
    let response = stage.get(PODS).await;
    assert!(response.warnings()[0].contains("other: the API server's certificate is not signed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_watched_only_in_referenced_namespaces() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let (plane, far) = (&stage.fleet.plane, member("far").await);
    let access = far.access();
    let list = "/api/v1/namespaces/elsewhere/secrets";
    for round in 1..=3 {
        plane.apply(secret("far", "elsewhere", &far.token(), &access.ca_pem)).expect("applied");
        plane.apply(cluster("far", "elsewhere", &access.endpoint)).expect("applied");
        until(&stage, |names| names == ["far", "member1"]).await;
        assert_eq!(plane.count("list", list), round);
        assert!(plane.delete("Cluster", "", "far"));
        until(&stage, |names| names == ["member1"]).await;
        far.rotate_token();
    }
    assert_eq!(plane.count("list", "/api/v1/secrets"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_request_is_logged_with_the_missing_permission() {
    let fleet = Fleet::start(members(2, 1).await).await.expect("the fleet starts");
    let plane = &fleet.plane;
    let reads = ["get", "list", "watch"];
    plane.revoke(ADAPTER_USER);
    plane.allow(ADAPTER_USER, &reads, "", &["configmaps"]);
    let adapter = fleet.run_adapter(binary(), &[], None).expect("the adapter starts");
    let mut stage = Stage::of(fleet, adapter);
    let grant = "grant this user the verbs get, list and watch on";
    stage.logged(&format!("{grant} clusters.cluster.karmada.io"), 1).await;
    stage.fleet.plane.allow(ADAPTER_USER, &reads, "cluster.karmada.io", &["clusters"]);
    stage.logged(&format!("{grant} secrets in the namespace karmada-cluster"), 1).await;
    stage.fleet.plane.allow(ADAPTER_USER, &reads, "", &["secrets"]);
    stage.adapter.ready(GENEROUS).await.expect("the adapter is ready");
    assert_complete(&stage, &["member1", "member2"]).await;
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    assert_eq!(log.lines().filter(|line| line.contains(grant)).count(), 2, "each is logged once:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_faults_do_not_remove_members() {
    let stage = Stage::start(members(3, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    let mut expected = vec!["member1", "member2", "member3"];
    // After each fault, a later change is seen. No member is missing meanwhile.
    let extra = [member("late1").await, member("late2").await, member("late3").await, member("late4").await];
    for (round, late) in extra.iter().enumerate() {
        match round {
            0 => plane.restart().await,
            1 => plane.compact(),
            // The API server has neither the history nor any object for a while.
            2 => {
                plane.empty_lists(true);
                plane.compact();
                plane
                    .wait_for_request(|request| {
                        request.verb == "get" && request.path.ends_with("/clusters/member1")
                    })
                    .await;
                assert_complete(&stage, &expected).await;
            }
            _ => {
                plane.refuse_gone_watches();
                plane.drop_watches();
                plane.compact();
            }
        }
        plane.join(&MemberSpec::from(late)).expect("the cluster joins");
        plane.empty_lists(false);
        let deadline = Instant::now() + GENEROUS;
        loop {
            let response = stage.get(PODS).await;
            assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()), "round {round}");
            let names = clusters(&response.json().expect("JSON"));
            assert!(
                expected.iter().all(|name| names.iter().any(|found| found == name)),
                "{round}: {names:?}"
            );
            if names.iter().any(|name| name == late.name()) {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {names:?}");
        }
        expected.push(late.name());
        expected.sort_unstable();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_deleted_during_an_outage_is_removed() {
    let stage = Stage::start(members(3, 1).await, &[]).await;
    let plane = &stage.fleet.plane;
    plane.silence_watches(true);
    plane.remove("member2");
    plane.compact();
    assert_complete(&stage, &["member1", "member2", "member3"]).await;
    plane.silence_watches(false);
    until(&stage, |names| names == ["member1", "member3"]).await;
    assert!(plane.count("get", "/apis/cluster.karmada.io/v1alpha1/clusters/member2") >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_watches_are_restarted() {
    let stage = Stage::start(members(2, 1).await, &["--watch-timeout=2s"]).await;
    stage.fleet.plane.stall_watches();
    stage.fleet.plane.set_ready("member2", false);
    until(&stage, |names| names == ["member1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_token_is_reread_once_for_concurrent_queries() {
    let stage =
        Stage::start(members(2, 1).await, &["--discovery-interval=1h", "--on-member-failure=partial"]).await;
    let (plane, member) = (&stage.fleet.plane, stage.member(0));
    let reading = "/api/v1/namespaces/karmada-cluster/secrets/member1";
    // The adapter gets no watch event for the new token; it must read the Secret.
    plane.silence_watches(true);
    let token = member.rotate_token();
    plane.apply(secret("member1", CLUSTER_NAMESPACE, &token, &member.access().ca_pem)).expect("applied");
    let paths: Vec<String> = (0..20).map(distinct).collect();
    for response in futures::future::join_all(paths.iter().map(|path| stage.get(path))).await {
        assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()));
    }
    assert_eq!(plane.count("get", reading), 1);

    // A Secret without a newer token is read at most once a second. The query fails with the 401.
    let before = plane.count("get", reading);
    member.rotate_token();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        let response = stage.get(PODS).await;
        assert_eq!(clusters(&response.json().expect("JSON")), ["member2"]);
        assert!(response.warnings()[0].contains("member1: HTTP 401"), "{:?}", response.warnings());
    }
    let read = plane.count("get", reading) - before;
    assert!((1..=1 + start.elapsed().as_secs() as usize).contains(&read), "{read} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_token_with_unreadable_secret_fails_all_queries() {
    let flags = ["--discovery-interval=1h", "--on-member-failure=partial", "--member-timeout=20s"];
    let stage = Stage::start(members(1, 1).await, &flags).await;
    assert_eq!(stage.get(PODS).await.status, StatusCode::OK);
    stage.fleet.plane.set_line(Network::Frozen);
    stage.member(0).rotate_token();
    let start = Instant::now();
    let paths: Vec<String> = (0..20).map(distinct).collect();
    for response in futures::future::join_all(paths.iter().map(|path| stage.get(path))).await {
        assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
        let body = String::from_utf8(response.body.to_vec()).expect("text");
        assert!(body.contains(r#""reason":"Unauthorized""#), "{body}");
    }
    // All queries share one wait of two seconds. Sequential waits would take 40 s.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // A client with a shorter deadline gets the same failure.
    let response = stage.get(&format!("{}&timeout=500ms", distinct(99))).await;
    let body = String::from_utf8(response.body.to_vec()).expect("text");
    assert!(body.contains(r#""reason":"Unauthorized""#), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_members_do_not_delay_the_others() {
    let members = members(100, 1).await;
    for (number, member) in members[..20].iter().enumerate() {
        member.fault(if number % 2 == 0 { Fault::Frozen } else { Fault::Hang });
    }
    let hanging: Vec<&str> = members[..20].iter().map(Member::name).collect();
    let others = format!("{CLUSTER_LABEL}%20notin%20%28{}%29", hanging.join("%2C"));
    let fleet = Fleet::start(members).await.expect("the fleet starts");
    let adapter = fleet.run_adapter(binary(), &[], None).expect("the adapter starts");
    let stage = Stage::of(fleet, adapter);
    stage.logged("all clusters are known", 1).await;
    let known = Instant::now();
    let response = stage.get(&format!("{PODS}?metricLabelSelector={others}")).await;
    let elapsed = known.elapsed();
    assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()), "{:?}", response.body);
    assert_eq!(clusters(&response.json().expect("JSON")).len(), 80);
    // This takes one second on an idle machine.
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    eprintln!("80 members were served {elapsed:?} after the fleet was known");
}
