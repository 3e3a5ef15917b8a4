//! Discovery, served from memory: slow or unavailable members do not delay it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::api::codec::accept::{Clause, best_match};
use crate::api::discovery::AggregatedVersion;
use crate::server::ServerState;
use crate::server::negotiation::accept_values;

/// `/apis`, as a plain group list or in an aggregated format.
pub(super) async fn groups(State(state): State<Arc<ServerState>>, request: Request) -> Response {
    let documents = state.documents.current().await;
    let requested = best_match(accept_values(request.headers()), ApisFormat::Plain, ApisFormat::of);
    let document = match requested.unwrap_or(ApisFormat::Plain) {
        ApisFormat::Plain => documents.groups(),
        ApisFormat::Aggregated(format) => documents.aggregated(format),
    };
    document.response(request.headers())
}

enum ApisFormat {
    Plain,
    Aggregated(AggregatedVersion),
}

impl ApisFormat {
    /// The format that a clause of an `Accept` header requests; `None` if it is not supported.
    fn of(clause: &Clause<'_>) -> Option<Self> {
        if !clause.accepts("application", "json") {
            return None;
        }
        match (clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            ("", _, _) => Some(Self::Plain),
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => {
                Some(Self::Aggregated(AggregatedVersion::V2))
            }
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => {
                Some(Self::Aggregated(AggregatedVersion::V2Beta1))
            }
            _ => None,
        }
    }
}
