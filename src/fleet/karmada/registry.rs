//! The registry of Karmada's clusters and their Secrets. It keeps the roster up to date.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::api::cause::Cause;
use crate::fleet::NoCredentials;
use crate::fleet::roster::Roster;
use crate::transport::credentials::{
    BearerToken, Credentials, CredentialsError, Endpoint, Proxy, ServerVerification, UserCredentials,
};

/// The part of a `cluster.karmada.io/v1alpha1` object that is needed to connect to its API server.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSpec {
    /// `metadata.uid`. A cluster that is deleted and joined again has a new one.
    pub uid: String,
    pub api_endpoint: String,
    /// `spec.secretRef`.
    pub secret: Option<SecretName>,
    /// `spec.insecureSkipTLSVerification`.
    pub insecure: bool,
    pub proxy_url: String,
    pub proxy_header: BTreeMap<String, String>,
    /// Whether the condition `Ready` is `True`.
    pub ready: bool,
}

/// Namespace and name of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName {
    pub namespace: String,
    pub name: String,
}

/// The credentials in a Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret {
    /// `data.token`.
    pub token: Option<Vec<u8>>,
    /// `data.caBundle`.
    pub ca_bundle: Option<Vec<u8>>,
}

/// Why a cluster's credentials are not usable.
#[derive(Debug, Error)]
pub enum ClusterCredentialsError {
    /// A cluster in Pull mode, or one that is still joining.
    #[error("it has no API endpoint (Pull mode, or still joining)")]
    NoEndpoint,
    /// A cluster in Pull mode, or one that is still joining.
    #[error("its spec.secretRef is not set or invalid (Pull mode, or still joining)")]
    NoSecretRef,
    /// The Secret has not been read yet.
    #[error("its Secret {}/{} has not been read", .0.namespace, .0.name)]
    Unread(SecretName),
    /// The Secret does not exist.
    #[error("its Secret {}/{} does not exist", .0.namespace, .0.name)]
    NoSecret(SecretName),
    /// The Secret has no token.
    #[error("its Secret {}/{} has no token", .0.namespace, .0.name)]
    NoToken(SecretName),
    /// The credentials are malformed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// The last known clusters and Secrets.
pub struct Registry {
    roster: Roster,
    clusters: BTreeMap<String, ClusterSpec>,
    /// The clusters that refer to each Secret; never empty.
    referring: BTreeMap<SecretName, BTreeSet<String>>,
    /// The Secrets that clusters refer to and that have been read; `None` for a Secret that does not exist.
    secrets: BTreeMap<SecretName, Option<ClusterSecret>>,
}

impl ClusterSpec {
    /// The cluster's credentials. `secret` is `None` if its Secret has not been read, and `Some(None)` if the Secret does not exist.
    ///
    /// # Errors
    /// If the credentials are not usable.
    pub fn credentials(
        &self,
        secret: Option<&Option<ClusterSecret>>,
    ) -> Result<Credentials, ClusterCredentialsError> {
        if self.api_endpoint.is_empty() {
            return Err(ClusterCredentialsError::NoEndpoint);
        }
        let name = self.secret.clone().ok_or(ClusterCredentialsError::NoSecretRef)?;
        let secret = match secret {
            None => return Err(ClusterCredentialsError::Unread(name)),
            Some(None) => return Err(ClusterCredentialsError::NoSecret(name)),
            Some(Some(secret)) => secret,
        };
        let Some(token) = secret.token.as_deref().filter(|token| !token.is_empty()) else {
            return Err(ClusterCredentialsError::NoToken(name));
        };
        let proxy = if self.proxy_url.is_empty() {
            None
        } else {
            let headers = self.proxy_header.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            Some(Proxy::parse(&self.proxy_url, headers)?)
        };
        let verification = match &secret.ca_bundle {
            _ if self.insecure => ServerVerification::AnyCertificate,
            Some(bundle) if !bundle.is_empty() => ServerVerification::Bundle(bundle.clone()),
            _ => ServerVerification::System,
        };
        Ok(Credentials {
            endpoint: Endpoint::parse(&self.api_endpoint)?,
            user: UserCredentials { token: Some(BearerToken::parse(token)?), certificate: None },
            verification,
            server_name: None,
            proxy,
        })
    }
}

impl Registry {
    /// An empty registry for `roster`.
    pub fn new(roster: Roster) -> Self {
        Self { roster, clusters: BTreeMap::new(), referring: BTreeMap::new(), secrets: BTreeMap::new() }
    }

    pub fn roster(&mut self) -> &mut Roster {
        &mut self.roster
    }

    /// Adds or updates a cluster.
    pub fn apply_cluster(&mut self, name: &str, spec: ClusterSpec) {
        if self.clusters.get(name) == Some(&spec) {
            return;
        }
        let secret = spec.secret.clone();
        if let Some(secret) = secret.clone() {
            self.referring.entry(secret).or_default().insert(name.to_owned());
        }
        if let Some(before) = self.clusters.insert(name.to_owned(), spec)
            && before.secret != secret
        {
            self.drop_reference(name, before.secret);
        }
        self.refresh(name);
    }

    pub fn remove_cluster(&mut self, name: &str) {
        if let Some(spec) = self.clusters.remove(name) {
            self.drop_reference(name, spec.secret);
            self.refresh(name);
        }
    }

    /// Adds or updates a Secret; `None` if it does not exist. A Secret that no cluster refers to is dropped.
    pub fn apply_secret(&mut self, name: SecretName, secret: Option<ClusterSecret>) {
        if self.secrets.get(&name) == Some(&secret) {
            return;
        }
        let Some(concerned) = self.referring.get(&name).cloned() else { return };
        self.secrets.insert(name, secret);
        for cluster in &concerned {
            self.refresh(cluster);
        }
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

    /// Removes a cluster's reference to a Secret. A Secret without references is dropped.
    fn drop_reference(&mut self, cluster: &str, secret: Option<SecretName>) {
        let Some(secret) = secret else { return };
        if let Some(referring) = self.referring.get_mut(&secret) {
            referring.remove(cluster);
            if referring.is_empty() {
                self.referring.remove(&secret);
                self.secrets.remove(&secret);
            }
        }
    }

    /// Updates a cluster in the roster.
    fn refresh(&mut self, name: &str) {
        let Some(spec) = self.clusters.get(name) else {
            self.roster.remove(name);
            return;
        };
        let secret = spec.secret.as_ref().and_then(|name| self.secrets.get(name));
        let credentials = spec.credentials(secret).map_err(NoCredentials::from);
        self.roster.put(name, &spec.uid, spec.ready, credentials);
    }
}

impl ClusterCredentialsError {
    pub fn cause(&self) -> Cause {
        match self {
            Self::NoEndpoint | Self::NoSecretRef => Cause::PullMode,
            Self::Unread(_) => Cause::CredentialsUnknown,
            Self::NoSecret(_) => Cause::SecretMissing,
            Self::NoToken(_) => Cause::TokenMissing,
            Self::Credentials(_) => Cause::CredentialsMalformed,
        }
    }
}

impl From<ClusterCredentialsError> for NoCredentials {
    fn from(error: ClusterCredentialsError) -> Self {
        Self { cause: error.cause(), message: error.to_string() }
    }
}
