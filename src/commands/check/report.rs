//! The findings as a table or as JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::finding::{CheckStatus, Finding};
use crate::api::cause::Cause;
use crate::cli::commands::OutputFormat;
use crate::commands::table::table;

/// The text of the report.
pub(super) fn report(findings: &[Finding], output: Option<OutputFormat>) -> String {
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let (broken, warnings) = (count(CheckStatus::Broken), count(CheckStatus::Warning));
    if output == Some(OutputFormat::Json) {
        let report = json!({"findings": findings, "broken": broken, "warnings": warnings});
        return format!("{report:#}\n");
    }
    let heading = ["CLUSTER", "CHECK", "STATUS", "DETAILS"].map(str::to_owned);
    let rows = findings.iter().map(row);
    let mut text = table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
    let mut causes: Vec<Cause> = findings.iter().filter_map(|finding| finding.cause).collect();
    causes.sort_unstable();
    causes.dedup();
    if !causes.is_empty() {
        text.push_str("\nWhat to do (details in docs/troubleshooting.md):\n");
    }
    for cause in causes {
        writeln!(text, "  {}: {}", cause.name(), cause.remedy()).expect("writing to a String succeeds");
    }
    writeln!(text, "\n{} checks, {broken} broken, {warnings} with a warning", findings.len())
        .expect("writing to a String succeeds");
    text
}

fn row(Finding { cluster, check, status, cause, message, .. }: &Finding) -> [String; 4] {
    let status = match status {
        CheckStatus::Ok => "ok",
        CheckStatus::Warning => "warning",
        CheckStatus::Broken => "BROKEN",
    };
    let cause = cause.map(|cause| format!(" [{}]", cause.name())).unwrap_or_default();
    let cluster = cluster.clone().unwrap_or_else(|| "(control plane)".to_owned());
    [cluster, check.clone(), status.to_owned(), format!("{message}{cause}")]
}
