//! CPU and memory in old and new kubectl, through the control plane.

use http::StatusCode;
use serde_json::Value;
use testkit::control_plane::RESOURCE_METRICS;
use testkit::member::wire::{ContainerMetrics, NodeMetrics, PodMetrics};
use testkit::member::{Fault, Formats, Member, MemberOptions};
use testkit::{Kubectl, kubectls};

use crate::stage::{CLUSTER_LABEL, Stage};

/// Two clusters with a pod and a node of the same name, and one cluster without resource metrics.
async fn stage() -> Stage {
    let json = MemberOptions { formats: Formats::Json, ..MemberOptions::default() };
    let without = MemberOptions { resource_metrics: false, ..MemberOptions::default() };
    let mut members = Vec::new();
    for (name, cpu, options) in [("member1", "1m", MemberOptions::default()), ("member2", "1500m", json)] {
        let member = Member::start_with(name, options).await.expect("a member starts");
        let member = member.with_pods("http_requests", 1).with_nodes(1);
        member.store().set_pod_usage(PodMetrics::new("default", "shared-0", cpu, "1Mi"));
        member.store().set_node_usage(NodeMetrics::new("shared", cpu, "1Gi"));
        members.push(member);
    }
    let mut lone = PodMetrics::new("other", "lone", "30m", "16Mi").label("tier", "db");
    let usage =
        [("cpu", "10m"), ("memory", "4Mi")].map(|(name, amount)| (name.to_owned(), amount.to_owned()));
    lone.containers.push(ContainerMetrics { name: "sidecar".to_owned(), usage: usage.into() });
    members[0].store().set_pod_usage(lone);
    members.push(Member::start_with("member3", without).await.expect("a member starts"));
    let stage = Stage::start(members, &[]).await;
    stage.register(&[RESOURCE_METRICS]).await;
    stage
}

fn all_kubectls(stage: &Stage) -> Vec<Kubectl> {
    kubectls(&stage.fleet.plane.admin_kubeconfig().expect("a kubeconfig"))
}

/// The output lines of a command, with single spaces between words.
async fn printed(kubectl: &Kubectl, command: &str) -> Vec<String> {
    let printed = kubectl.run(&Vec::from_iter(command.split(' '))).await.expect("kubectl succeeds");
    printed.lines().map(|line| Vec::from_iter(line.split_whitespace()).join(" ")).collect()
}

async fn error(kubectl: &Kubectl, command: &str) -> String {
    let error = kubectl.run(&Vec::from_iter(command.split(' '))).await.expect_err("kubectl fails");
    format!("{error:#}")
}

#[tokio::test(flavor = "multi_thread")]
async fn top_prints_the_pods_of_all_clusters() {
    let stage = stage().await;
    let (heading, wide) = ("NAME CPU(cores) MEMORY(bytes)", "NAMESPACE NAME CPU(cores) MEMORY(bytes)");
    let (first, second) = ("sample-app-member1-0001 14m 21Mi", "sample-app-member2-0001 14m 21Mi");
    for kubectl in all_kubectls(&stage) {
        for (command, expected) in [
            ("top pods", vec![heading, first, second, "shared-0 1m 1Mi", "shared-0 1500m 1Mi"]),
            ("top pods -l app=sample-app", vec![heading, first, second]),
            ("top pods -l app=sample-app --use-protocol-buffers=false", vec![heading, first, second]),
            ("top pods -l app=sample-app --use-protocol-buffers=true", vec![heading, first, second]),
            ("top pods -n other", vec![heading, "lone 40m 20Mi"]),
            ("top pods -n nowhere", vec![]),
            ("top pod sample-app-member2-0001", vec![heading, second]),
            (
                "top pods -A",
                vec![
                    wide,
                    "default sample-app-member1-0001 14m 21Mi",
                    "default sample-app-member2-0001 14m 21Mi",
                    "default shared-0 1m 1Mi",
                    "default shared-0 1500m 1Mi",
                    "other lone 40m 20Mi",
                ],
            ),
            (
                "top pods -A --containers -l tier=db",
                vec![
                    "NAMESPACE POD NAME CPU(cores) MEMORY(bytes)",
                    "other lone app 30m 16Mi",
                    "other lone sidecar 10m 4Mi",
                ],
            ),
        ] {
            // kubectl 1.20 requests JSON and has no flag for protobuf.
            if kubectl.minor() > 20 || !command.contains("protocol-buffers") {
                assert_eq!(printed(&kubectl, command).await, expected, "{kubectl} {command}");
            }
        }
    }
}

/// kubectl reads the nodes' capacity from the control plane to print percentages. The control plane has no nodes, so the
/// percentages are empty (kubectl then prints memory under CPU%).
#[tokio::test(flavor = "multi_thread")]
async fn top_prints_nodes_without_percentages_and_fails_for_one_unknown_node() {
    let stage = stage().await;
    let (heading, first) = ("NAME CPU(cores) CPU% MEMORY(bytes) MEMORY%", "member1-node-1 137m 1025Mi");
    for kubectl in all_kubectls(&stage) {
        let nodes = [heading, first, "member2-node-1 137m 1025Mi", "shared 1m 1024Mi", "shared 1500m 1024Mi"];
        assert_eq!(printed(&kubectl, "top nodes").await, nodes, "{kubectl}");
        let chosen = printed(&kubectl, "top nodes -l kubernetes.io/hostname=member1-node-1").await;
        assert_eq!(chosen, [heading, first], "{kubectl}");
        let error = error(&kubectl, "top node member1-node-1").await;
        assert!(error.contains(r#"(NotFound): nodes "member1-node-1" not found"#), "{error}");
    }
    let requests = stage.fleet.plane.requests();
    let node = "/v1/nodes/member1-node-1";
    assert!(requests.iter().any(|request| request.path == format!("/api{node}")), "kubectl gets the Node");
    let metrics = stage.get("/apis/metrics.k8s.io/v1beta1/nodes/member1-node-1").await.json().expect("JSON");
    assert_eq!(metrics["usage"]["cpu"], "137m", "the node has metrics");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_prints_pods_and_nodes_as_tables() {
    let stage = stage().await;
    let (heading, wide) = ("NAME CPU MEMORY WINDOW", "NAMESPACE NAME CPU MEMORY WINDOW");
    let first = "sample-app-member1-0001 13345679n 21Mi 15s";
    let second = "sample-app-member2-0001 13345679n 21Mi 15s";
    let shared = ["shared-0 1m 1Mi 15s", "shared-0 1500m 1Mi 15s"];
    for kubectl in all_kubectls(&stage) {
        for (command, expected) in [
            ("get pods.metrics.k8s.io", vec![heading, first, second, shared[0], shared[1]]),
            ("get podmetrics -l app=sample-app", vec![heading, first, second]),
            ("get pods.metrics.k8s.io sample-app-member1-0001", vec![heading, first]),
            (
                "get pods.metrics.k8s.io --field-selector metadata.name=shared-0",
                vec![heading, shared[0], shared[1]],
            ),
            (
                "get pods.metrics.k8s.io -A --chunk-size=1 --field-selector metadata.namespace=other",
                vec![wide, "other lone 40m 20Mi 15s"],
            ),
            (
                "get nodes.metrics.k8s.io",
                vec![
                    heading,
                    "member1-node-1 137m 1025Mi 15s",
                    "member2-node-1 137m 1025Mi 15s",
                    "shared 1m 1Gi 15s",
                    "shared 1500m 1Gi 15s",
                ],
            ),
            (
                "get nodes.metrics.k8s.io -o name",
                vec![
                    "nodemetrics.metrics.k8s.io/member1-node-1",
                    "nodemetrics.metrics.k8s.io/member2-node-1",
                    "nodemetrics.metrics.k8s.io/shared",
                    "nodemetrics.metrics.k8s.io/shared",
                ],
            ),
        ] {
            assert_eq!(printed(&kubectl, command).await, expected, "{kubectl} {command}");
        }
        let chunks = printed(&kubectl, "get pods.metrics.k8s.io -A --chunk-size=1").await;
        assert_eq!(chunks.len(), 6, "one chunk: {chunks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_prints_the_cluster_in_json_and_yaml() {
    let stage = stage().await;
    for kubectl in all_kubectls(&stage) {
        let json = printed(&kubectl, "get pods.metrics.k8s.io -A -o json").await.join("\n");
        let list: Value = serde_json::from_str(&json).expect("JSON");
        let item = |index: usize| {
            let metadata = &list["items"][index]["metadata"];
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            (text(&metadata["name"]), text(&metadata["annotations"][CLUSTER_LABEL]))
        };
        let pairs = Vec::from_iter((0..5).map(item));
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(name, cluster)| (name.as_str(), cluster.as_str())).collect();
        let expected = [
            ("sample-app-member1-0001", "member1"),
            ("sample-app-member2-0001", "member2"),
            ("shared-0", "member1"),
            ("shared-0", "member2"),
            ("lone", "member1"),
        ];
        assert_eq!(pairs, expected, "{kubectl}");
        let yaml = printed(&kubectl, "get nodes.metrics.k8s.io member2-node-1 -o yaml").await;
        for line in ["kind: NodeMetrics", "resource.karmada.io/query-from-cluster: member2", "cpu: 137m"] {
            assert!(yaml.iter().any(|printed| printed == line), "{kubectl}: {line} is not in {yaml:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_names_missing_clusters_and_prints_the_others() {
    let stage = stage().await;
    stage.member(1).fault(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR, "boom".to_owned()));
    for kubectl in all_kubectls(&stage) {
        for command in [["top", "pods"], ["get", "pods.metrics.k8s.io"]] {
            let (stdout, stderr) = kubectl.run_with_stderr(&command).await.expect("kubectl succeeds");
            assert!(
                stdout.contains("member1-0001") && !stdout.contains("member2-0001"),
                "{kubectl}: {stdout}"
            );
            let warning = "Warning: values of 1 cluster are missing: member2: HTTP 500: boom [APIFailing]";
            assert_eq!(stderr.trim(), warning, "{kubectl} {command:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_prints_why_there_is_no_result() {
    let stage = stage().await;
    for kubectl in all_kubectls(&stage) {
        for (command, words) in [
            (
                "top pod shared-0",
                "(Conflict): Operation cannot be fulfilled on pods \"shared-0\": it is in more than one cluster: \
                 member1, member2; list pods to see all of them",
            ),
            ("top node shared", "(Conflict): Operation cannot be fulfilled on nodes \"shared\""),
            ("get pods.metrics.k8s.io shared-0", "it is in more than one cluster: member1, member2"),
            ("get pods.metrics.k8s.io ghost", "(NotFound): pods \"ghost\" not found"),
            ("get pods.metrics.k8s.io --watch-only", "(MethodNotAllowed)"),
            ("get pods.metrics.k8s.io --field-selector spec.nodeName=n", "is not a known field selector"),
        ] {
            let error = error(&kubectl, command).await;
            assert!(error.contains(words), "{kubectl} {command}: {error}");
        }
    }
}
