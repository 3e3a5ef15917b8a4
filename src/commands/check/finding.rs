//! The result of one check.

use serde::Serialize;

use crate::api::cause::Cause;

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The cluster's name. `None` for the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The name of the check.
    #[serde(rename = "link")]
    pub check: String,
    #[serde(rename = "verdict")]
    pub status: CheckStatus,
    /// The cause, unless the status is ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// Details.
    pub message: String,
    /// How to fix the problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// No problem.
    Ok,
    /// A problem that costs no values of custom metrics.
    Warning,
    /// A problem that costs values.
    Broken,
}

impl Finding {
    /// A check without a problem.
    pub fn ok(cluster: Option<&str>, check: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            cluster: cluster.map(str::to_owned),
            check: check.into(),
            status: CheckStatus::Ok,
            cause: None,
            message: message.into(),
            remedy: None,
        }
    }

    /// A check that found a problem.
    pub fn problem(
        cluster: Option<&str>,
        check: impl Into<String>,
        status: CheckStatus,
        cause: Cause,
        message: impl Into<String>,
    ) -> Self {
        Self {
            cluster: cluster.map(str::to_owned),
            check: check.into(),
            status,
            cause: Some(cause),
            message: message.into(),
            remedy: Some(cause.remedy()),
        }
    }
}
