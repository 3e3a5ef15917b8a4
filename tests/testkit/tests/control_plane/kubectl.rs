//! Tests with the real kubectl, if it is installed.

use serde_json::{Value, json};
use testkit::control_plane::{CUSTOM_METRICS, ControlPlane};
use testkit::{Kubectl, kubectls};

use super::{member, within};

#[tokio::test]
async fn kubectl_reads_and_writes_clusters() {
    let plane = ControlPlane::start().await.unwrap();
    for kubectl in kubectls(&plane.admin_kubeconfig().unwrap()) {
        read_and_write_clusters(&kubectl, &plane).await;
    }
}

async fn read_and_write_clusters(kubectl: &Kubectl, plane: &ControlPlane) {
    plane.join(&member("member1")).unwrap();
    plane.join(&member("member2")).unwrap();
    plane.set_ready("member2", false);
    let clusters = kubectl.run(&["get", "clusters"]).await.unwrap();
    let rows: Vec<Vec<&str>> = clusters.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "VERSION", "MODE", "READY", "AGE"]);
    assert_eq!(rows[1][..4], ["member1", "v1.31.0", "Push", "True"]);
    assert_eq!(rows[2][..2], ["member2", "Push"]);

    let raw = kubectl.run(&["get", "--raw", "/apis/cluster.karmada.io/v1alpha1/clusters/member1"]).await;
    assert!(raw.unwrap().contains("\"apiEndpoint\":\"https://127.0.0.1:1\""));
    let resources = kubectl.run(&["api-resources"]).await.unwrap();
    assert!(resources.contains("cluster.karmada.io/v1alpha1") && resources.contains("configmaps"));
    let versions = kubectl.run(&["api-versions"]).await.unwrap();
    assert!(versions.contains("authorization.k8s.io/v1\n") && versions.contains("\nv1\n"));
    let version = kubectl.run(&["version", "-o", "json"]).await.unwrap();
    let version: Value = serde_json::from_str(&version).unwrap();
    assert_eq!(version["serverVersion"]["gitVersion"], "v1.31.0-fleet");

    kubectl
        .run(&["create", "secret", "generic", "s", "-n", "karmada-cluster", "--from-literal=token=x"])
        .await
        .unwrap();
    assert_eq!(plane.object("Secret", "karmada-cluster", "s").unwrap()["data"]["token"], "eA==");
    kubectl.run(&["delete", "secret", "s", "-n", "karmada-cluster"]).await.unwrap();
    assert!(plane.object("Secret", "karmada-cluster", "s").is_none());
    let patch = r#"{"spec":{"insecureSkipTLSVerification":true}}"#;
    kubectl.run(&["patch", "cluster", "member1", "--type=merge", "-p", patch]).await.unwrap();
    let cluster = plane.object("Cluster", "", "member1").unwrap();
    assert_eq!(cluster["spec"]["insecureSkipTLSVerification"], true);
    assert_eq!(cluster["spec"]["syncMode"], "Push");
    kubectl.run(&["label", "cluster", "member1", "region=north"]).await.unwrap();
    let north = kubectl.run(&["get", "clusters", "-l", "region=north", "-o", "name"]).await.unwrap();
    assert_eq!(north.trim(), "cluster.cluster.karmada.io/member1");
    kubectl.run(&["delete", "cluster", "member1"]).await.unwrap();
    assert!(plane.object("Cluster", "", "member1").is_none());
}

#[tokio::test]
async fn kubectl_applies_clusters_and_prints_api_services() {
    let plane = ControlPlane::start().await.unwrap();
    for kubectl in kubectls(&plane.admin_kubeconfig().unwrap()) {
        apply_clusters_and_print_api_services(&kubectl, &plane).await;
    }
}

async fn apply_clusters_and_print_api_services(kubectl: &Kubectl, plane: &ControlPlane) {
    let manifest = plane.directory().join("cluster.json");
    for endpoint in ["https://127.0.0.1:1", "https://127.0.0.1:2"] {
        let cluster = json!({
            "apiVersion": "cluster.karmada.io/v1alpha1", "kind": "Cluster", "metadata": {"name": "member1"},
            "spec": {"apiEndpoint": endpoint, "syncMode": "Push"},
        });
        std::fs::write(&manifest, cluster.to_string()).unwrap();
        let arguments = ["apply", "--validate=false", "-f", manifest.to_str().unwrap()];
        kubectl.run(&arguments).await.unwrap();
        let applied = plane.object("Cluster", "", "member1").unwrap();
        assert_eq!(applied["spec"]["apiEndpoint"], endpoint);
    }
    let closed_port = "127.0.0.1:1".parse().unwrap();
    plane.register_backend(closed_port, None, &CUSTOM_METRICS).unwrap();
    let mut state = plane.availability(CUSTOM_METRICS[1]).unwrap();
    within(state.wait_for(|state| !state.reason.is_empty())).await.unwrap();
    let services = kubectl.run(&["get", "apiservices", CUSTOM_METRICS[1]]).await.unwrap();
    assert!(services.contains("karmada-system/karmada-metrics-adapter"), "{services}");
    assert!(services.contains("False (FailedDiscoveryCheck)"), "{services}");
    let versions = kubectl.run(&["api-versions"]).await.unwrap();
    // Only the aggregated document reports stale groups. kubectl reads it since 1.26.
    let aggregated = kubectl.minor() >= 26;
    assert_eq!(versions.contains("custom.metrics.k8s.io"), !aggregated, "{kubectl}: {versions}");
}
