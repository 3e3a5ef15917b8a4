//! HTTP: what comes in from the API server's aggregation layer, and what goes out.

mod certificate;
pub mod connection;
mod document;
pub mod documents;
pub mod error;
pub mod handlers;
pub mod health;
pub mod layers;
pub mod listener;
pub mod metrics;
pub mod negotiation;
mod outgoing;
mod places;
pub mod pressure;
pub mod request_info;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;

use crate::access::Authenticators;
use crate::access::review::Reviewer;
use crate::answer::Answers;
use crate::process::metrics::Metrics;
use documents::Documents;
use health::Health;
use metrics::RequestMetrics;
use pressure::Admission;

/// What requests are served from.
pub struct Serving {
    /// Who asks.
    pub authenticators: Authenticators,
    /// Whether they may.
    pub reviewer: Reviewer,
    /// Metrics of members.
    pub answers: Answers,
    /// How many requests are worked on at a time.
    pub admission: Admission,
    /// Discovery.
    pub documents: Documents,
    /// Health checks.
    pub health: Health,
    /// This process' own metrics.
    pub metrics: Arc<Metrics>,
    /// What is counted of requests.
    pub requests: RequestMetrics,
    /// How long a request may take.
    pub request_timeout: Duration,
}

/// The service of the secure port.
pub fn router(serving: Arc<Serving>) -> Router {
    layers::around(handlers::routes(), &serving).with_state(serving)
}
