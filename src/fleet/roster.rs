//! The single writer of the fleet, in the hands of its source: what that knows of clusters comes in, snapshots go out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::metrics::{ClusterCounts, FleetMetrics};
use super::{Fleet, FleetEntry, NoCredentials, UnusableCluster};
use crate::api::cause::Cause;
use crate::member::client::MemberLimits;
use crate::member::{Member, TokenRefusal};
use crate::transport::credentials::{Credentials, Endpoint};
use crate::transport::tls::TlsConfigError;

/// How many members may wait for newer credentials.
const REFUSALS: usize = 256;

/// All clusters of a source, and the members made of them.
pub struct Roster {
    limits: MemberLimits,
    clusters: BTreeMap<String, RosterCluster>,
    refusals: mpsc::Sender<TokenRefusal>,
    refused: mpsc::Receiver<TokenRefusal>,
    fleet: watch::Sender<Arc<Fleet>>,
    /// Whether the snapshot is older than what is known.
    changed: bool,
    synced: watch::Sender<bool>,
    metrics: Arc<FleetMetrics>,
}

#[derive(Default)]
struct RosterCluster {
    ready: bool,
    joined: Option<RosterMember>,
    /// What has been said of it, so that it is said once.
    logged: Option<NoCredentials>,
}

struct RosterMember {
    uid: String,
    endpoint: Endpoint,
    member: Arc<Member>,
}

impl Roster {
    /// A roster without clusters.
    pub fn new(limits: MemberLimits, metrics: Arc<FleetMetrics>) -> Self {
        let (refusals, refused) = mpsc::channel(REFUSALS);
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

    /// [`Roster::is_synced`], followed.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// The next member that refuses whom it is asked as.
    pub async fn refused(&mut self) -> Option<TokenRefusal> {
        self.refused.recv().await
    }

    /// Takes what is known of a cluster. Another `uid` makes it another cluster of that name.
    pub fn put(
        &mut self,
        name: &str,
        uid: &str,
        ready: bool,
        credentials: Result<Credentials, NoCredentials>,
    ) {
        let mut cluster = self.clusters.remove(name).unwrap_or_default();
        cluster.ready = ready;
        let taken = credentials.and_then(|credentials| {
            self.join(name, uid, cluster.joined.as_ref(), credentials).map_err(|error| NoCredentials {
                cause: Cause::CredentialsMalformed,
                message: error.to_string(),
            })
        });
        match taken {
            Ok(joined) => {
                if cluster.logged.take().is_some() && joined.is_none() {
                    tracing::info!(cluster = name, "the cluster's credentials can be used again");
                }
                cluster.joined = joined.or(cluster.joined);
            }
            Err(lack) => cluster.set_unusable(name, uid, lack),
        }
        self.clusters.insert(name.to_owned(), cluster);
        self.changed = true;
    }

    /// Forgets a cluster.
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

    /// A new member, or `None` if the present one has been renewed.
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

    /// A change of what the source follows has waited in its queue.
    pub fn queued(&self, waited: Duration) {
        self.metrics.queued(waited);
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
                Some(RosterMember { member, .. }) if *ready => {
                    counts.asked += 1;
                    entries.push(FleetEntry::ready(member.clone()));
                }
                Some(RosterMember { member, .. }) => {
                    counts.not_ready += 1;
                    entries.push(FleetEntry::not_ready(member.clone()));
                }
                None => outside.push(UnusableCluster {
                    cluster: name.as_str().into(),
                    reason: complaint.clone().unwrap_or_else(NoCredentials::unknown),
                }),
            }
        }
        counts.outside = outside.len();
        self.fleet.send_replace(Arc::new(Fleet::new(entries, outside)));
        self.metrics.published(counts);
    }

    /// Whether the source has seen all of its clusters once.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// The source has seen all of its clusters once, and has published them.
    pub fn set_synced(&self) {
        if !self.synced.send_replace(true) {
            tracing::info!(members = self.fleet.borrow().entries().count(), "the fleet is known");
        }
    }
}

impl RosterCluster {
    /// The same cluster whose credentials are missing or malformed is asked with the last good ones.
    fn set_unusable(&mut self, name: &str, uid: &str, lack: NoCredentials) {
        let other = self.joined.as_ref().is_some_and(|joined| joined.uid != uid);
        if other || lack.cause == Cause::PullMode {
            self.joined = None;
        }
        if lack.cause == Cause::CredentialsUnknown || self.logged.as_ref() == Some(&lack) {
            return;
        }
        let (cause, reason) = (lack.cause.name(), &lack.message);
        if self.joined.is_some() {
            tracing::warn!(
                cluster = name,
                cause,
                reason,
                "the cluster is asked with its last good credentials"
            );
        } else {
            tracing::warn!(cluster = name, cause, reason, "cluster is not asked");
        }
        self.logged = Some(lack);
    }
}
