//! Discovery from memory: whatever members do, it is answered at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::ACCEPT;
use tokio::sync::watch;

use super::super::Serving;
use super::document::{Document, JSON, UNCACHED};
use super::only_get;
use crate::api::codec::accept::{self, Clause};
use crate::api::discovery::{self, Aggregated, Catalogs};
use crate::api::group::Group;
use crate::server::error::Error;

/// The encoded documents of the members' metrics as last known.
pub struct Documents {
    catalogs: watch::Receiver<Arc<Catalogs>>,
    address: String,
    encoded: ArcSwap<Encoded>,
}

/// One generation of documents.
struct Encoded {
    of: Arc<Catalogs>,
    groups: Document,
    aggregated: [Document; 2],
    /// By group and version; that of a group itself has an empty version.
    below: BTreeMap<(&'static str, &'static str), Document>,
}

impl Documents {
    /// Documents that follow the catalogs. `address` is where this server listens, such as `:443`.
    pub fn new(catalogs: watch::Receiver<Arc<Catalogs>>, address: String) -> Self {
        let encoded = Encoded::new(catalogs.borrow().clone(), &address);
        Self { encoded: ArcSwap::from_pointee(encoded), catalogs, address }
    }

    /// The newest generation, encoded by the first request after a change.
    fn current(&self) -> Arc<Encoded> {
        let catalogs = self.catalogs.borrow().clone();
        let encoded = self.encoded.load_full();
        if Arc::ptr_eq(&encoded.of, &catalogs) {
            return encoded;
        }
        let encoded = Arc::new(Encoded::new(catalogs, &self.address));
        self.encoded.store(encoded.clone());
        encoded
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
                below.insert((group.name(), *version), plain(catalogs.resource_list(group, version)));
            }
        }
        Self {
            groups: plain(discovery::group_list(address)),
            aggregated: [aggregated(Aggregated::V2), aggregated(Aggregated::V2Beta1)],
            below,
            of: catalogs,
        }
    }
}

/// `/apis`, plain or aggregated.
pub(super) async fn groups(State(serving): State<Arc<Serving>>, request: Request) -> Response {
    let encoded = serving.documents.current();
    let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let clauses = accept::clauses(accept).unwrap_or_default();
    let wanted = clauses.iter().find_map(Wanted::of).unwrap_or(Wanted::Plain);
    let document = match wanted {
        Wanted::Plain => &encoded.groups,
        Wanted::Aggregated(Aggregated::V2) => &encoded.aggregated[0],
        Wanted::Aggregated(Aggregated::V2Beta1) => &encoded.aggregated[1],
    };
    document.response(request.headers())
}

/// `/apis/<group>`, where the version is empty, and `/apis/<group>/<version>`.
pub(super) fn below(
    serving: &Serving,
    request: &Request,
    group: &str,
    version: &str,
) -> Result<Response, Error> {
    let encoded = serving.documents.current();
    let document = encoded.below.get(&(group, version)).ok_or(Error::NotFound)?;
    only_get(request, || document.response(request.headers()))
}

/// The form of `/apis` that one clause of an Accept header asks for.
enum Wanted {
    Plain,
    Aggregated(Aggregated),
}

impl Wanted {
    /// `None` if the clause asks for something that is not served.
    fn of(clause: &Clause<'_>) -> Option<Self> {
        if !clause.takes("application", "json") {
            return None;
        }
        match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            ("", _, _) => Some(Self::Plain),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => Some(Self::Aggregated(Aggregated::V2)),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
                Some(Self::Aggregated(Aggregated::V2Beta1))
            }
            _ => None,
        }
    }
}
