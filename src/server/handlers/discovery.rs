//! Discovery from memory: whatever members do, it is answered at once.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::api::codec::accept::{Clause, choose};
use crate::api::discovery::AggregatedVersion;
use crate::server::ServerState;
use crate::server::negotiation::accept;

/// `/apis`, plain or aggregated.
pub(super) async fn groups(State(serving): State<Arc<ServerState>>, request: Request) -> Response {
    let encoded = serving.documents.current().await;
    let wanted = choose(accept(request.headers()), ApisFormat::Plain, ApisFormat::of);
    let document = match wanted.unwrap_or(ApisFormat::Plain) {
        ApisFormat::Plain => encoded.groups(),
        ApisFormat::Aggregated(format) => encoded.aggregated(format),
    };
    document.response(request.headers())
}

/// The form of `/apis` that one clause of an Accept header asks for.
enum ApisFormat {
    Plain,
    Aggregated(AggregatedVersion),
}

impl ApisFormat {
    /// `None` if the clause asks for something that is not served.
    fn of(clause: &Clause<'_>) -> Option<Self> {
        if !clause.takes("application", "json") {
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
