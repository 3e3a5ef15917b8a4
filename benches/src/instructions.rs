//! Instructions of the hot path, counted by callgrind: the same on each run, whatever else the machine does.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use karmada_metrics_adapter::testing::BodyFormat;
use tokio::process::Command;

use crate::fleet::Size;
use crate::scenario::Api;

/// The fleet whose query is counted.
pub const SIZE: Size = Size::of(100, 50);
/// What is counted: a name, the API, and what the members answer in. All are written in JSON.
pub const CASES: [(&str, Api, BodyFormat); 4] = [
    ("custom-metrics-from-json", Api::CustomMetrics, BodyFormat::Json),
    ("custom-metrics-from-protobuf", Api::CustomMetrics, BodyFormat::Protobuf),
    ("pod-metrics-from-json", Api::PodMetrics, BodyFormat::Json),
    ("pod-metrics-from-protobuf", Api::PodMetrics, BodyFormat::Protobuf),
];

/// The instructions of one query of each case, which `hot_path` makes.
///
/// # Errors
/// If valgrind or `hot_path` cannot be run.
pub async fn count(hot_path: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let mut counts = Vec::new();
    for (case, ..) in CASES {
        // What a second query takes more, without the start of the process and the making of bodies.
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
        .context("valgrind cannot be run (Debian's package: valgrind)")?;
    ensure!(output.status.success(), "valgrind failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stderr);
    let (_, collected) =
        text.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind printed no count")?;
    Ok(collected.trim().parse()?)
}
