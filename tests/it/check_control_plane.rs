//! `check` reports problems of the control plane, its APIServices and the user with their causes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::control_plane::{
    ADAPTER_USER, CUSTOM_METRICS, ControlPlane, EXTERNAL_METRICS, RESOURCE_METRICS,
};
use testkit::fleet::Fleet;
use testkit::https::Network;
use testkit::pki::Authority;

use crate::check::{check, message, problems, served};
use crate::process::run;
use crate::stage::{GENEROUS, binary, members};

/// The problems of the APIServices with these names.
fn services(names: &[&str], verdict: &str, cause: &str) -> BTreeSet<String> {
    names.iter().map(|name| format!("-: APIService {name}: {verdict}: {cause}")).collect()
}

fn kubeconfig(plane: &ControlPlane) -> PathBuf {
    plane.admin_kubeconfig().expect("a kubeconfig")
}

/// A kubeconfig with a bearer token.
fn with_token(plane: &ControlPlane, token: &str) -> PathBuf {
    let ca_file = plane.directory().join("ca.crt");
    std::fs::write(&ca_file, plane.ca_pem()).expect("a file is written");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": plane.url(), "certificate-authority": ca_file}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let path = plane.directory().join("token.kubeconfig");
    std::fs::write(&path, config.to_string()).expect("a file is written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_wrong_apiservice_is_reported() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    fleet.plane.deregister_backend(&[CUSTOM_METRICS[0], RESOURCE_METRICS, EXTERNAL_METRICS]);
    let mut expected = services(&[CUSTOM_METRICS[0]], "broken", "APIServiceMissing");
    // Resource metrics are optional: a missing APIService is a warning. External metrics are off unless their APIService is
    // registered.
    expected.extend(services(&[RESOURCE_METRICS], "warning", "APIServiceMissing"));
    let (code, report) = check(&kubeconfig(&fleet.plane), &[]).await;
    assert_eq!((code, problems(&report)), (Some(1), expected.clone()));
    // An identity without permission to read APIServices detects the problem with requests to the APIs.
    let (code, report) = check(&fleet.plane.adapter_kubeconfig().expect("a kubeconfig"), &[]).await;
    assert_eq!((code, problems(&report)), (Some(1), expected));

    for name in CUSTOM_METRICS {
        let (version, group) = name.split_once('.').expect("a version and a group");
        let service = json!({"namespace": "monitoring", "name": "prometheus-adapter", "port": 443});
        let elsewhere = json!({
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": name},
            "spec": {"group": group, "version": version, "service": service},
            "status": {"conditions": [{"type": "Available", "status": "True"}]},
        });
        fleet.plane.apply(elsewhere).expect("the APIService is applied");
    }
    let (code, report) = check(&kubeconfig(&fleet.plane), &["--cluster=member1"]).await;
    let mut expected = services(&CUSTOM_METRICS, "broken", "APIServiceElsewhere");
    expected.extend(services(&[RESOURCE_METRICS], "warning", "APIServiceMissing"));
    assert_eq!((code, problems(&report)), (Some(1), expected));
    let text = message(&report, "APIServiceElsewhere");
    let words = "spec.service is monitoring/prometheus-adapter, not karmada-system/karmada-metrics-adapter";
    assert!(text.contains(words), "{text}");
    // No problem if the flags name the other Service.
    let flags = ["--service=prometheus-adapter", "--service-namespace=monitoring"];
    let (_, report) = check(&kubeconfig(&fleet.plane), &flags).await;
    assert!(
        services(&CUSTOM_METRICS, "broken", "APIServiceElsewhere").is_disjoint(&problems(&report)),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_adapter_and_rejected_certificate_are_distinguished() {
    let (fleet, adapter) = served(members(1, 1).await).await;
    let plane = &fleet.plane;
    // An API server of Kubernetes 1.36 verifies the serving certificate in its probe. Versions up to 1.34 do not.
    let strange = Authority::new("another-ca").pem();
    for older in [false, true] {
        if older {
            plane.probe_without_verifying();
        }
        plane
            .register_backend(adapter.address(), Some(&strange), &CUSTOM_METRICS)
            .expect("the APIService is registered");
        for name in CUSTOM_METRICS {
            assert_eq!(plane.probe_now(name).await.expect("the APIService is registered").available, older);
        }
        let (code, report) = check(&kubeconfig(plane), &[]).await;
        let expected = services(&CUSTOM_METRICS, "broken", "ServingCertificateRefused");
        assert_eq!((code, problems(&report)), (Some(1), expected));
        let text = message(&report, "ServingCertificateRefused");
        assert!(text.ends_with("x509: certificate signed by unknown authority"), "{text}");
    }

    plane
        .register_backend(adapter.address(), Some(adapter.ca_pem()), &CUSTOM_METRICS)
        .expect("the APIService is registered");
    adapter.kill().await.expect("the adapter is killed");
    let names = [&CUSTOM_METRICS[..], &[RESOURCE_METRICS, EXTERNAL_METRICS]].concat();
    for name in &names {
        assert!(!plane.probe_now(name).await.expect("the APIService is registered").available);
    }
    let (code, report) = check(&kubeconfig(plane), &[]).await;
    let expected = services(&names, "broken", "APIServiceUnavailable");
    assert_eq!((code, problems(&report)), (Some(1), expected));
    let text = message(&report, "APIServiceUnavailable");
    assert!(text.starts_with("FailedDiscoveryCheck: ") && text.ends_with("(os error 111)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn untrusted_front_proxy_is_reported() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let strange = fleet.plane.directory().join("another-front-proxy-ca.crt");
    std::fs::write(&strange, Authority::new("another-front-proxy-ca").pem()).expect("a file is written");
    let flags = [
        format!("--requestheader-client-ca-file={}", strange.display()),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
    ];
    let mut adapter = fleet.run_adapter(binary(), &flags, None).expect("the adapter starts");
    adapter.ready(GENEROUS).await.expect("the adapter is ready");
    fleet.register(&adapter, &CUSTOM_METRICS).expect("the APIService is registered");
    for name in CUSTOM_METRICS {
        fleet.plane.probe_now(name).await.expect("the APIService is registered");
    }
    let (code, report) = check(&kubeconfig(&fleet.plane), &[]).await;
    let mut expected = services(&CUSTOM_METRICS, "broken", "FrontProxyRefused");
    expected.extend(services(&[RESOURCE_METRICS], "warning", "APIServiceMissing"));
    assert_eq!((code, problems(&report)), (Some(1), expected), "{report}");
    assert_eq!(message(&report, "FrontProxyRefused"), "FailedDiscoveryCheck: bad status: 401");
}

#[tokio::test(flavor = "multi_thread")]
async fn unavailable_control_plane_is_reported_in_time() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let expected: BTreeSet<_> = ["-: API server: broken: ControlPlaneUnreachable".to_owned()].into();
    for line in [Network::Refused, Network::Frozen] {
        fleet.plane.set_line(line);
        let started = Instant::now();
        let (code, report) = check(&kubeconfig(&fleet.plane), &["--member-timeout=2s"]).await;
        assert_eq!((code, problems(&report)), (Some(1), expected.clone()), "{line:?}");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_identity_or_missing_permissions_are_reported() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    let plane = &fleet.plane;
    let token = "a-token-that-was-never-issued";
    let (code, report) = check(&with_token(plane, token), &[]).await;
    let expected = "-: API server: broken: ControlPlaneUnauthorized".to_owned();
    assert_eq!((code, problems(&report)), (Some(1), [expected].into()));
    assert!(!report.to_string().contains(token), "{report}");

    let unprivileged = plane.kubeconfig("unprivileged", &[]).expect("a kubeconfig");
    let (code, report) = check(&unprivileged, &[]).await;
    let clusters = "-: Clusters: broken: ControlPlaneForbidden";
    let permissions = "-: permissions: broken: ControlPlaneForbidden";
    let expected = [clusters, permissions].map(str::to_owned).into();
    assert_eq!((code, problems(&report)), (Some(1), expected));
    assert!(report.to_string().contains("may not get clusters, list clusters, watch clusters"), "{report}");

    // The adapter's own identity, without its permission for Secrets.
    plane.revoke(ADAPTER_USER);
    plane.allow(ADAPTER_USER, &["get", "list", "watch"], "cluster.karmada.io", &["clusters"]);
    plane.allow(ADAPTER_USER, &["get", "list", "watch"], "", &["configmaps"]);
    plane.allow(ADAPTER_USER, &["create"], "*", &["tokenreviews", "subjectaccessreviews"]);
    let (code, report) = check(&plane.adapter_kubeconfig().expect("a kubeconfig"), &[]).await;
    let expected =
        [permissions, "member1: credentials: broken: ControlPlaneForbidden"].map(str::to_owned).into();
    assert_eq!((code, problems(&report)), (Some(1), expected));
    let words = "may not get secrets in karmada-cluster, list secrets in karmada-cluster, watch secrets";
    assert!(report.to_string().contains(words), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_malformed_clusters_are_reported() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    let malformed = json!({
        "apiVersion": "cluster.karmada.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "malformed"},
        "spec": {"apiEndpoint": 6443},
    });
    fleet.plane.apply(malformed).expect("the Cluster is applied");
    let (code, report) = check(&kubeconfig(&fleet.plane), &[]).await;
    let expected = "malformed: Cluster: broken: ClusterMalformed".to_owned();
    assert_eq!((code, problems(&report)), (Some(1), [expected].into()));
    let (code, report) = check(&kubeconfig(&fleet.plane), &["--cluster=absent"]).await;
    assert_eq!(code, Some(1));
    assert!(problems(&report).contains("absent: Cluster: broken: NoClusters"), "{report}");

    fleet.plane.remove("member1");
    fleet.plane.remove("malformed");
    let (code, report) = check(&kubeconfig(&fleet.plane), &[]).await;
    assert_eq!((code, problems(&report)), (Some(1), ["-: Clusters: broken: NoClusters".to_owned()].into()));
    // The table names the remedy.
    let kubeconfig = kubeconfig(&fleet.plane).display().to_string();
    let (code, out, err) = run(&["check", "--kubeconfig", &kubeconfig]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        out.contains("BROKEN") && out.contains("  NoClusters: join a cluster: karmadactl join\n"),
        "{out}"
    );
    assert!(err.ends_with(" checks are broken\n") && err.lines().count() == 1, "{err}");
}
