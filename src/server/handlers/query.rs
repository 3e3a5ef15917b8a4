//! The queries of all metrics APIs: the form of their answers, and warnings.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, VARY, WARNING};
use http::{HeaderMap, HeaderValue, Method};

use super::super::ServerState;
use super::super::error::ApiError;
use super::super::layers::RequestTimeout;
use super::super::negotiation::accepted;
use super::super::request_info::RequestInfo;
use crate::api::codec::negotiate::{Offer, Representation};
use crate::api::table::IncludeObject;
use crate::query::{ClientQuery, MetricsQuery, QueryError, ResourceQuery};
use crate::response::{QueryKey, QueryResponse, ResponseFormat};
use crate::server::document::uncached;

/// Answers a request for metrics, which may take so long.
pub(super) async fn answer(
    serving: &ServerState,
    head: (&Method, &HeaderMap),
    allowed: Option<&RequestTimeout>,
    info: &RequestInfo,
) -> Result<Response, ApiError> {
    let asked = MetricsQuery::read(&info.target, serving.answers.cluster_label());
    let exists = !matches!(asked, Err(QueryError::NotFound | QueryError::Path));
    let (method, headers) = head;
    if exists && method != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    let ClientQuery { question, clusters } = asked?;
    let mistaken = question.mistaken();
    let offer = match &question {
        MetricsQuery::Resource(ResourceQuery { name: None, .. }) => Offer::List,
        MetricsQuery::Resource(_) => Offer::Object,
        MetricsQuery::Custom(_) | MetricsQuery::External(_) => Offer::Whole,
    };
    let (encoding, representation) = accepted(headers, info, offer)?;
    let include_object = match representation {
        Representation::Table(_) => info.target.parameter("includeObject").parse()?,
        _ => IncludeObject::default(),
    };
    let form = ResponseFormat { encoding, representation, include_object };
    let allowed = allowed.map_or(Duration::MAX, |allowed| allowed.0);
    // What is left after that is for merging and for the way back, so that late members cost only their own values.
    let member_timeout = serving.answers.member_timeout().min(allowed / 10 * 9);
    let key = QueryKey { query: Arc::new(question.into()), clusters, form, member_timeout };
    let answer = serving.answers.answer(key).await;
    let QueryResponse { body, warning } =
        answer.map_err(|status| ApiError::Status(Box::new(Arc::unwrap_or_clone(status))))?;
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    let parameters = &info.target.parameters;
    for (name, meant) in mistaken.iter().filter(|(name, _)| parameters.iter().any(|(key, _)| key == name)) {
        let text = format!("unknown parameter {name:?} is ignored; did you mean {meant:?}?");
        headers.append(WARNING, warn(&text));
    }
    if !warning.is_empty() {
        headers.append(WARNING, warn(&warning));
    }
    Ok(uncached(response))
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
    fn a_warning_cannot_break_out_of_its_header() {
        assert_eq!(warn("a \"b\" \\ c\r\nX-Evil: 1"), r#"299 - "a \"b\" \\ cX-Evil: 1""#);
    }
}
