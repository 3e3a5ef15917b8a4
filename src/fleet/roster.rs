//! The roster: a fleet source puts clusters in, and the roster publishes snapshots. It is the only writer of the fleet.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::metrics::{ClusterCounts, FleetMetrics};
use super::{Fleet, FleetEntry, NoCredentials, UnusableCluster};
use crate::api::cause::Cause;
use crate::member::client::MemberLimits;
use crate::member::{Member, TokenRefusal};
use crate::transport::credentials::{Credentials, Endpoint};
use crate::transport::tls::TlsConfigError;

/// Maximum members that wait for newer credentials.
const MAX_REFUSALS: usize = 256;

/// All clusters of a source, and their members.
pub struct Roster {
    limits: MemberLimits,
    clusters: BTreeMap<String, RosterCluster>,
    refusals: mpsc::Sender<TokenRefusal>,
    refused: mpsc::Receiver<TokenRefusal>,
    fleet: watch::Sender<Arc<Fleet>>,
    /// Whether clusters have changed since the last snapshot.
    changed: bool,
    synced: watch::Sender<bool>,
    metrics: Arc<FleetMetrics>,
}

#[derive(Default)]
struct RosterCluster {
    ready: bool,
    joined: Option<RosterMember>,
    /// The last logged problem. It is logged once.
    logged: Option<NoCredentials>,
}

struct RosterMember {
    uid: String,
    endpoint: Endpoint,
    member: Arc<Member>,
}

impl Drop for RosterMember {
    fn drop(&mut self) {
        self.member.set_removed();
    }
}

impl Roster {
    /// An empty roster.
    pub fn new(limits: MemberLimits, metrics: Arc<FleetMetrics>) -> Self {
        let (refusals, refused) = mpsc::channel(MAX_REFUSALS);
        Self {
            limits,
            clusters: BTreeMap::new(),
            refusals,
            refused,
            fleet: watch::Sender::default(),
            changed: false,
            synced: watch::Sender::default(),
            metrics,
        }
    }

    /// The snapshots.
    pub fn fleet(&self) -> watch::Receiver<Arc<Fleet>> {
        self.fleet.subscribe()
    }

    /// Changes of [`Roster::is_synced`].
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Waits for a refusal of a member's credentials, and returns all that have come.
    pub async fn refused(&mut self) -> Vec<TokenRefusal> {
        let mut refusals = Vec::new();
        self.refused.recv_many(&mut refusals, MAX_REFUSALS).await;
        refusals
    }

    /// Adds or updates a cluster. A different `uid` means a different cluster of that name.
    pub fn put(
        &mut self,
        name: &str,
        uid: &str,
        ready: bool,
        credentials: Result<Credentials, NoCredentials>,
    ) {
        let mut cluster = self.clusters.remove(name).unwrap_or_default();
        cluster.ready = ready;
        let member = credentials.and_then(|credentials| {
            self.join(name, uid, cluster.joined.as_ref(), credentials).map_err(|error| NoCredentials {
                cause: Cause::CredentialsMalformed,
                message: error.to_string(),
            })
        });
        match member {
            Ok(joined) => {
                if cluster.logged.take().is_some() && joined.is_none() {
                    tracing::info!(cluster = name, "the cluster's credentials are usable again");
                }
                cluster.joined = joined.or(cluster.joined);
            }
            Err(reason) => cluster.set_unusable(name, uid, reason),
        }
        self.clusters.insert(name.to_owned(), cluster);
        self.changed = true;
    }

    /// Removes a cluster.
    pub fn remove(&mut self, name: &str) {
        let Some(cluster) = self.clusters.remove(name) else { return };
        if cluster.joined.is_some() {
            tracing::info!(cluster = name, "cluster left the fleet");
        }
        self.changed = true;
    }

    /// The clusters' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.clusters.keys().map(String::as_str)
    }

    /// A new member; `None` if the present member was renewed.
    fn join(
        &self,
        name: &str,
        uid: &str,
        present: Option<&RosterMember>,
        credentials: Credentials,
    ) -> Result<Option<RosterMember>, TlsConfigError> {
        if let Some(joined) = present
            && joined.uid == uid
            && joined.endpoint == credentials.endpoint
        {
            if joined.member.renew(credentials, &self.limits)? {
                tracing::info!(cluster = name, "cluster has new credentials");
            }
            return Ok(None);
        }
        let endpoint = credentials.endpoint.clone();
        let refusals = self.refusals.clone();
        let member = Arc::new(Member::new(name.to_owned(), credentials, &self.limits, refusals)?);
        tracing::info!(cluster = name, %endpoint, "cluster joined the fleet");
        Ok(Some(RosterMember { uid: uid.to_owned(), endpoint, member }))
    }

    /// Publishes a snapshot if anything has changed since the last one.
    pub fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let (mut entries, mut outside) = (Vec::with_capacity(self.clusters.len()), Vec::new());
        let mut counts = ClusterCounts::default();
        for (name, RosterCluster { ready, joined, logged: complaint }) in &self.clusters {
            match joined {
                Some(RosterMember { member, .. }) => {
                    *if *ready { &mut counts.queried } else { &mut counts.not_ready } += 1;
                    entries.push(FleetEntry { member: member.clone(), ready: *ready });
                }
                None => outside.push(UnusableCluster {
                    cluster: name.as_str().into(),
                    reason: complaint.clone().unwrap_or_else(NoCredentials::unknown),
                }),
            }
        }
        counts.unusable = outside.len();
        self.fleet.send_replace(Arc::new(Fleet::new(entries, outside)));
        self.metrics.published(counts);
    }

    /// Whether the source has read all clusters once.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Marks that the source has read all clusters once and published them.
    pub fn set_synced(&self) {
        if !self.synced.send_replace(true) {
            tracing::info!(members = self.fleet.borrow().entries().count(), "all clusters are known");
        }
    }
}

impl RosterCluster {
    /// Records that the credentials are missing or malformed. The same cluster keeps its last valid credentials.
    fn set_unusable(&mut self, name: &str, uid: &str, problem: NoCredentials) {
        let other = self.joined.as_ref().is_some_and(|joined| joined.uid != uid);
        if other || problem.cause == Cause::PullMode {
            self.joined = None;
        }
        if problem.cause == Cause::CredentialsUnknown || self.logged.as_ref() == Some(&problem) {
            return;
        }
        let (cause, reason) = (problem.cause.name(), &problem.message);
        if self.joined.is_some() {
            tracing::warn!(
                cluster = name,
                cause,
                reason,
                "credentials are not usable; the cluster is queried with its last valid ones"
            );
        } else {
            tracing::warn!(
                cluster = name,
                cause,
                reason,
                "credentials are not usable; the cluster is not queried"
            );
        }
        self.logged = Some(problem);
    }
}
