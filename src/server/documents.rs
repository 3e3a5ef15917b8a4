//! Discovery documents, encoded once after each change of the members' metrics.

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

/// The encoded discovery documents of the last-known metrics of all members.
pub struct DiscoveryDocuments {
    catalogs: watch::Receiver<Arc<Catalogs>>,
    address: Arc<str>,
    encoded: Arc<ArcSwap<EncodedDocuments>>,
    /// Held while documents are encoded, also after the client has disconnected. Other requests wait for it.
    encoding: Arc<Mutex<()>>,
}

/// Estimated size of the documents, in bytes per metric.
const BYTES_PER_METRIC: usize = 1024;

/// The documents of one version of the catalogs.
pub(super) struct EncodedDocuments {
    catalogs: Arc<Catalogs>,
    groups: Document,
    /// In [`AggregatedVersion::V2`] and [`AggregatedVersion::V2Beta1`].
    aggregated: [Document; 2],
    /// By group and version. The document of a group has an empty version.
    by_version: BTreeMap<(&'static str, &'static str), Document>,
}

impl DiscoveryDocuments {
    /// Documents of the current catalogs. `address` is the listen address of this server, such as `:443`.
    pub fn new(catalogs: watch::Receiver<Arc<Catalogs>>, address: String) -> Self {
        let encoded = EncodedDocuments::new(catalogs.borrow().clone(), &address);
        let encoded = Arc::new(ArcSwap::from_pointee(encoded));
        Self { catalogs, address: address.into(), encoded, encoding: Arc::default() }
    }

    /// The documents of the newest catalogs. After a change, the first request encodes them on another thread, so other
    /// requests are not blocked.
    pub(super) async fn current(&self) -> Arc<EncodedDocuments> {
        if let Some(encoded) = self.newest() {
            return encoded;
        }
        let encoding = self.encoding.clone().lock_owned().await;
        if let Some(encoded) = self.newest() {
            return encoded;
        }
        let (catalogs, address) = (self.catalogs.borrow().clone(), self.address.clone());
        let bytes = (catalogs.custom.len() + catalogs.external.len()) * BYTES_PER_METRIC;
        let newest = self.encoded.clone();
        work::run(bytes, move |_| {
            let _encoding = encoding;
            let encoded = Arc::new(EncodedDocuments::new(catalogs, &address));
            newest.store(encoded.clone());
            encoded
        })
        .await
    }

    /// The documents of the newest catalogs, if they are already encoded.
    fn newest(&self) -> Option<Arc<EncodedDocuments>> {
        let encoded = self.encoded.load_full();
        Arc::ptr_eq(&encoded.catalogs, &self.catalogs.borrow()).then_some(encoded)
    }
}

impl EncodedDocuments {
    fn new(catalogs: Arc<Catalogs>, address: &str) -> Self {
        let plain = |value| Document::json(&value, JSON, UNCACHED);
        let aggregated = |format: AggregatedVersion| {
            Document::json(&catalogs.aggregated(format), format.media_type(), "public")
        };
        let mut by_version = BTreeMap::new();
        for group in Group::ALL {
            by_version.insert((group.name(), ""), plain(group.document()));
            for version in group.versions() {
                let list = catalogs.resource_list(group, version);
                by_version.insert((group.name(), *version), Document::json(&list, JSON, UNCACHED));
            }
        }
        Self {
            groups: plain(discovery::group_list(address)),
            aggregated: [aggregated(AggregatedVersion::V2), aggregated(AggregatedVersion::V2Beta1)],
            by_version,
            catalogs,
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

    /// `/apis/<group>` (with an empty version) or `/apis/<group>/<version>`.
    ///
    /// # Errors
    /// If the group or version is unknown, or the method is not GET.
    pub(super) fn serve_group(
        &self,
        request: &Request,
        group: &str,
        version: &str,
    ) -> Result<Response, ApiError> {
        let document = self.by_version.get(&(group, version)).ok_or(ApiError::NotFound)?;
        only_get(request, || document.response(request.headers()))
    }
}
