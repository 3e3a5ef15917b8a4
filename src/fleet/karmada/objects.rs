//! Reads `Cluster` objects and Secrets of the control plane.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde::Deserialize;

use super::registry::{ClusterSecret, ClusterSpec, SecretName};

/// Reads the parts of a `Cluster` that are needed to connect to its API server.
///
/// # Errors
/// If a field has an unexpected type.
pub fn read_cluster(object: &DynamicObject) -> Result<ClusterSpec, serde_json::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct ClusterObjectSpec {
        api_endpoint: String,
        secret_ref: Option<SecretReference>,
        #[serde(rename = "insecureSkipTLSVerification")]
        insecure: bool,
        #[serde(rename = "proxyURL")]
        proxy_url: String,
        proxy_header: BTreeMap<String, String>,
    }
    #[derive(Deserialize)]
    struct SecretReference {
        #[serde(default)]
        namespace: String,
        name: String,
    }
    #[derive(Default, Deserialize)]
    struct ClusterStatus {
        #[serde(default)]
        conditions: Vec<ClusterCondition>,
    }
    #[derive(Deserialize)]
    struct ClusterCondition {
        #[serde(rename = "type")]
        kind: String,
        status: String,
    }
    #[derive(Deserialize)]
    struct ClusterObject {
        #[serde(default)]
        spec: ClusterObjectSpec,
        #[serde(default)]
        status: ClusterStatus,
    }
    let ClusterObject { spec, status } = ClusterObject::deserialize(&object.data)?;
    let ready =
        status.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True");
    Ok(ClusterSpec {
        uid: object.uid().unwrap_or_default(),
        api_endpoint: spec.api_endpoint,
        secret: spec
            .secret_ref
            .map(|SecretReference { namespace, name }| SecretName { namespace, name })
            .filter(|SecretName { namespace, name }| is_name(namespace) && is_name(name)),
        insecure: spec.insecure,
        proxy_url: spec.proxy_url,
        proxy_header: spec.proxy_header,
        ready,
    })
}

/// Whether this is a valid name of a Secret or a namespace. Other names could change the request path.
fn is_name(text: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    !text.is_empty() && text.bytes().all(allowed) && !text.starts_with('.')
}

/// Namespace and name of a Secret.
pub(super) fn secret_name(secret: &Secret) -> SecretName {
    SecretName { namespace: secret.namespace().unwrap_or_default(), name: secret.name_any() }
}

impl From<Secret> for ClusterSecret {
    fn from(secret: Secret) -> Self {
        let mut data = secret.data.unwrap_or_default();
        let mut part = |key| data.remove(key).map(|bytes| bytes.0);
        Self { token: part("token"), ca_bundle: part("caBundle") }
    }
}
