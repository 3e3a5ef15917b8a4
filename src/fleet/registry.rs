//! The single writer of the fleet: clusters and their Secrets come in, snapshots go out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::{Entry, Fleet};
use crate::member::credentials::{Credentials, CredentialsError, Endpoint, Proxy, Token, Trust};
use crate::member::transport::Limits;
use crate::member::{Member, Refused, TrustError};

/// A cluster as Karmada describes it: the part of `cluster.karmada.io/v1alpha1` that leads to its API server.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// `metadata.uid`: a cluster that is deleted and joined again is another one.
    pub uid: String,
    /// `spec.apiEndpoint`.
    pub api_endpoint: String,
    /// `spec.secretRef`.
    pub secret: Option<SecretName>,
    /// `spec.insecureSkipTLSVerification`.
    pub insecure: bool,
    /// `spec.proxyURL`.
    pub proxy_url: String,
    /// `spec.proxyHeader`.
    pub proxy_header: BTreeMap<String, String>,
    /// Whether the condition `Ready` is `True`.
    pub ready: bool,
}

/// Where a Secret is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The part of a Secret that leads into a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret {
    /// `data.token`.
    pub token: Option<Vec<u8>>,
    /// `data.caBundle`.
    pub ca_bundle: Option<Vec<u8>>,
}

/// Why a cluster is no member, or why one that is keeps its last good credentials.
#[derive(Debug, Error)]
pub enum NotAMember {
    /// A cluster in Pull mode, or one that is still joining.
    #[error("it has no API endpoint (Pull mode, or still joining)")]
    NoEndpoint,
    /// A cluster in Pull mode, or one that is still joining.
    #[error("it refers to no Secret that there may be (Pull mode, or still joining)")]
    NoSecretRef,
    /// Nothing is known of the Secret yet, which is about to change.
    #[error("its Secret {}/{} has not been read", .0.namespace, .0.name)]
    Unread(SecretName),
    /// The Secret does not exist.
    #[error("its Secret {}/{} does not exist", .0.namespace, .0.name)]
    NoSecret(SecretName),
    /// The Secret has no token.
    #[error("its Secret {}/{} has no token", .0.namespace, .0.name)]
    NoToken(SecretName),
    /// What it says cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// Its CA bundle or its proxy cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// Clusters and Secrets as last seen, and the members made of them.
pub struct Registry {
    limits: Limits,
    clusters: BTreeMap<String, ClusterSpec>,
    /// Those that clusters refer to, as far as they have been read; `None` for one that does not exist.
    secrets: BTreeMap<SecretName, Option<ClusterSecret>>,
    members: BTreeMap<String, Joined>,
    /// What is wrong with a cluster, in words, so that it is said once.
    complaints: BTreeMap<String, String>,
    refusals: mpsc::Sender<Refused>,
    fleet: watch::Sender<Arc<Fleet>>,
}

struct Joined {
    uid: String,
    endpoint: Endpoint,
    member: Arc<Member>,
}

/// How many members may wait for newer credentials.
const REFUSALS: usize = 256;

impl ClusterSpec {
    /// How to reach it. `secret` is the one that it refers to: `None` if it has not been read, and nothing in it if it does
    /// not exist.
    ///
    /// # Errors
    /// If it is no member.
    pub fn credentials(&self, secret: Option<&Option<ClusterSecret>>) -> Result<Credentials, NotAMember> {
        if self.api_endpoint.is_empty() {
            return Err(NotAMember::NoEndpoint);
        }
        let name = self.secret.clone().ok_or(NotAMember::NoSecretRef)?;
        let secret = match secret {
            None => return Err(NotAMember::Unread(name)),
            Some(None) => return Err(NotAMember::NoSecret(name)),
            Some(Some(secret)) => secret,
        };
        let Some(token) = secret.token.as_deref().filter(|token| !token.is_empty()) else {
            return Err(NotAMember::NoToken(name));
        };
        let proxy = if self.proxy_url.is_empty() {
            None
        } else {
            let headers = self.proxy_header.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            Some(Proxy::parse(&self.proxy_url, headers)?)
        };
        let trust = match &secret.ca_bundle {
            _ if self.insecure => Trust::Anything,
            Some(bundle) if !bundle.is_empty() => Trust::Bundle(bundle.clone()),
            _ => Trust::System,
        };
        Ok(Credentials {
            endpoint: Endpoint::parse(&self.api_endpoint)?,
            token: Token::parse(token)?,
            trust,
            proxy,
        })
    }
}

impl Registry {
    /// A registry without clusters. The receiver says which members refuse their tokens.
    pub fn new(limits: Limits) -> (Self, mpsc::Receiver<Refused>) {
        let (refusals, refused) = mpsc::channel(REFUSALS);
        let registry = Self {
            limits,
            clusters: BTreeMap::new(),
            secrets: BTreeMap::new(),
            members: BTreeMap::new(),
            complaints: BTreeMap::new(),
            refusals,
            fleet: watch::Sender::new(Arc::default()),
        };
        (registry, refused)
    }

    /// The snapshots.
    pub fn fleet(&self) -> watch::Receiver<Arc<Fleet>> {
        self.fleet.subscribe()
    }

    /// Takes a cluster that is new or may have changed.
    pub fn apply_cluster(&mut self, name: &str, spec: ClusterSpec) {
        if self.clusters.get(name) != Some(&spec) {
            self.clusters.insert(name.to_owned(), spec);
            self.drop_secrets();
            self.refresh(name);
            self.publish();
        }
    }

    /// Forgets a cluster.
    pub fn remove_cluster(&mut self, name: &str) {
        if self.clusters.remove(name).is_some() {
            self.drop_secrets();
            self.refresh(name);
            self.publish();
        }
    }

    /// Takes a Secret that is new or may have changed; `None` if it is gone. One that no cluster refers to is dropped.
    pub fn apply_secret(&mut self, name: SecretName, secret: Option<ClusterSecret>) {
        if self.secrets.get(&name) == Some(&secret) {
            return;
        }
        let concerned: Vec<String> = self
            .clusters
            .iter()
            .filter(|(_, spec)| spec.secret.as_ref() == Some(&name))
            .map(|(cluster, _)| cluster.clone())
            .collect();
        if concerned.is_empty() {
            return;
        }
        self.secrets.insert(name, secret);
        for cluster in &concerned {
            self.refresh(cluster);
        }
        self.publish();
    }

    /// The clusters, by name.
    pub fn clusters(&self) -> impl Iterator<Item = (&str, &ClusterSpec)> {
        self.clusters.iter().map(|(name, spec)| (name.as_str(), spec))
    }

    /// The Secret that a cluster refers to.
    pub fn secret_of(&self, cluster: &str) -> Option<&SecretName> {
        self.clusters.get(cluster)?.secret.as_ref()
    }

    /// Whether the Secret has been read, or found not to exist.
    pub fn has_read(&self, secret: &SecretName) -> bool {
        self.secrets.contains_key(secret)
    }

    /// How many clusters are asked, are members but not Ready, and are no members.
    pub fn census(&self) -> (usize, usize, usize) {
        let ready = |name: &String| self.clusters.get(name).is_some_and(|spec| spec.ready);
        let asked = self.members.keys().filter(|name| ready(name)).count();
        (asked, self.members.len() - asked, self.clusters.len() - self.members.len())
    }

    fn drop_secrets(&mut self) {
        let referred: BTreeSet<&SecretName> =
            self.clusters.values().filter_map(|spec| spec.secret.as_ref()).collect();
        self.secrets.retain(|name, _| referred.contains(name));
    }

    /// Brings one cluster's member in line with what is known of it.
    fn refresh(&mut self, name: &str) {
        let Some(spec) = self.clusters.get(name) else {
            self.complaints.remove(name);
            if self.members.remove(name).is_some() {
                tracing::info!(cluster = name, "cluster left the fleet");
            }
            return;
        };
        let secret = spec.secret.as_ref().and_then(|name| self.secrets.get(name));
        match spec.credentials(secret).and_then(|credentials| self.join(name, spec, credentials)) {
            Ok(joined) => {
                if self.complaints.remove(name).is_some() && joined.is_none() {
                    tracing::info!(cluster = name, "the cluster's credentials can be used again");
                }
                if let Some(joined) = joined {
                    self.members.insert(name.to_owned(), joined);
                }
            }
            Err(error) => {
                // The same cluster whose credentials are missing or malformed is asked with the last good ones.
                let left = matches!(error, NotAMember::NoEndpoint | NotAMember::NoSecretRef);
                if left || self.members.get(name).is_some_and(|joined| joined.uid != spec.uid) {
                    self.members.remove(name);
                }
                let reason = error.to_string();
                if !matches!(error, NotAMember::Unread(_)) && self.complaints.get(name) != Some(&reason) {
                    self.report(name, &reason);
                    self.complaints.insert(name.to_owned(), reason);
                }
            }
        }
    }

    fn report(&self, cluster: &str, reason: &str) {
        if self.members.contains_key(cluster) {
            tracing::warn!(cluster, reason, "the cluster is asked with its last good credentials");
        } else {
            tracing::warn!(cluster, reason, "cluster is not asked");
        }
    }

    /// A new member, or `None` if the present one has been renewed.
    fn join(
        &self,
        name: &str,
        spec: &ClusterSpec,
        credentials: Credentials,
    ) -> Result<Option<Joined>, NotAMember> {
        if let Some(joined) = self.members.get(name)
            && joined.uid == spec.uid
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
        Ok(Some(Joined { uid: spec.uid.clone(), endpoint, member }))
    }

    fn publish(&self) {
        let entries = self.members.iter().map(|(name, joined)| {
            if self.clusters.get(name).is_some_and(|spec| spec.ready) {
                Entry::ready(joined.member.clone())
            } else {
                Entry::not_ready(joined.member.clone())
            }
        });
        self.fleet.send_replace(Arc::new(Fleet::new(entries.collect())));
    }
}
