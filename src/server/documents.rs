//! Discovery documents, encoded once for each change of what members have.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::Request;
use axum::response::Response;
use tokio::sync::{Mutex, watch};

use super::document::{Document, JSON, UNCACHED, only_get};
use super::error::ApiError;
use crate::api::discovery::{self, AggregatedVersion, Catalogs};
use crate::api::group::Group;
use crate::process::work;

/// The encoded documents of the members' metrics as last known.
pub struct DiscoveryDocuments {
    catalogs: watch::Receiver<Arc<Catalogs>>,
    address: Arc<str>,
    encoded: Arc<ArcSwap<EncodedDocuments>>,
    /// One encoding at a time, also of a request that has left; others wait for it.
    encoding: Arc<Mutex<()>>,
}

/// How many bytes of documents a metric takes, about.
const METRIC: usize = 1024;

/// One generation of documents.
pub(super) struct EncodedDocuments {
    of: Arc<Catalogs>,
    groups: Document,
    /// In [`AggregatedVersion::V2`] and [`AggregatedVersion::V2Beta1`].
    aggregated: [Document; 2],
    /// By group and version; that of a group itself has an empty version.
    below: BTreeMap<(&'static str, &'static str), Document>,
}

impl DiscoveryDocuments {
    /// Documents that follow the catalogs. `address` is where this server listens, such as `:443`.
    pub fn new(catalogs: watch::Receiver<Arc<Catalogs>>, address: String) -> Self {
        let encoded = EncodedDocuments::new(catalogs.borrow().clone(), &address);
        let encoded = Arc::new(ArcSwap::from_pointee(encoded));
        Self { catalogs, address: address.into(), encoded, encoding: Arc::default() }
    }

    /// The newest generation, encoded for the first request after a change, where it blocks no other request.
    pub(super) async fn current(&self) -> Arc<EncodedDocuments> {
        if let Some(encoded) = self.newest() {
            return encoded;
        }
        let encoding = self.encoding.clone().lock_owned().await;
        if let Some(encoded) = self.newest() {
            return encoded;
        }
        let (catalogs, address) = (self.catalogs.borrow().clone(), self.address.clone());
        let bytes = (catalogs.custom.len() + catalogs.external.len()) * METRIC;
        let newest = self.encoded.clone();
        work::run(bytes, move |_| {
            let _encoding = encoding;
            let encoded = Arc::new(EncodedDocuments::new(catalogs, &address));
            newest.store(encoded.clone());
            encoded
        })
        .await
    }

    /// The newest generation, if it is encoded.
    fn newest(&self) -> Option<Arc<EncodedDocuments>> {
        let encoded = self.encoded.load_full();
        Arc::ptr_eq(&encoded.of, &self.catalogs.borrow()).then_some(encoded)
    }
}

impl EncodedDocuments {
    fn new(catalogs: Arc<Catalogs>, address: &str) -> Self {
        let plain = |value| Document::json(&value, JSON, UNCACHED);
        let aggregated = |format: AggregatedVersion| {
            Document::json(&catalogs.aggregated(format), format.media_type(), "public")
        };
        let mut below = BTreeMap::new();
        for group in Group::ALL {
            below.insert((group.name(), ""), plain(group.document()));
            for version in group.versions() {
                let list = catalogs.resource_list(group, version);
                below.insert((group.name(), *version), Document::json(&list, JSON, UNCACHED));
            }
        }
        Self {
            groups: plain(discovery::group_list(address)),
            aggregated: [aggregated(AggregatedVersion::V2), aggregated(AggregatedVersion::V2Beta1)],
            below,
            of: catalogs,
        }
    }

    /// `/apis`.
    pub(super) fn groups(&self) -> &Document {
        &self.groups
    }

    /// `/apis` in an aggregated format.
    pub(super) fn aggregated(&self, format: AggregatedVersion) -> &Document {
        match format {
            AggregatedVersion::V2 => &self.aggregated[0],
            AggregatedVersion::V2Beta1 => &self.aggregated[1],
        }
    }

    /// `/apis/<group>`, where the version is empty, and `/apis/<group>/<version>`.
    pub(super) fn below(&self, request: &Request, group: &str, version: &str) -> Result<Response, ApiError> {
        let document = self.below.get(&(group, version)).ok_or(ApiError::NotFound)?;
        only_get(request, || document.response(request.headers()))
    }
}
