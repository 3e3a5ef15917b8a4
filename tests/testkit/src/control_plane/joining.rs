//! Member clusters as the control plane stores them: the objects that `karmadactl join` creates.

use std::fmt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value, json};

use crate::member::{Access, Member};
use crate::timestamp;

/// The namespace with the members' credentials.
pub const CLUSTER_NAMESPACE: &str = "karmada-cluster";

/// A member cluster to join.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MemberSpec {
    /// The cluster's name.
    pub name: String,
    /// The URL of its API server, `https://127.0.0.1:6443`. A path is kept as prefix.
    pub endpoint: String,
    /// The CA of its serving certificate (PEM). `None` omits `caBundle` from the Secret.
    pub ca_bundle: Option<String>,
    /// Its bearer token. `None` joins it in Pull mode, without a Secret.
    pub token: Option<String>,
    /// `insecureSkipTLSVerification`.
    pub insecure: bool,
    /// `proxyURL`.
    pub proxy_url: Option<String>,
    /// `proxyHeader`.
    pub proxy_header: Vec<(String, String)>,
    /// The status of its condition `Ready`.
    pub ready: bool,
}

impl From<Access> for MemberSpec {
    fn from(access: Access) -> Self {
        Self {
            name: access.name,
            endpoint: access.endpoint,
            ca_bundle: Some(access.ca_pem),
            token: Some(access.token),
            ready: true,
            ..Self::default()
        }
    }
}

impl From<&Member> for MemberSpec {
    fn from(member: &Member) -> Self {
        member.access().into()
    }
}

impl fmt::Debug for MemberSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("MemberSpec");
        debug.field("name", &self.name).field("endpoint", &self.endpoint).field("ready", &self.ready);
        debug.finish_non_exhaustive()
    }
}

impl MemberSpec {
    /// The Secrets and the Cluster, in the order of their creation.
    pub fn objects(&self) -> Vec<Value> {
        let impersonator = format!("{}-impersonator", self.name);
        let reference = |name: &str| json!({"namespace": CLUSTER_NAMESPACE, "name": name});
        let mut spec = json!({
            "apiEndpoint": self.endpoint,
            "insecureSkipTLSVerification": self.insecure,
            "syncMode": if self.token.is_some() { "Push" } else { "Pull" },
        });
        if let Some(url) = &self.proxy_url {
            spec["proxyURL"] = json!(url);
        }
        if !self.proxy_header.is_empty() {
            let header = self.proxy_header.iter().map(|(name, value)| (name.clone(), json!(value)));
            spec["proxyHeader"] = Value::Object(header.collect::<Map<_, _>>());
        }
        let mut objects = Vec::new();
        if let Some(token) = &self.token {
            spec["secretRef"] = reference(&self.name);
            spec["impersonatorSecretRef"] = reference(&impersonator);
            let mut data = json!({"token": BASE64_STANDARD.encode(token.as_bytes())});
            if let Some(bundle) = &self.ca_bundle {
                data["caBundle"] = json!(BASE64_STANDARD.encode(bundle.as_bytes()));
            }
            objects.push(secret(&self.name, &data));
            objects.push(secret(
                &impersonator,
                &json!({"token": BASE64_STANDARD.encode(b"an impersonator's token")}),
            ));
        }
        objects.push(json!({
            "apiVersion": "cluster.karmada.io/v1alpha1",
            "kind": "Cluster",
            "metadata": {"name": self.name, "finalizers": ["karmada.io/cluster-controller"]},
            "spec": spec,
            "status": {
                "kubernetesVersion": "v1.31.0",
                "conditions": [ready_condition(self.ready)],
                "nodeSummary": {"totalNum": 1, "readyNum": 1},
            },
        }));
        objects
    }
}

/// The condition that Karmada's cluster status controller writes.
pub(super) fn ready_condition(ready: bool) -> Value {
    let (status, reason, message) = if ready {
        ("True", "ClusterReady", "cluster is healthy and ready to accept workloads")
    } else {
        ("False", "ClusterNotReachable", "cluster is not reachable")
    };
    let now = timestamp::format(timestamp::now());
    json!({
        "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now,
    })
}

fn secret(name: &str, data: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": CLUSTER_NAMESPACE},
        "type": "Opaque",
        "data": data,
    })
}
