//! What was found: one finding for each link, and what to do about each cause.

use serde::Serialize;

use crate::api::cause::Cause;

/// What one link is like.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The cluster's name; nothing for the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Which link.
    pub link: String,
    /// How it is.
    pub verdict: CheckStatus,
    /// Why it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What was seen.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

/// How a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Well.
    Ok,
    /// Well enough to serve, and not as it should be.
    Warning,
    /// Values are missing because of it.
    Broken,
}

impl Finding {
    /// A link that is well.
    pub fn ok(cluster: Option<&str>, link: impl Into<String>, message: impl Into<String>) -> Self {
        let (cluster, verdict) = (cluster.map(str::to_owned), CheckStatus::Ok);
        Self { cluster, link: link.into(), verdict, cause: None, message: message.into(), remedy: None }
    }

    /// A link that is not.
    pub fn problem(
        cluster: Option<&str>,
        link: impl Into<String>,
        verdict: CheckStatus,
        cause: Cause,
        message: impl Into<String>,
    ) -> Self {
        Self {
            cluster: cluster.map(str::to_owned),
            link: link.into(),
            verdict,
            cause: Some(cause),
            message: message.into(),
            remedy: Some(cause.remedy()),
        }
    }
}
