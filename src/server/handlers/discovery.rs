//! Discovery from memory: whatever members do, it is answered at once.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::api::codec::accept::{Clause, choose};
use crate::api::discovery::Aggregated;
use crate::server::Serving;
use crate::server::negotiation::accept;

/// `/apis`, plain or aggregated.
pub(super) async fn groups(State(serving): State<Arc<Serving>>, request: Request) -> Response {
    let encoded = serving.documents.current().await;
    let wanted = choose(accept(request.headers()), Wanted::Plain, Wanted::of);
    let document = match wanted.unwrap_or(Wanted::Plain) {
        Wanted::Plain => encoded.groups(),
        Wanted::Aggregated(format) => encoded.aggregated(format),
    };
    document.response(request.headers())
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
