//! Label selectors with requirements on the cluster label.

use super::QueryError;
use crate::api::selector::{Requirement, Selector};

/// Removes the requirements on the cluster label from a selector. The rest is sent to members. A selector without such
/// requirements is returned unchanged.
pub(super) fn choose_clusters(
    selector: &str,
    label: Option<&str>,
) -> Result<(Vec<Requirement>, String), QueryError> {
    let parsed = selector.parse::<Selector>()?;
    let Some(label) = label else { return Ok((Vec::new(), selector.to_owned())) };
    let (clusters, rest) = parsed.split_off(label);
    let rest = if clusters.is_empty() { selector.to_owned() } else { rest.to_string() };
    Ok((clusters, rest))
}
