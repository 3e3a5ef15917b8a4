//! The result of a query, as a table or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::values::{ReportedObject, ReportedValue};
use crate::api::cause::Cause;
use crate::api::duration::GoDuration;
use crate::api::time::Timestamp;
use crate::cli::commands::OutputFormat;
use crate::commands::table::table;
use crate::fleet::NoCredentials;
use crate::gather::Outcome;
use crate::process::expiry::now;

/// The results of all clusters.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    path: String,
    time: String,
    /// Sorted by cluster name.
    pub(super) clusters: Vec<ClusterReport>,
}

/// The result of one cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterReport {
    pub(super) cluster: String,
    /// `Found`, `NotFound`, `PullMode` (not a failure), or the cause of a failure.
    outcome: &'static str,
    failed: bool,
    /// Why the cluster failed or was not queried.
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_milliseconds: Option<u64>,
    values: Vec<ReportedValue>,
}

impl ClusterReport {
    /// The report of a member: it was queried, or it is not Ready.
    pub(super) fn of_member(
        cluster: &str,
        outcome: &Outcome,
        elapsed: Duration,
        values: Vec<ReportedValue>,
    ) -> Self {
        // A member may ignore the selector, so it is possible that none of its items match.
        let is_empty = matches!(outcome, Outcome::Page(_)) && values.is_empty();
        let outcome = if is_empty { &Outcome::NotFound } else { outcome };
        let failure = outcome.failure();
        Self {
            cluster: cluster.to_owned(),
            outcome: outcome.name(),
            failed: failure.is_some(),
            message: failure.map(ToString::to_string).unwrap_or_default(),
            latency_milliseconds: u64::try_from(elapsed.as_millis()).ok(),
            values,
        }
    }

    /// The report of an unusable cluster. This is a failure, except in Pull mode.
    pub(super) fn unusable(cluster: &str, reason: &NoCredentials) -> Self {
        Self {
            cluster: cluster.to_owned(),
            outcome: reason.cause.name(),
            failed: reason.cause != Cause::PullMode,
            message: reason.message.clone(),
            latency_milliseconds: None,
            values: Vec::new(),
        }
    }

    fn rows(&self) -> Vec<[String; 6]> {
        let latency = self.latency_milliseconds.map(|time| format!("{time}ms")).unwrap_or_default();
        let row =
            |object, metric, value, age| [self.cluster.clone(), latency.clone(), object, metric, value, age];
        if self.values.is_empty() {
            let none = String::new;
            return vec![row(none(), none(), format!("<{}>", self.outcome), none())];
        }
        let value = |value: &ReportedValue| {
            row(object_or_labels(value), value.metric.clone(), value.value.clone(), age(value.age_seconds))
        };
        self.values.iter().map(value).collect()
    }
}

impl Report {
    /// A report with the current time.
    pub(super) fn new(path: String, clusters: Vec<ClusterReport>) -> Self {
        let time = Timestamp::new(now(), 0).map(|time| time.to_string()).unwrap_or_default();
        Self { path, time, clusters }
    }

    /// The number of failed clusters.
    pub(super) fn failed(&self) -> usize {
        self.clusters.iter().filter(|cluster| cluster.failed).count()
    }

    /// The text of the report. With `repeated`, a table begins with its time, and JSON is on one line.
    pub(super) fn text(&self, output: Option<OutputFormat>, repeated: bool) -> String {
        match output {
            Some(OutputFormat::Json) => {
                let write = if repeated { serde_json::to_string } else { serde_json::to_string_pretty };
                write(self).expect("strings and numbers are valid JSON") + "\n"
            }
            None if repeated => format!("{}\n{}\n", self.time, self.table()),
            None => self.table(),
        }
    }

    fn table(&self) -> String {
        let heading = ["CLUSTER", "LATENCY", "OBJECT", "METRIC", "VALUE", "AGE"].map(str::to_owned);
        let rows = self.clusters.iter().flat_map(ClusterReport::rows);
        let mut text = table(&[heading].into_iter().chain(rows).collect::<Vec<_>>());
        let count = |outcome| self.clusters.iter().filter(|cluster| cluster.outcome == outcome).count();
        let mut line = format!("\n{} found, {} not found", count("Found"), count("NotFound"));
        for (count, description) in
            [(self.failed(), "failed"), (count(Cause::PullMode.name()), "in Pull mode")]
        {
            if count > 0 {
                write!(line, ", {count} {description}").expect("writing to a String succeeds");
            }
        }
        let messages = self.clusters.iter().filter(|cluster| !cluster.message.is_empty());
        let message = |cluster: &ClusterReport| format!("{} [{}]", cluster.message, cluster.outcome);
        let messages = messages.map(|cluster| [format!("  {}:", cluster.cluster), message(cluster)]);
        text += &format!("{line}\n");
        text + &table(&messages.collect::<Vec<_>>())
    }
}

/// The object of a value, or the labels of a series.
fn object_or_labels(value: &ReportedValue) -> String {
    match &value.object {
        Some(ReportedObject { namespace, name, .. }) if namespace.is_empty() => name.clone(),
        Some(ReportedObject { namespace, name, .. }) => format!("{namespace}/{name}"),
        None => {
            value.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        }
    }
}

fn age(seconds: Option<i64>) -> String {
    let Some(seconds) = seconds else { return String::new() };
    let sign = if seconds < 0 { "-" } else { "" };
    format!("{sign}{}", GoDuration::from(Duration::from_secs(seconds.unsigned_abs())))
}
