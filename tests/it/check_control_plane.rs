//! `check`: what is wrong with the control plane, its APIServices or this identity is named by its cause.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::control_plane::{
    ADAPTER_USER, CUSTOM_METRICS, ControlPlane, EXTERNAL_METRICS, RESOURCE_METRICS,
};
use testkit::fleet::Fleet;
use testkit::https::Line;
use testkit::pki::Authority;

use crate::check::{amiss, check, message, served};
use crate::process::run;
use crate::stage::{GENEROUS, binary, members};

/// The lines of a report for all APIServices of these names.
fn services(names: &[&str], verdict: &str, cause: &str) -> BTreeSet<String> {
    names.iter().map(|name| format!("-: APIService {name}: {verdict}: {cause}")).collect()
}

fn kubeconfig(plane: &ControlPlane) -> PathBuf {
    plane.admin_kubeconfig().expect("a kubeconfig")
}

/// A kubeconfig with a bearer token.
fn with_token(plane: &ControlPlane, token: &str) -> PathBuf {
    let authority = plane.directory().join("authority.crt");
    std::fs::write(&authority, plane.ca_pem()).expect("a file is written");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": plane.url(), "certificate-authority": authority}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let path = plane.directory().join("token.kubeconfig");
    std::fs::write(&path, config.to_string()).expect("a file is written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apiservice_that_is_missing_or_leads_elsewhere_is_named() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    fleet.plane.deregister_backend(&[CUSTOM_METRICS[0], RESOURCE_METRICS, EXTERNAL_METRICS]);
    let mut expected = services(&[CUSTOM_METRICS[0]], "broken", "APIServiceMissing");
    // CPU and memory may be nobody's concern, and external metrics are off where nobody registers them.
    expected.extend(services(&[RESOURCE_METRICS], "warning", "APIServiceMissing"));
    let (code, report) = check(&kubeconfig(&fleet.plane), &[]).await;
    assert_eq!((code, amiss(&report)), (Some(1), expected.clone()));
    // An identity that may not read APIServices finds out by asking.
    let (code, report) = check(&fleet.plane.adapter_kubeconfig().expect("a kubeconfig"), &[]).await;
    assert_eq!((code, amiss(&report)), (Some(1), expected));

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
        fleet.plane.apply(elsewhere).expect("it is applied");
    }
    let (code, report) = check(&kubeconfig(&fleet.plane), &["--cluster=member1"]).await;
    let mut expected = services(&CUSTOM_METRICS, "broken", "APIServiceElsewhere");
    expected.extend(services(&[RESOURCE_METRICS], "warning", "APIServiceMissing"));
    assert_eq!((code, amiss(&report)), (Some(1), expected));
    let said = message(&report, "APIServiceElsewhere");
    let words = "to the Service monitoring/prometheus-adapter, not to karmada-system/karmada-metrics-adapter";
    assert!(said.contains(words), "{said}");
    // Unless that is meant.
    let meant = ["--service=prometheus-adapter", "--service-namespace=monitoring"];
    let (_, report) = check(&kubeconfig(&fleet.plane), &meant).await;
    assert!(
        services(&CUSTOM_METRICS, "broken", "APIServiceElsewhere").is_disjoint(&amiss(&report)),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_cannot_be_reached_and_a_certificate_that_is_not_accepted_are_told_apart() {
    let (fleet, adapter) = served(members(1, 1).await).await;
    let plane = &fleet.plane;
    // An API server of Kubernetes 1.36 finds that out by itself; one up to 1.34 finds any certificate good enough.
    let strange = Authority::new("another-ca").pem();
    for older in [false, true] {
        if older {
            plane.probe_without_verifying();
        }
        plane.register_backend(adapter.address(), Some(&strange), &CUSTOM_METRICS).expect("it is registered");
        for name in CUSTOM_METRICS {
            assert_eq!(plane.probe_now(name).await.expect("it is registered").available, older);
        }
        let (code, report) = check(&kubeconfig(plane), &[]).await;
        let expected = services(&CUSTOM_METRICS, "broken", "ServingCertificateRefused");
        assert_eq!((code, amiss(&report)), (Some(1), expected));
        let said = message(&report, "ServingCertificateRefused");
        assert!(said.ends_with("x509: certificate signed by unknown authority"), "{said}");
    }

    plane
        .register_backend(adapter.address(), Some(adapter.ca_pem()), &CUSTOM_METRICS)
        .expect("it is registered");
    drop(adapter);
    let names = [&CUSTOM_METRICS[..], &[RESOURCE_METRICS, EXTERNAL_METRICS]].concat();
    for name in &names {
        assert!(!plane.probe_now(name).await.expect("it is registered").available);
    }
    let (code, report) = check(&kubeconfig(plane), &[]).await;
    let expected = services(&names, "broken", "APIServiceUnavailable");
    assert_eq!((code, amiss(&report)), (Some(1), expected));
    let said = message(&report, "APIServiceUnavailable");
    assert!(said.starts_with("FailedDiscoveryCheck: ") && said.ends_with("(os error 111)"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_does_not_believe_the_front_proxy_is_named() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let strange = fleet.plane.directory().join("another-front-proxy-ca.crt");
    std::fs::write(&strange, Authority::new("another-front-proxy-ca").pem()).expect("a file is written");
    let flags = [
        format!("--requestheader-client-ca-file={}", strange.display()),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
    ];
    let mut adapter = fleet.run_adapter(binary(), &flags, None).expect("the adapter starts");
    adapter.ready(GENEROUS).await.expect("the adapter is ready");
    fleet.register(&adapter, &CUSTOM_METRICS).expect("it is registered");
    for name in CUSTOM_METRICS {
        fleet.plane.probe_now(name).await.expect("it is registered");
    }
    let (code, report) = check(&kubeconfig(&fleet.plane), &[]).await;
    let mut expected = services(&CUSTOM_METRICS, "broken", "FrontProxyRefused");
    expected.extend(services(&[RESOURCE_METRICS], "warning", "APIServiceMissing"));
    assert_eq!((code, amiss(&report)), (Some(1), expected), "{report}");
    assert_eq!(message(&report, "FrontProxyRefused"), "FailedDiscoveryCheck: bad status: 401");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_is_not_there_or_does_not_answer_is_named_in_time() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let expected: BTreeSet<_> = ["-: API server: broken: ControlPlaneUnreachable".to_owned()].into();
    for line in [Line::Refused, Line::Frozen] {
        fleet.plane.set_line(line);
        let begun = Instant::now();
        let (code, report) = check(&kubeconfig(&fleet.plane), &["--member-timeout=2s"]).await;
        assert_eq!((code, amiss(&report)), (Some(1), expected.clone()), "{line:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_unknown_or_lacks_rights_is_named() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    let plane = &fleet.plane;
    let token = "a-token-that-was-never-issued";
    let (code, report) = check(&with_token(plane, token), &[]).await;
    let expected = "-: API server: broken: ControlPlaneUnauthorized".to_owned();
    assert_eq!((code, amiss(&report)), (Some(1), [expected].into()));
    assert!(!report.to_string().contains(token), "{report}");

    let nobody = plane.kubeconfig("nobody", &[]).expect("a kubeconfig");
    let (code, report) = check(&nobody, &[]).await;
    let clusters = "-: Clusters: broken: ControlPlaneForbidden";
    let rights = "-: rights: broken: ControlPlaneForbidden";
    let expected = [clusters, rights].map(str::to_owned).into();
    assert_eq!((code, amiss(&report)), (Some(1), expected));
    assert!(report.to_string().contains("may not get clusters, list clusters, watch clusters"), "{report}");

    // The adapter's own, without its right to Secrets.
    plane.revoke(ADAPTER_USER);
    plane.allow(ADAPTER_USER, &["get", "list", "watch"], "cluster.karmada.io", &["clusters"]);
    plane.allow(ADAPTER_USER, &["get", "list", "watch"], "", &["configmaps"]);
    plane.allow(ADAPTER_USER, &["create"], "*", &["tokenreviews", "subjectaccessreviews"]);
    let (code, report) = check(&plane.adapter_kubeconfig().expect("a kubeconfig"), &[]).await;
    let expected = [rights, "member1: credentials: broken: ControlPlaneForbidden"].map(str::to_owned).into();
    assert_eq!((code, amiss(&report)), (Some(1), expected));
    let words = "may not get secrets in karmada-cluster, list secrets in karmada-cluster, watch secrets";
    assert!(report.to_string().contains(words), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_that_are_not_there_or_malformed_are_named() {
    let (fleet, _adapter) = served(members(1, 1).await).await;
    let malformed = json!({
        "apiVersion": "cluster.karmada.io/v1alpha1",
        "kind": "Cluster",
        "metadata": {"name": "malformed"},
        "spec": {"apiEndpoint": 6443},
    });
    fleet.plane.apply(malformed).expect("it is applied");
    let (code, report) = check(&kubeconfig(&fleet.plane), &[]).await;
    let expected = "malformed: Cluster: broken: ClusterMalformed".to_owned();
    assert_eq!((code, amiss(&report)), (Some(1), [expected].into()));
    let (code, report) = check(&kubeconfig(&fleet.plane), &["--cluster=nobody"]).await;
    assert_eq!(code, Some(1));
    assert!(amiss(&report).contains("nobody: Cluster: broken: NoClusters"), "{report}");

    fleet.plane.remove("member1");
    fleet.plane.remove("malformed");
    let (code, report) = check(&kubeconfig(&fleet.plane), &[]).await;
    assert_eq!((code, amiss(&report)), (Some(1), ["-: Clusters: broken: NoClusters".to_owned()].into()));
    // For people, with what to do.
    let kubeconfig = kubeconfig(&fleet.plane).display().to_string();
    let (code, out, err) = run(&["check", "--kubeconfig", &kubeconfig]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        out.contains("BROKEN") && out.contains("  NoClusters: join a cluster: karmadactl join\n"),
        "{out}"
    );
    assert!(err.ends_with(" links are broken\n") && err.lines().count() == 1, "{err}");
}
