//! The parts of Karmada's control plane that the adapter uses, on a real API server: clusters with their Secrets, the adapter's
//! permissions, and the registrations of its APIs.

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

/// The APIServices of the adapter.
pub const API_SERVICES: [&str; 4] =
    [CUSTOM_METRICS[0], CUSTOM_METRICS[1], RESOURCE_METRICS, EXTERNAL_METRICS];
/// The path of the registrations.
pub const API_SERVICES_PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
/// The running controllers: the autoscaler, and the controller that fills in the token of the adapter's service account.
const CONTROLLERS: [&str; 2] = ["horizontal-pod-autoscaler-controller", "serviceaccount-token-controller"];
/// Karmada's Cluster as a CustomResourceDefinition. In Karmada an aggregated API server serves it.
const CLUSTER_DEFINITION: &str = include_str!("cluster.json");
/// Time limit for background work of controllers.
const SOON: Duration = Duration::from_secs(60);

/// A running control plane.
pub struct ControlPlane {
    /// The cluster of the control plane.
    pub cluster: Cluster,
}

impl ControlPlane {
    /// Starts the control plane and applies the project's `deploy/control-plane` and `apiservice/external`. The adapter gets no
    /// other permissions.
    ///
    /// # Errors
    /// If a program cannot be run, or an object is rejected.
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

    /// Joins a member, or changes its credentials.
    ///
    /// # Errors
    /// If an object is rejected.
    pub async fn join(&self, member: &MemberSpec) -> anyhow::Result<()> {
        let objects = member.objects();
        self.cluster.api.apply(&member.name, &objects).await?;
        let status = objects.last().map(|object| json!({"status": object["status"]}));
        let path = format!("/apis/cluster.karmada.io/v1alpha1/clusters/{}/status", member.name);
        self.cluster.api.patch(&path, &status.context("the member has no Cluster")?).await?;
        Ok(())
    }

    /// Replaces the token in the Secret of a member.
    ///
    /// # Errors
    /// If the change is rejected.
    pub async fn change_token(&self, member: &str, token: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{CLUSTER_NAMESPACE}/secrets/{member}");
        self.cluster.api.patch(&path, &json!({"data": {"token": STANDARD.encode(token)}})).await?;
        Ok(())
    }

    /// The adapter's kubeconfig, as the project's `kubeconfig.sh` prints it.
    ///
    /// # Errors
    /// If there is no token within one minute.
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

    /// Points the adapter's Service to a port of this machine. Only certificates of these CAs are trusted.
    ///
    /// # Errors
    /// If a change is rejected.
    pub async fn set_backend(&self, port: u16, authorities: &str) -> anyhow::Result<()> {
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
    /// If one is not available within one minute.
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

/// The root directory of the project.
fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
