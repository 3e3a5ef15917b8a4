//! Discovery documents, encoded once for each change of what members have.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::Request;
use axum::response::Response;
use tokio::sync::{Mutex, watch};

use super::document::{Document, JSON, UNCACHED, only_get};
use super::error::Error;
use crate::api::discovery::{self, Aggregated, Catalogs};
use crate::api::group::Group;
use crate::process::work;

/// The encoded documents of the members' metrics as last known.
pub struct Documents {
    catalogs: watch::Receiver<Arc<Catalogs>>,
    address: Arc<str>,
    encoded: Arc<ArcSwap<Encoded>>,
    /// One encoding at a time, also of a request that has left; others wait for it.
    encoding: Arc<Mutex<()>>,
}

/// How many bytes of documents a metric takes, about.
const METRIC: usize = 1024;

/// One generation of documents.
pub(super) struct Encoded {
    of: Arc<Catalogs>,
    groups: Document,
    /// In [`Aggregated::V2`] and [`Aggregated::V2Beta1`].
    aggregated: [Document; 2],
    /// By group and version; that of a group itself has an empty version.
    below: BTreeMap<(&'static str, &'static str), Document>,
}

impl Documents {
    /// Documents that follow the catalogs. `address` is where this server listens, such as `:443`.
    pub fn new(catalogs: watch::Receiver<Arc<Catalogs>>, address: String) -> Self {
        let encoded = Encoded::new(catalogs.borrow().clone(), &address);
        let encoded = Arc::new(ArcSwap::from_pointee(encoded));
        Self { catalogs, address: address.into(), encoded, encoding: Arc::default() }
    }

    /// The newest generation, encoded for the first request after a change, where it blocks no other request.
    pub(super) async fn current(&self) -> Arc<Encoded> {
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
            let encoded = Arc::new(Encoded::new(catalogs, &address));
            newest.store(encoded.clone());
            encoded
        })
        .await
    }

    /// The newest generation, if it is encoded.
    fn newest(&self) -> Option<Arc<Encoded>> {
        let encoded = self.encoded.load_full();
        Arc::ptr_eq(&encoded.of, &self.catalogs.borrow()).then_some(encoded)
    }
}

impl Encoded {
    fn new(catalogs: Arc<Catalogs>, address: &str) -> Self {
        let plain = |value| Document::json(&value, JSON, UNCACHED);
        let aggregated =
            |format: Aggregated| Document::json(&catalogs.aggregated(format), format.media_type(), "public");
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
            aggregated: [aggregated(Aggregated::V2), aggregated(Aggregated::V2Beta1)],
            below,
            of: catalogs,
        }
    }

    /// `/apis`.
    pub(super) fn groups(&self) -> &Document {
        &self.groups
    }

    /// `/apis` in an aggregated format.
    pub(super) fn aggregated(&self, format: Aggregated) -> &Document {
        match format {
            Aggregated::V2 => &self.aggregated[0],
            Aggregated::V2Beta1 => &self.aggregated[1],
        }
    }

    /// `/apis/<group>`, where the version is empty, and `/apis/<group>/<version>`.
    pub(super) fn below(&self, request: &Request, group: &str, version: &str) -> Result<Response, Error> {
        let document = self.below.get(&(group, version)).ok_or(Error::NotFound)?;
        only_get(request, || document.response(request.headers()))
    }
}
