//! The queries of all metrics APIs: the form of their answers, and warnings.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, VARY, WARNING};
use http::{HeaderMap, HeaderValue, Method};

use super::super::Serving;
use super::super::error::Error;
use super::super::layers::Allowed;
use super::super::negotiation::accepted;
use super::super::request_info::RequestInfo;
use crate::answer::{Answer, Form, Key};
use crate::api::codec::negotiate::{Offer, Representation};
use crate::api::table::IncludeObject;
use crate::query::{Asked, Question, ReadError, ResourceQuery};
use crate::server::document::uncached;

/// Answers a request for metrics, which may take so long.
pub(super) async fn answer(
    serving: &Serving,
    head: (&Method, &HeaderMap),
    allowed: Option<&Allowed>,
    info: &RequestInfo,
) -> Result<Response, Error> {
    let asked = Question::read(&info.target, serving.answers.cluster_label());
    let exists = !matches!(asked, Err(ReadError::NotFound | ReadError::Path));
    let (method, headers) = head;
    if exists && method != Method::GET {
        return Err(Error::MethodNotAllowed);
    }
    let Asked { question, clusters } = asked?;
    let mistaken = question.mistaken();
    let offer = match &question {
        Question::Resource(ResourceQuery { name: None, .. }) => Offer::List,
        Question::Resource(_) => Offer::Object,
        Question::Custom(_) | Question::External(_) => Offer::Whole,
    };
    let (encoding, representation) = accepted(headers, info, offer)?;
    let include_object = match representation {
        Representation::Table(_) => info.target.parameter("includeObject").parse()?,
        _ => IncludeObject::default(),
    };
    let form = Form { encoding, representation, include_object };
    let allowed = allowed.map_or(Duration::MAX, |allowed| allowed.0);
    // What is left after that is for merging and for the way back, so that late members cost only their own values.
    let member_timeout = serving.answers.member_timeout().min(allowed / 10 * 9);
    let key = Key { query: Arc::new(question.into()), clusters, form, member_timeout };
    let answer = serving.answers.answer(key).await;
    let Answer { body, warning } =
        answer.map_err(|status| Error::Status(Box::new(Arc::unwrap_or_clone(status))))?;
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
