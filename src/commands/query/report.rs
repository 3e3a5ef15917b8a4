//! What came of a query, as a table or as JSON.

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

/// What all clusters made of a query.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    path: String,
    time: String,
    /// In the order of their names.
    pub(super) clusters: Vec<ClusterReport>,
}

/// What one cluster made of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterReport {
    pub(super) cluster: String,
    /// `Found`, `NotFound`, or the cause of a failure, or `PullMode`, which is none.
    outcome: &'static str,
    failed: bool,
    /// Why it failed or was not asked.
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_milliseconds: Option<u64>,
    values: Vec<ReportedValue>,
}

impl ClusterReport {
    /// One that was asked, or would have been if it were Ready.
    pub(super) fn answered(
        cluster: &str,
        outcome: &Outcome,
        elapsed: Duration,
        values: Vec<ReportedValue>,
    ) -> Self {
        // A member may pass over a selector, and then nothing is left of its page.
        let nothing = matches!(outcome, Outcome::Page(_)) && values.is_empty();
        let outcome = if nothing { &Outcome::NotFound } else { outcome };
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

    /// One that is no member, which is a failure unless it is not meant to be one.
    pub(super) fn outside(cluster: &str, lack: &NoCredentials) -> Self {
        Self {
            cluster: cluster.to_owned(),
            outcome: lack.cause.name(),
            failed: lack.cause != Cause::PullMode,
            message: lack.message.clone(),
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
            row(whose(value), value.metric.clone(), value.value.clone(), age(value.age_seconds))
        };
        self.values.iter().map(value).collect()
    }
}

impl Report {
    /// What was asked just now.
    pub(super) fn new(path: String, clusters: Vec<ClusterReport>) -> Self {
        let time = Timestamp::new(now(), 0).map(|time| time.to_string()).unwrap_or_default();
        Self { path, time, clusters }
    }

    /// How many clusters have failed.
    pub(super) fn failed(&self) -> usize {
        self.clusters.iter().filter(|cluster| cluster.failed).count()
    }

    /// The report's text; of a report that is `one_of_many` each has its time, or in JSON its line.
    pub(super) fn text(&self, output: Option<OutputFormat>, one_of_many: bool) -> String {
        match output {
            Some(OutputFormat::Json) => {
                let write = if one_of_many { serde_json::to_string } else { serde_json::to_string_pretty };
                write(self).expect("texts and numbers are JSON") + "\n"
            }
            None if one_of_many => format!("{}\n{}\n", self.time, self.table()),
            None => self.table(),
        }
    }

    fn table(&self) -> String {
        let heading = ["CLUSTER", "LATENCY", "OBJECT", "METRIC", "VALUE", "AGE"].map(str::to_owned);
        let rows = self.clusters.iter().flat_map(ClusterReport::rows);
        let mut text = table(&[heading].into_iter().chain(rows).collect::<Vec<_>>());
        let count = |outcome| self.clusters.iter().filter(|cluster| cluster.outcome == outcome).count();
        let mut line = format!("\n{} have it, {} do not", count("Found"), count("NotFound"));
        for (count, what) in [(self.failed(), "failed"), (count(Cause::PullMode.name()), "are no members")] {
            if count > 0 {
                write!(line, ", {count} {what}").expect("text takes whatever is written");
            }
        }
        let messages = self.clusters.iter().filter(|cluster| !cluster.message.is_empty());
        let message = |cluster: &ClusterReport| format!("{} [{}]", cluster.message, cluster.outcome);
        let messages = messages.map(|cluster| [format!("  {}:", cluster.cluster), message(cluster)]);
        text += &format!("{line}\n");
        text + &table(&messages.collect::<Vec<_>>())
    }
}

/// The object, or the labels of a series.
fn whose(value: &ReportedValue) -> String {
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
