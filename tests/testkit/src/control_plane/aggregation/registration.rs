//! Methods with which tests control the aggregation layer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::Backend;
use super::availability::{ApiService, Availability, Documents};
use crate::control_plane::ControlPlane;
use crate::control_plane::objects::resources::API_SERVICES;

impl ControlPlane {
    /// Registers APIServices (`v1beta2.custom.metrics.k8s.io`) with the backend at `address`, and starts to probe it. The
    /// backend's certificate must be for `karmada-metrics-adapter.karmada-system.svc` and from the given CA (PEM). `None` means
    /// `insecureSkipTLSVerify`. A name that is already registered moves to this backend.
    ///
    /// # Errors
    /// If a name or the CA is malformed.
    pub fn register_backend(
        &self,
        address: SocketAddr,
        ca_pem: Option<&str>,
        names: &[&str],
    ) -> anyhow::Result<()> {
        let backend = Arc::new(Backend::new(address, ca_pem, &self.front_proxy)?);
        let documents = Arc::new(Documents::default());
        let services = names.iter().map(|name| {
            let service = ApiService::new(name, backend.clone(), documents.clone());
            service
                .map(Arc::new)
                .with_context(|| format!("{name} is not the name of an APIService: <version>.<group>"))
        });
        let services = services.collect::<anyhow::Result<Vec<_>>>()?;
        self.deregister_backend(names);
        let mut tasks = self.tasks.lock().expect("not poisoned");
        for (index, service) in services.into_iter().enumerate() {
            service.write(&self.plane, &json!({}));
            self.plane.aggregation.insert(service.clone());
            let mut own =
                vec![AbortOnDropHandle::new(tokio::spawn(service.clone().keep(self.plane.clone())))];
            if index == 0 {
                own.push(AbortOnDropHandle::new(tokio::spawn(documents.clone().keep(service.clone()))));
            }
            tasks.insert(service.name.clone(), own);
        }
        Ok(())
    }

    /// Removes APIServices.
    pub fn deregister_backend(&self, names: &[&str]) {
        for name in names {
            self.tasks.lock().expect("not poisoned").remove(*name);
            self.plane.aggregation.remove(name);
            self.plane.store.delete(&API_SERVICES, "", name);
        }
    }

    /// Waits until an APIService is available. There is no timeout.
    ///
    /// # Errors
    /// If the APIService is not registered.
    pub async fn available(&self, name: &str) -> anyhow::Result<()> {
        self.availability(name)?.wait_for(|state| state.available).await?;
        Ok(())
    }

    /// The condition `Available` of an APIService and its changes.
    ///
    /// # Errors
    /// If the APIService is not registered.
    pub fn availability(&self, name: &str) -> anyhow::Result<watch::Receiver<Availability>> {
        Ok(self.service(name)?.availability())
    }

    /// All changes of the condition, including the first, oldest first.
    ///
    /// # Errors
    /// If the APIService is not registered.
    pub fn transitions(&self, name: &str) -> anyhow::Result<Vec<Availability>> {
        Ok(self.service(name)?.transitions())
    }

    /// The errors of failed probe requests, oldest first, also if another of the five requests succeeded.
    ///
    /// # Errors
    /// If the APIService is not registered.
    pub fn probe_failures(&self, name: &str) -> anyhow::Result<Vec<String>> {
        Ok(self.service(name)?.failures())
    }

    /// Probes the backend of an APIService with five requests and waits for all of them.
    ///
    /// # Errors
    /// If the APIService is not registered.
    pub async fn probe_now(&self, name: &str) -> anyhow::Result<Availability> {
        Ok(self.service(name)?.probe(&self.plane).await)
    }

    /// The availability probe accepts any certificate from now on, as in kube-apiserver up to 1.34. Only requests fail then.
    pub fn probe_without_verifying(&self) {
        self.plane.aggregation.probes_unverified.store(true, Ordering::Relaxed);
    }

    /// Sets the probe interval. The default is 30 s.
    pub fn set_probe_interval(&self, interval: Duration) {
        self.plane.probe_interval.send_replace(interval);
    }

    /// Fetches discovery and OpenAPI from the backend of an APIService, as happens every minute. Returns each path with its
    /// status, `None` if there was no response.
    ///
    /// # Errors
    /// If the APIService is not registered.
    pub async fn poll_discovery_now(
        &self,
        name: &str,
    ) -> anyhow::Result<Vec<(&'static str, Option<StatusCode>)>> {
        Ok(self.service(name)?.fetch_discovery().await)
    }

    fn service(&self, name: &str) -> anyhow::Result<Arc<ApiService>> {
        self.plane.aggregation.service(name).with_context(|| format!("{name} is not registered"))
    }
}
