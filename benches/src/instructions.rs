//! Instruction counts of the hot path by callgrind. They are equal in each run, independent of the load of the machine.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use karmada_metrics_adapter::testing::BodyFormat;
use tokio::process::Command;

use crate::fleet::Size;
use crate::scenario::Api;

/// The fleet of the counted query.
pub const SIZE: Size = Size::of(100, 50);
/// The counted cases: name, API, and format of the members' responses. All are merged into JSON.
pub const CASES: [(&str, Api, BodyFormat); 4] = [
    ("custom-metrics-from-json", Api::CustomMetrics, BodyFormat::Json),
    ("custom-metrics-from-protobuf", Api::CustomMetrics, BodyFormat::Protobuf),
    ("pod-metrics-from-json", Api::PodMetrics, BodyFormat::Json),
    ("pod-metrics-from-protobuf", Api::PodMetrics, BodyFormat::Protobuf),
];

/// The instructions of one query per case. The program `hot_path` runs the query.
///
/// # Errors
/// If valgrind or `hot_path` cannot be run.
pub async fn count(hot_path: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let mut counts = Vec::new();
    for (case, ..) in CASES {
        // The difference of two queries and one query excludes the start of the process and the creation of bodies.
        let (first, both) = (callgrind(hot_path, case, "1").await?, callgrind(hot_path, case, "2").await?);
        counts.push((case.to_owned(), both.saturating_sub(first)));
    }
    Ok(counts)
}

async fn callgrind(hot_path: &Path, case: &str, count: &str) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(hot_path)
        .args([case, count])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run valgrind (Debian's package: valgrind)")?;
    ensure!(output.status.success(), "valgrind failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, collected) =
        text.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind printed no count")?;
    Ok(collected.trim().parse()?)
}
