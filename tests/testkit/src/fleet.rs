//! A complete fleet: a control plane, its members, and the process of an adapter behind the aggregation layer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use crate::adapter::{AdapterProcess, Invocation};
use crate::control_plane::{CUSTOM_METRICS, ControlPlane};
use crate::member::Member;

/// The APIService that the scaling controllers and kubectl's examples use.
pub const PREFERRED: &str = CUSTOM_METRICS[1];
/// Time limit for the start of an adapter. A debug build on a busy machine starts slowly.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A control plane and the members that have joined it.
pub struct Fleet {
    /// The control plane.
    pub plane: ControlPlane,
    /// The members, in the order of [`Fleet::start`].
    pub members: Vec<Member>,
}

impl Fleet {
    /// Starts a control plane and joins the members to it.
    ///
    /// # Errors
    /// If a port cannot be bound or a file cannot be written.
    pub async fn start(members: Vec<Member>) -> anyhow::Result<Self> {
        let plane = ControlPlane::start().await?;
        for member in &members {
            plane.join(&member.into())?;
        }
        Ok(Self { plane, members })
    }

    /// Starts an adapter with its production flags, registers its custom metrics APIs with the aggregation layer and waits
    /// until the APIService is available. `flags` come after the production flags. `log` is the file for its output.
    ///
    /// # Errors
    /// If the adapter cannot be run, exits, or is not ready and available in time; the error has the end of its log.
    pub async fn start_adapter(
        &self,
        binary: &Path,
        flags: &[String],
        log: Option<PathBuf>,
    ) -> anyhow::Result<AdapterProcess> {
        let mut adapter = self.run_adapter(binary, flags, log)?;
        adapter.ready(START_LIMIT).await?;
        self.register(&adapter, &CUSTOM_METRICS)?;
        timeout(START_LIMIT, self.plane.available(PREFERRED)).await.with_context(|| {
            let seconds = START_LIMIT.as_secs();
            format!("{PREFERRED} is not available after {seconds} s\n{}", adapter.log_tail())
        })??;
        Ok(adapter)
    }

    /// Registers an adapter with the aggregation layer for further APIServices (`RESOURCE_METRICS`, `EXTERNAL_METRICS`).
    /// Existing registrations stay. Wait for each with [`ControlPlane::available`].
    ///
    /// # Errors
    /// If a name is malformed.
    pub fn register(&self, adapter: &AdapterProcess, names: &[&str]) -> anyhow::Result<()> {
        self.plane.register_backend(adapter.address(), Some(adapter.ca_pem()), names)
    }

    /// Starts an adapter with its production flags, without registration.
    ///
    /// # Errors
    /// If the adapter cannot be run.
    pub fn run_adapter(
        &self,
        binary: &Path,
        flags: &[String],
        log: Option<PathBuf>,
    ) -> anyhow::Result<AdapterProcess> {
        AdapterProcess::start(&Invocation { log, ..self.invocation(binary, flags)? })
    }

    /// The invocation of an adapter with its production flags.
    ///
    /// # Errors
    /// If its kubeconfig cannot be written.
    pub fn invocation(&self, binary: &Path, flags: &[String]) -> anyhow::Result<Invocation> {
        Ok(Invocation {
            binary: binary.to_owned(),
            arguments: Invocation::production(),
            jailed: false,
            files: Vec::new(),
            kubeconfig: self.plane.adapter_kubeconfig()?,
            client_ca_pem: self.plane.client_ca_pem(),
            flags: flags.to_vec(),
            log: None,
            // glibc keeps freed memory in the process, and more of it over time. The image does not use glibc.
            environment: vec![("MALLOC_MMAP_THRESHOLD_".to_owned(), "65536".to_owned())],
        })
    }
}
