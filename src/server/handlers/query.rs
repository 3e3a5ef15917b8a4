//! What the queries of all metrics APIs have in common: the form of their answers, the choice of clusters, warnings.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONTENT_TYPE, VARY, WARNING};
use http::{HeaderMap, HeaderValue, Method};

use super::super::Serving;
use super::super::error::Error;
use super::super::layers::Allowed;
use super::super::negotiation::accepted;
use super::super::request_info::{RequestInfo, is_segment_name};
use super::uncached;
use crate::answer::{Answer, Form, Key};
use crate::api::codec::negotiate::{Offer, Representation};
use crate::api::custom_metrics::Version;
use crate::api::selector::{Requirement, Selector};
use crate::api::table::IncludeObject;
use crate::gather::query::Question;

/// A request for metrics.
pub(super) struct Asking<'a> {
    serving: &'a Serving,
    info: &'a RequestInfo,
    headers: &'a HeaderMap,
    method: &'a Method,
    /// How long the request may take.
    allowed: Duration,
}

/// What is asked, and of which clusters.
pub(super) struct Asked {
    pub(super) question: Question,
    /// Requirements on the cluster label; none for all clusters.
    pub(super) clusters: Vec<Requirement>,
    /// The version of custom metrics that the client speaks; the other groups have one.
    pub(super) version: Version,
    pub(super) offer: Offer,
    /// Parameters that this API does not have, and the ones that they are taken for.
    pub(super) mistaken: &'static [(&'static str, &'static str)],
}

impl<'a> Asking<'a> {
    pub(super) fn of(serving: &'a Serving, request: &'a Request, info: &'a RequestInfo) -> Self {
        let extensions = request.extensions();
        Self {
            serving,
            info,
            headers: request.headers(),
            method: request.method(),
            allowed: extensions.get::<Allowed>().map_or(Duration::MAX, |allowed| allowed.0),
        }
    }

    /// Answers what `read` finds to be asked for, once it is known that the path exists and is read.
    pub(super) async fn answer(
        &self,
        read: impl FnOnce() -> Result<Asked, Error>,
    ) -> Result<Response, Error> {
        if self.method != Method::GET {
            return Err(Error::MethodNotAllowed);
        }
        let Asked { question, clusters, version, offer, mistaken } = read()?;
        let (encoding, representation) = accepted(self.headers, self.info, offer)?;
        let include_object = match representation {
            Representation::Table(_) => self.info.parameter("includeObject").parse()?,
            _ => IncludeObject::default(),
        };
        let form = Form { encoding, representation, include_object, version };
        // What is left after that is for merging and for the way back, so that late members cost only their own values.
        let member_timeout = self.serving.answers.member_timeout().min(self.allowed / 10 * 9);
        let key = Key { query: Arc::new(question.into()), clusters, form, member_timeout };
        let Answer { body, warning } = self
            .serving
            .answers
            .answer(key)
            .await
            .map_err(|status| Error::Status(Box::new(Arc::unwrap_or_clone(status))))?;
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        let parameters = &self.info.parameters;
        for (name, meant) in mistaken.iter().filter(|(name, _)| parameters.iter().any(|(key, _)| key == name))
        {
            let text = format!("unknown parameter {name:?} is ignored; did you mean {meant:?}?");
            headers.append(WARNING, warn(&text));
        }
        if !warning.is_empty() {
            headers.append(WARNING, warn(&warning));
        }
        Ok(uncached(response))
    }

    /// The label by which clusters are chosen, if they are.
    pub(super) fn cluster_label(&self) -> Option<&str> {
        self.serving.answers.cluster_label()
    }
}

/// Refuses names that nothing has.
pub(super) fn check_names(segments: &[&str]) -> Result<(), Error> {
    if segments.iter().all(|segment| is_segment_name(segment)) { Ok(()) } else { Err(Error::MetricPath) }
}

/// Takes the requirements on the cluster label out of a selector; the rest is passed on, as it came if there are
/// none.
pub(super) fn choose_clusters(
    selector: &str,
    label: Option<&str>,
) -> Result<(Vec<Requirement>, String), Error> {
    let parsed = selector.parse::<Selector>()?;
    let Some(label) = label else { return Ok((Vec::new(), selector.to_owned())) };
    let (clusters, rest) = parsed.split_off(label);
    let rest = if clusters.is_empty() { selector.to_owned() } else { rest.to_string() };
    Ok((clusters, rest))
}

/// A warning as kubectl shows it: `299`, no agent, a quoted text (`net.NewWarningHeader` of apimachinery).
fn warn(text: &str) -> HeaderValue {
    let mut quoted = String::with_capacity(text.len() + 8);
    quoted.push_str("299 - \"");
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    HeaderValue::from_bytes(quoted.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static("299 - \"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_on_the_cluster_label_chooses_clusters_and_is_not_passed_on() {
        let (clusters, rest) =
            choose_clusters("cluster in (a,b),verb=GET", Some("cluster")).expect("a selector");
        assert_eq!((clusters.len(), rest.as_str()), (1, "verb=GET"));
        let (clusters, rest) = choose_clusters("verb = GET", Some("cluster")).expect("a selector");
        assert_eq!((clusters.len(), rest.as_str()), (0, "verb = GET"));
        let (clusters, rest) = choose_clusters("cluster=a", None).expect("a selector");
        assert_eq!((clusters.len(), rest.as_str()), (0, "cluster=a"));
    }

    #[test]
    fn names_that_would_be_places_in_a_path_are_refused() {
        for name in ["", ".", "..", "a/b", "../../secrets", "%2e%2e", "a%2Fb"] {
            assert!(matches!(check_names(&["pods", name]), Err(Error::MetricPath)), "{name:?}");
        }
        assert!(check_names(&["namespaces", "default", "pods", "*", "m"]).is_ok());
    }

    #[test]
    fn a_warning_cannot_break_out_of_its_header() {
        assert_eq!(warn("a \"b\" \\ c\r\nX-Evil: 1"), r#"299 - "a \"b\" \\ cX-Evil: 1""#);
    }
}
