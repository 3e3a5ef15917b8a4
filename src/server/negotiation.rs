//! Which form a request's headers and parameters ask for.

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

use super::request_info::RequestInfo;
use crate::api::codec::negotiate::{Encoding, NotAcceptable, Offer, Representation, negotiate};

/// Programs that people read the output of (`isPrettyPrint` of `k8s.io/apiserver`).
const READERS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// What to answer with.
///
/// # Errors
/// If the client accepts nothing that is on offer.
pub fn accepted(
    headers: &HeaderMap,
    info: &RequestInfo,
    offer: Offer,
) -> Result<(Encoding, Representation), NotAcceptable> {
    let (encoding, representation) = negotiate(accept(headers), offer)?;
    Ok((if is_for_people(headers, info) { encoding.pretty() } else { encoding }, representation))
}

/// The values of a request's Accept headers.
pub fn accept(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok())
}

fn is_for_people(headers: &HeaderMap, info: &RequestInfo) -> bool {
    match info.target.parameter("pretty") {
        "" => {
            let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
            READERS.iter().any(|reader| agent.starts_with(reader))
        }
        // `strconv.ParseBool` of Go.
        value => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}
