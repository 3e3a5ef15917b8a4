//! `/apis/apiregistration.k8s.io/v1/apiservices` of a member: the registered metrics APIs and their state.

use std::collections::BTreeMap;
use std::sync::Mutex;

use http::StatusCode;
use serde_json::json;

use super::wire::{Document, Status};
use super::{ExternalMetrics, Member, MemberOptions, custom_metrics, external_metrics, resource_metrics};

/// The API's group.
pub(super) const GROUP: &str = "apiregistration.k8s.io";

/// State of an APIService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The APIService and its API do not exist.
    Absent,
    /// Its condition `Available` is True.
    Available,
    /// Its condition `Available` is False, and its API responds with 503.
    Unavailable {
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
    },
}

/// The APIServices with a state that differs from the member's options.
#[derive(Default)]
pub(super) struct Registrations(Mutex<BTreeMap<String, Registration>>);

impl Member {
    /// Sets the state of an APIService (`v1beta2.custom.metrics.k8s.io`).
    pub fn set_api_service(&self, name: &str, registration: Registration) {
        let mut set = self.state.registrations.0.lock().expect("not poisoned");
        set.insert(name.to_owned(), registration);
    }
}

impl Registrations {
    /// The APIService of this name.
    pub(super) fn answer(&self, options: &MemberOptions, name: &str) -> (StatusCode, Document) {
        let (status, reason, message) = match self.of(options, name) {
            Registration::Absent => {
                let message = format!("apiservices.apiregistration.k8s.io {name:?} not found");
                return Status::failure(StatusCode::NOT_FOUND, "NotFound", message).into_answer();
            }
            Registration::Available => ("True", "Passed".to_owned(), "all checks passed".to_owned()),
            Registration::Unavailable { reason, message } => ("False", reason, message),
        };
        let condition = json!({"type": "Available", "status": status, "reason": reason, "message": message});
        let object = json!({
            "kind": "APIService",
            "apiVersion": format!("{GROUP}/v1"),
            "metadata": {"name": name},
            "status": {"conditions": [condition]},
        });
        (StatusCode::OK, Document::Json(object))
    }

    /// The aggregation layer's own response if the APIService is absent or unavailable.
    pub(super) fn rejection(
        &self,
        options: &MemberOptions,
        segments: &[&str],
    ) -> Option<(StatusCode, Document)> {
        let ["apis", group, version, ..] = segments else { return None };
        let name = format!("{version}.{group}");
        if !self.0.lock().expect("not poisoned").contains_key(&name) {
            return None;
        }
        match self.of(options, &name) {
            Registration::Absent => Some((StatusCode::NOT_FOUND, Document::Text("404 page not found\n"))),
            Registration::Available => None,
            Registration::Unavailable { .. } => {
                Some((StatusCode::SERVICE_UNAVAILABLE, Document::Text("service unavailable\n")))
            }
        }
    }

    fn of(&self, options: &MemberOptions, name: &str) -> Registration {
        if let Some(set) = self.0.lock().expect("not poisoned").get(name) {
            return set.clone();
        }
        let served = match name.split_once('.') {
            Some((version, custom_metrics::GROUP)) => {
                options.versions.iter().any(|served| served.name() == version)
            }
            Some((external_metrics::VERSION, external_metrics::GROUP)) => {
                options.external_metrics != ExternalMetrics::Absent
            }
            Some((resource_metrics::VERSION, resource_metrics::GROUP)) => options.resource_metrics,
            _ => false,
        };
        if served { Registration::Available } else { Registration::Absent }
    }
}
