//! Karmada's own FederatedHPA controller, if a karmada-controller-manager is available. The control plane has no other part of
//! Karmada: the other kinds that the controller needs are registered, without objects.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::karmada::ControlPlane;
use crate::process::Process;

/// The label that connects a template with its binding. In Karmada a webhook sets it on the objects that a policy selects.
const BINDING_LABEL: &str = "propagationpolicy.karmada.io/permanent-id";
/// Group, version and plural of the required kinds, with the kind and whether it is namespaced.
const KINDS: [(&str, &str, &str, &str, bool); 6] = [
    ("autoscaling.karmada.io", "v1alpha1", "federatedhpas", "FederatedHPA", true),
    ("work.karmada.io", "v1alpha2", "resourcebindings", "ResourceBinding", true),
    ("policy.karmada.io", "v1alpha1", "propagationpolicies", "PropagationPolicy", true),
    ("policy.karmada.io", "v1alpha1", "clusterpropagationpolicies", "ClusterPropagationPolicy", false),
    (
        "config.karmada.io",
        "v1alpha1",
        "resourceinterpreterwebhookconfigurations",
        "ResourceInterpreterWebhookConfiguration",
        false,
    ),
    (
        "config.karmada.io",
        "v1alpha1",
        "resourceinterpretercustomizations",
        "ResourceInterpreterCustomization",
        false,
    ),
];

/// Starts the controller. It scales every workload with a FederatedHPA.
///
/// # Errors
/// If it cannot be run, or the control plane rejects an object.
pub async fn start(plane: &ControlPlane, binary: &Path, logs: &Path) -> anyhow::Result<Process> {
    plane.cluster.api.define("karmada-kinds", &KINDS.map(definition)).await?;
    let kubeconfig = plane.cluster.kubeconfig().display();
    let flags = [
        format!("--kubeconfig={kubeconfig}"),
        "--controllers=federatedHorizontalPodAutoscaler".to_owned(),
        "--leader-elect=false".to_owned(),
        "--metrics-bind-address=0".to_owned(),
        "--health-probe-bind-address=0".to_owned(),
        "--horizontal-pod-autoscaler-sync-period=2s".to_owned(),
        // A failed round is repeated with backoff, by default up to 1000 s. That is too long for these tests.
        "--rate-limiter-max-delay=2s".to_owned(),
        "--skipped-propagating-apis=apps".to_owned(),
        "--feature-gates=PropagateDeps=false".to_owned(),
    ];
    Process::start("karmada-controller-manager", binary, flags, logs)
}

/// A template's FederatedHPA on requests per second and pod, and the binding with its clusters.
pub fn objects(name: &str, clusters: &[&str], average: u32, stabilization: Duration) -> [Value; 2] {
    let clusters: Vec<Value> = clusters.iter().map(|name| json!({"name": name, "replicas": 1})).collect();
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
    let mut resource = target.clone();
    resource["namespace"] = json!("default");
    let rules = |window: u64, policies: Value| json!({"stabilizationWindowSeconds": window, "selectPolicy": "Max", "policies": policies});
    let policy = |kind: &str, value: u32| json!({"type": kind, "value": value, "periodSeconds": 15});
    [
        json!({
            "apiVersion": "work.karmada.io/v1alpha2",
            "kind": "ResourceBinding",
            "metadata": {"namespace": "default", "name": format!("{name}-deployment"), "labels": binding_label(name)},
            "spec": {"resource": resource, "clusters": clusters},
        }),
        json!({
            "apiVersion": "autoscaling.karmada.io/v1alpha1",
            "kind": "FederatedHPA",
            "metadata": {"namespace": "default", "name": name},
            "spec": {
                "scaleTargetRef": target,
                "minReplicas": 1,
                "maxReplicas": 10,
                "metrics": [{"type": "Pods", "pods": {
                    "metric": {"name": "http_requests"},
                    "target": {"type": "AverageValue", "averageValue": average.to_string()},
                }}],
                // There is no webhook that sets these defaults.
                "behavior": {
                    "scaleUp": rules(0, json!([policy("Pods", 4), policy("Percent", 100)])),
                    "scaleDown": rules(stabilization.as_secs(), json!([policy("Percent", 100)])),
                },
            },
        }),
    ]
}

/// The label that a template and its binding share.
pub fn binding_label(name: &str) -> Value {
    json!({BINDING_LABEL: name})
}

/// A kind with objects that may have any fields.
fn definition((group, version, plural, kind, namespaced): (&str, &str, &str, &str, bool)) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let names = json!({
        "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "names": names,
            "versions": [{
                "name": version,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    })
}
