//! Which members exist: one immutable snapshot at a time, written by one task.

pub mod discovery;
pub mod karmada;
pub mod kubeconfig;
pub mod metrics;
pub mod roster;
mod task;

use std::sync::Arc;

use crate::api::cause::Cause;
use crate::member::Member;

/// One immutable snapshot of all member clusters, ordered by name.
#[derive(Clone, Default)]
pub struct Fleet {
    entries: Vec<FleetEntry>,
    outside: Vec<UnusableCluster>,
}

/// A cluster that is no member.
#[derive(Clone, Debug)]
pub struct UnusableCluster {
    /// Its name.
    pub cluster: Arc<str>,
    /// Why.
    pub reason: NoCredentials,
}

/// Why there are no credentials that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCredentials {
    /// [`Cause::CredentialsUnknown`] is about to change. [`Cause::PullMode`] is no failure: the cluster is not meant to be a
    /// member. With any other cause a member keeps its last good credentials.
    pub cause: Cause,
    /// What is wrong.
    pub message: String,
}

/// One cluster in a fleet.
#[derive(Clone)]
pub struct FleetEntry {
    cluster: Arc<str>,
    standing: ClusterState,
}

/// Whether a cluster is asked.
#[derive(Clone)]
pub enum ClusterState {
    /// It is.
    Ready(Arc<Member>),
    /// Karmada says that it is not Ready, so it is not asked and counts as failed; what is known of it stays known.
    NotReady(Arc<Member>),
}

impl Fleet {
    /// A snapshot of the given clusters.
    pub fn new(mut entries: Vec<FleetEntry>, outside: Vec<UnusableCluster>) -> Self {
        entries.sort_by(|one, two| one.cluster.cmp(&two.cluster));
        Self { entries, outside }
    }

    /// The clusters, ordered by name.
    pub fn entries(&self) -> impl Iterator<Item = &FleetEntry> {
        self.entries.iter()
    }

    /// The clusters that are no members.
    pub fn unusable(&self) -> &[UnusableCluster] {
        &self.outside
    }

    /// The members that are asked.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.entries.iter().filter_map(|entry| match &entry.standing {
            ClusterState::Ready(member) => Some(member),
            ClusterState::NotReady(_) => None,
        })
    }
}

impl NoCredentials {
    /// Credentials that are not known yet.
    pub fn unknown() -> Self {
        let message =
            "its credentials are not known yet; karmada-metrics-adapter check may say why".to_owned();
        Self { cause: Cause::CredentialsUnknown, message }
    }
}

impl FleetEntry {
    /// A cluster that is asked.
    pub fn ready(member: Arc<Member>) -> Self {
        Self { cluster: member.name().into(), standing: ClusterState::Ready(member) }
    }

    /// A cluster that is not.
    pub fn not_ready(member: Arc<Member>) -> Self {
        Self { cluster: member.name().into(), standing: ClusterState::NotReady(member) }
    }

    /// Its name.
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Its member, whether it is asked or not.
    pub fn member(&self) -> &Arc<Member> {
        let (ClusterState::Ready(member) | ClusterState::NotReady(member)) = &self.standing;
        member
    }

    /// Whether it is asked.
    pub fn state(&self) -> &ClusterState {
        &self.standing
    }
}
