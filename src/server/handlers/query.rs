//! Queries of all metrics APIs: format of the responses, and `Warning` headers.

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
use crate::config::member_share;
use crate::query::{ClientQuery, DecodedQuery, QueryError, ResourceQuery};
use crate::response::{QueryKey, QueryResponse, ResponseFormat};
use crate::server::document::uncached;

/// Handles a request for metrics. `timeout` limits the queries to members; `None` means no limit.
///
/// # Errors
/// If the path, the method, a parameter or the `Accept` header is invalid, or if the query fails.
pub(super) async fn handle(
    state: &ServerState,
    head: (&Method, &HeaderMap),
    timeout: Option<&RequestTimeout>,
    info: &RequestInfo,
) -> Result<Response, ApiError> {
    let query = DecodedQuery::read(&info.target, state.responder.cluster_label());
    let exists = !matches!(query, Err(QueryError::NotFound | QueryError::Path));
    let (method, headers) = head;
    if exists && method != Method::GET {
        return Err(ApiError::MethodNotAllowed);
    }
    let ClientQuery { question, clusters } = query?;
    let misspelled = question.misspelled_parameters();
    let offer = match &question {
        DecodedQuery::Resource(ResourceQuery { name: None, .. }) => Offer::List,
        DecodedQuery::Resource(_) => Offer::Object,
        DecodedQuery::Custom(_) | DecodedQuery::External(_) => Offer::FullOnly,
    };
    let (encoding, representation) = accepted(headers, info, offer)?;
    let include_object = match representation {
        Representation::Table(_) => info.target.parameter("includeObject").parse()?,
        _ => IncludeObject::default(),
    };
    let format = ResponseFormat { encoding, representation, include_object };
    let timeout = timeout.map_or(Duration::MAX, |timeout| timeout.0);
    let member_timeout = state.responder.member_timeout().min(member_share(timeout));
    let key = QueryKey { query: Arc::new(question.into()), clusters, format, member_timeout };
    let result = state.responder.respond(key).await;
    let QueryResponse { body, warning } =
        result.map_err(|status| ApiError::Status(Box::new(Arc::unwrap_or_clone(status))))?;
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(encoding.media_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    let parameters = &info.target.parameters;
    let has_parameter = |name: &str| parameters.iter().any(|(key, _)| key == name);
    for (name, suggestion) in misspelled.iter().filter(|(name, _)| has_parameter(name)) {
        let text = format!("unknown parameter {name:?} is ignored; did you mean {suggestion:?}?");
        headers.append(WARNING, warn(&text));
    }
    if !warning.is_empty() {
        headers.append(WARNING, warn(&warning));
    }
    Ok(uncached(response))
}

/// A `Warning` header that kubectl prints: code 299, no agent, quoted text (`net.NewWarningHeader` of apimachinery). Control
/// characters are removed.
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
    fn warning_text_is_escaped() {
        assert_eq!(warn("a \"b\" \\ c\r\nX-Evil: 1"), r#"299 - "a \"b\" \\ cX-Evil: 1""#);
    }
}
