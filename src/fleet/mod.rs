//! The fleet: an immutable snapshot of all members. One task publishes new snapshots.

pub mod discovery;
pub mod karmada;
pub mod kubeconfig;
pub mod metrics;
pub mod roster;
mod task;

use std::sync::Arc;

use crate::api::cause::Cause;
use crate::member::Member;

/// An immutable snapshot of all clusters, ordered by name.
#[derive(Clone, Default)]
pub struct Fleet {
    entries: Vec<FleetEntry>,
    unusable: Vec<UnusableCluster>,
}

/// A cluster without usable credentials, which is not a member.
#[derive(Clone, Debug)]
pub struct UnusableCluster {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// Why it is not usable.
    pub reason: NoCredentials,
}

/// Why a cluster has no usable credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCredentials {
    /// The cause. [`Cause::CredentialsUnknown`] is temporary. [`Cause::PullMode`] is not a failure: such a cluster is never a member. With
    /// any other cause a member keeps its last valid credentials.
    pub cause: Cause,
    /// The message for operators.
    pub message: String,
}

/// One member in a fleet.
#[derive(Clone)]
pub struct FleetEntry {
    pub member: Arc<Member>,
    /// Whether Karmada reports the cluster as Ready. Other clusters are not queried and count as failed. Their catalogs stay.
    pub ready: bool,
}

impl Fleet {
    /// A snapshot of these clusters; `entries` are in the order of the clusters' names.
    pub fn new(entries: Vec<FleetEntry>, unusable: Vec<UnusableCluster>) -> Self {
        Self { entries, unusable }
    }

    /// The members, ordered by cluster name.
    pub fn entries(&self) -> impl Iterator<Item = &FleetEntry> {
        self.entries.iter()
    }

    /// The clusters that are not members.
    pub fn unusable(&self) -> &[UnusableCluster] {
        &self.unusable
    }

    /// The members that are queried.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.entries.iter().filter(|entry| entry.ready).map(|entry| &entry.member)
    }
}

impl NoCredentials {
    /// The credentials are not known yet.
    pub fn unknown() -> Self {
        let message =
            "its credentials are not known yet; karmada-metrics-adapter check may show why".to_owned();
        Self { cause: Cause::CredentialsUnknown, message }
    }
}
