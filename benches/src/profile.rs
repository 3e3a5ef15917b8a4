//! Shares of a program's CPU time, from samples of perf.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use crate::load::{Connection, Load};

/// Samples per second.
const FREQUENCY: &str = "299";
/// Duration of the recording in seconds.
const SECONDS: &str = "10";
/// Bytes of the stack in each sample, for finding callers.
const STACK: &str = "--call-graph=dwarf,16384";

/// The crates of each part of a program. Code that is not listed here (allocator, copies, `std`, containers) counts for its
/// caller.
const PARTS: [(&str, &[&str]); 4] = [
    ("TLS", &["rustls", "tokio_rustls"]),
    ("HTTP", &["hyper", "hyper_util", "h2", "http", "http_body_util", "futures_channel", "axum", "tower"]),
    ("JSON library", &["serde_json", "memchr"]),
    (
        "own code",
        &[
            "karmada_metrics_adapter",
            "bench",
            "futures_util",
            "futures_core",
            "moka",
            "dashmap",
            "prometheus_client",
            "tracing_core",
        ],
    ),
];
/// The async runtime also works for its callers, such as hyper's channels and h2's frame reader. Without a caller from another
/// part it counts as its own part.
const RUNTIME: (&str, &[&str]) = ("async runtime", &["tokio", "tokio_util", "mio"]);
const OTHER: &str = "other";

/// The shares of a process' CPU time by part, in percent, under this load.
///
/// # Errors
/// If perf cannot be run, or a response is not as expected.
pub async fn shares(
    pid: u32,
    connection: &Connection,
    load: &Load,
    length: usize,
) -> anyhow::Result<Vec<(String, f64)>> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("perf.data");
    let mut recording = Command::new("perf")
        .args(["record", "-q", "-F", FREQUENCY, STACK, "-p", &pid.to_string(), "-o"])
        .arg(&file)
        .args(["--", "sleep", SECONDS])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run perf (Debian's package: linux-perf)")?;
    let ended = loop {
        connection.run(load, 4 * load.clients, length).await?;
        if let Some(status) = recording.try_wait()? {
            break status;
        }
    };
    ensure!(ended.success(), "perf record failed: {ended}");
    by_part(&script(&file).await?)
}

async fn script(file: &Path) -> anyhow::Result<String> {
    let script = Command::new("perf")
        .args(["script", "--no-inline", "-F", "ip,sym,dso", "-i"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(script.status.success(), "perf script failed: {}", String::from_utf8_lossy(&script.stderr));
    Ok(String::from_utf8_lossy(&script.stdout).into_owned())
}

/// The shares by part, from the output of `perf script`: one block of lines per sample, innermost function first.
fn by_part(script: &str) -> anyhow::Result<Vec<(String, f64)>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let samples = script.split("\n\n").filter(|sample| !sample.trim().is_empty());
    for sample in samples {
        let mut parts = sample.lines().filter_map(part);
        let caller = parts.clone().find(|part| *part != RUNTIME.0);
        *counts.entry(caller.or_else(|| parts.next()).unwrap_or(OTHER)).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    ensure!(all > 0, "perf took no samples");
    let mut shares: Vec<_> = counts
        .into_iter()
        .map(|(part, count)| (part.to_owned(), 100.0 * count as f64 / all as f64))
        .collect();
    shares.sort_by(|one, other| other.1.total_cmp(&one.1));
    Ok(shares)
}

/// The part of a line `ADDRESS FUNCTION (FILE)`.
fn part(line: &str) -> Option<&'static str> {
    let (_, function) = line.trim().split_once(' ')?;
    let (function, file) = function.rsplit_once(" (")?;
    if file.starts_with("[kernel") || file.starts_with("[vdso") {
        return Some("kernel");
    }
    // The C library of rustls, for example `aws_lc_0_47_0_EVP_AEAD_CTX_open`.
    if function.starts_with("aws_lc_") {
        return Some("TLS");
    }
    // For example `<h2::frame::Data as core::fmt::Debug>::fmt` or `core::ptr::drop_in_place<h2::frame::Data>`.
    let mut paths = function.split(['<', ' ', '&', '(', ',']);
    paths.find_map(|path| {
        let (name, _) = path.split_once("::")?;
        PARTS.iter().chain([&RUNTIME]).find(|(_, crates)| crates.contains(&name)).map(|(part, _)| *part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_counts_for_its_innermost_part() {
        let script = "\
            \n\t 1 malloc (/usr/lib/libc.so.6)\n\t 2 bytes::bytes_mut::BytesMut::reserve_inner (/bin/floor)\
            \n\t 3 <h2::codec::framed_read::FramedRead<T> as futures_core::stream::Stream>::poll_next (/bin/floor)\n\
            \n\t 4 tcp_sendmsg ([kernel.kallsyms])\n\t 5 h2::proto::flush (/bin/floor)\n\
            \n\t 6 aws_lc_0_47_0_EVP_AEAD_CTX_open (/bin/floor)\n\
            \n\t 7 core::ptr::drop_in_place<hyper::proto::h2::client::H2ClientFuture<tokio::net::tcp::TcpStream>> (/bin/floor)\n\
            \n\t 8 <tokio_util::codec::framed_impl::FramedImpl<T,U,R> as futures_core::stream::Stream>::poll_next (/bin/floor)\
            \n\t 9 h2::proto::connection::Connection<T,P,B>::poll (/bin/floor)\n\
            \n\t 10 tokio::runtime::scheduler::current_thread::Context::run_task (/bin/floor)\n\n";
        let shares = by_part(script).unwrap();
        assert_eq!(
            shares,
            [("HTTP", 3.0), ("TLS", 1.0), ("async runtime", 1.0), ("kernel", 1.0)]
                .map(|(part, samples)| (part.to_owned(), 100.0 * samples / 6.0))
        );
    }
}
