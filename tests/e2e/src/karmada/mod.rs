//! Karmada's control plane as far as the adapter knows it: clusters and their Secrets, what the adapter may do, and its
//! APIs' registrations, on a real API server.

pub mod availability;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::control_plane::{
    BACKEND_NAMESPACE, BACKEND_SERVICE, CLUSTER_NAMESPACE, CUSTOM_METRICS, EXTERNAL_METRICS, MemberSpec,
    RESOURCE_METRICS,
};
use tokio::process::Command;

use crate::api::until;
use crate::cluster::Cluster;
use crate::tools::Tools;

/// What the adapter is registered as.
pub const API_SERVICES: [&str; 4] =
    [CUSTOM_METRICS[0], CUSTOM_METRICS[1], RESOURCE_METRICS, EXTERNAL_METRICS];
/// Where the registrations are.
pub const API_SERVICES_PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// The controllers that run: the autoscaler, and the one that fills in the token of the adapter's service account.
const CONTROLLERS: [&str; 2] = ["horizontal-pod-autoscaler-controller", "serviceaccount-token-controller"];
/// Karmada's Cluster as a CustomResourceDefinition; in Karmada another aggregated API server serves it.
const CLUSTER_DEFINITION: &str = include_str!("cluster.json");
/// How long something may take that controllers do in the background.
const SOON: Duration = Duration::from_secs(60);

/// A running control plane.
pub struct ControlPlane {
    /// The cluster that it is.
    pub cluster: Cluster,
}

impl ControlPlane {
    /// Starts it, and applies what the project's `deploy/control-plane` and `apiservice/external` have: nothing else lets
    /// the adapter in.
    ///
    /// # Errors
    /// If a program cannot be run, or something is refused.
    pub async fn start(tools: &Tools, directory: &Path, logs: &Path) -> anyhow::Result<Self> {
        let cluster = Cluster::start("karmada", &CONTROLLERS, &[], tools, directory, logs).await?;
        let namespace =
            |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let definition: Value = serde_json::from_str(CLUSTER_DEFINITION)?;
        cluster.api.define("cluster-definition", &[definition]).await?;
        let objects = [namespace(BACKEND_NAMESPACE), namespace(CLUSTER_NAMESPACE)];
        cluster.api.apply("namespaces", &objects).await?;
        for part in ["deploy/control-plane", "apiservice/external"] {
            let part = project().join(part);
            cluster.api.kubectl(&["apply", "-k", &part.display().to_string()]).await?;
        }
        Ok(Self { cluster })
    }

    /// Joins a member, or gives it other credentials.
    ///
    /// # Errors
    /// If an object is refused.
    pub async fn join(&self, member: &MemberSpec) -> anyhow::Result<()> {
        let objects = member.objects();
        self.cluster.api.apply(&member.name, &objects).await?;
        let status = objects.last().map(|object| json!({"status": object["status"]}));
        let path = format!("/apis/cluster.karmada.io/v1alpha1/clusters/{}/status", member.name);
        self.cluster.api.patch(&path, &status.context("a member has a Cluster")?).await?;
        Ok(())
    }

    /// Replaces a member's token in its Secret.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn change_token(&self, member: &str, token: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{CLUSTER_NAMESPACE}/secrets/{member}");
        self.cluster.api.patch(&path, &json!({"data": {"token": STANDARD.encode(token)}})).await?;
        Ok(())
    }

    /// The adapter's kubeconfig, which the project's `kubeconfig.sh` prints.
    ///
    /// # Errors
    /// If its token is not there within a minute.
    pub async fn adapter_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let script = project().join("deploy/control-plane/kubeconfig.sh");
        let text = until("a token for the adapter", SOON, async || {
            let mut command = Command::new(&script);
            command.arg(self.cluster.kubeconfig()).arg(self.cluster.url()).stdin(Stdio::null());
            let output = command.kill_on_drop(true).output().await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(output.stdout)
        });
        let file = self.cluster.directory().join("adapter.kubeconfig");
        fs::write(&file, text.await?)?;
        Ok(file)
    }

    /// Leads the adapter's Service to a port of this machine and believes certificates of these authorities alone.
    ///
    /// # Errors
    /// If a change is refused.
    pub async fn lead_to(&self, port: u16, authorities: &str) -> anyhow::Result<()> {
        let service = format!("/api/v1/namespaces/{BACKEND_NAMESPACE}/services/{BACKEND_SERVICE}");
        self.cluster.api.patch(&service, &json!({"spec": {"externalName": "localhost"}})).await?;
        let spec = json!({"spec": {
            "insecureSkipTLSVerify": null,
            "caBundle": STANDARD.encode(authorities),
            "service": {"port": port},
        }});
        for name in API_SERVICES {
            self.cluster.api.patch(&format!("{API_SERVICES_PATH}/{name}"), &spec).await?;
        }
        Ok(())
    }

    /// Waits until all registrations are available.
    ///
    /// # Errors
    /// If one is not within a minute.
    pub async fn available(&self) -> anyhow::Result<()> {
        for name in API_SERVICES {
            let path = format!("{API_SERVICES_PATH}/{name}");
            self.cluster
                .api
                .until(&path, SOON, |service| availability::unavailable(service).is_none())
                .await?;
        }
        Ok(())
    }
}

/// The project's top.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
