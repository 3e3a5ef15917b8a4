//! A whole fleet: a control plane, its members, and an adapter's process behind its aggregation layer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use crate::adapter::{AdapterProcess, Invocation};
use crate::control_plane::{CUSTOM_METRICS, ControlPlane};
use crate::member::Member;

/// The APIService that the scaling controllers and kubectl's examples use.
pub const PREFERRED: &str = CUSTOM_METRICS[1];
/// A debug build beside other work may take its time.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A control plane and the members that have joined it.
pub struct Fleet {
    /// The control plane.
    pub plane: ControlPlane,
    /// The members, as they were given.
    pub members: Vec<Member>,
}

impl Fleet {
    /// Starts a control plane and joins the members to it.
    ///
    /// # Errors
    /// If no port can be bound or no file written.
    pub async fn start(members: Vec<Member>) -> anyhow::Result<Self> {
        let plane = ControlPlane::start().await?;
        for member in &members {
            plane.join(&member.into())?;
        }
        Ok(Self { plane, members })
    }

    /// Starts an adapter with its production flags, registers its custom metrics with the aggregation layer and waits until its
    /// APIService is available. `flags` follow the usual ones; `log` is where its output goes.
    ///
    /// # Errors
    /// If it cannot be run, ends, or does not become ready and available in time; with the end of its log.
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

    /// Registers an adapter as APIServices (`RESOURCE_METRICS`, `EXTERNAL_METRICS`) with the aggregation layer, beside
    /// those that it has; [`ControlPlane::available`] waits for each.
    ///
    /// # Errors
    /// If a name is malformed.
    pub fn register(&self, adapter: &AdapterProcess, names: &[&str]) -> anyhow::Result<()> {
        self.plane.register_backend(adapter.address(), Some(adapter.ca_pem()), names)
    }

    /// Starts an adapter with its production flags and no more.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn run_adapter(
        &self,
        binary: &Path,
        flags: &[String],
        log: Option<PathBuf>,
    ) -> anyhow::Result<AdapterProcess> {
        AdapterProcess::start(&Invocation { log, ..self.invocation(binary, flags)? })
    }

    /// How an adapter is started with its production flags.
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
            // With glibc, which the image does not have, freed memory would stay with the process more and more.
            environment: vec![("MALLOC_MMAP_THRESHOLD_".to_owned(), "65536".to_owned())],
        })
    }
}
