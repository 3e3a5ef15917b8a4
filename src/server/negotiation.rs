//! Content negotiation: the encoding and representation of a response.

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

use super::request_info::RequestInfo;
use crate::api::codec::negotiate::{Encoding, NotAcceptable, Offer, Representation, negotiate};

/// User agents that get indented JSON by default (`isPrettyPrint` of `k8s.io/apiserver`).
const PRETTY_PRINT_AGENTS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// The encoding and representation of the response. The encoding is indented if the parameter `pretty` or the user agent
/// requires it.
///
/// # Errors
/// If the client accepts nothing that is offered.
pub fn accepted(
    headers: &HeaderMap,
    info: &RequestInfo,
    offer: Offer,
) -> Result<(Encoding, Representation), NotAcceptable> {
    let (encoding, representation) = negotiate(accept_values(headers), offer)?;
    Ok((if is_pretty(headers, info) { encoding.pretty() } else { encoding }, representation))
}

/// The values of a request's `Accept` headers. Values that are not ASCII are skipped.
pub fn accept_values(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok())
}

fn is_pretty(headers: &HeaderMap, info: &RequestInfo) -> bool {
    match info.target.parameter("pretty") {
        "" => {
            let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
            PRETTY_PRINT_AGENTS.iter().any(|prefix| agent.starts_with(prefix))
        }
        // As `strconv.ParseBool` of Go.
        value => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}
