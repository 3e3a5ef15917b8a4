use std::sync::{Arc, Mutex};

use tracing::Level;

use super::*;

const OURS: &str = "karmada_metrics_adapter::gather";

#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(verbosity: i32, format: LogFormat, events: impl FnOnce()) -> String {
    logged_with(None, &Logging { format, verbosity }, events)
}

fn logged_with(rust_log: Option<&str>, logging: &Logging, events: impl FnOnce()) -> String {
    let output = Output::default();
    let writer = output.clone();
    let filter = filter(rust_log, logging.verbosity).unwrap();
    tracing::subscriber::with_default(subscriber(logging, filter, false, move || writer.clone()), events);
    String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
}

/// Whether an event of this target and level is logged.
fn is_logged(verbosity: i32, target: &str, level: Level) -> bool {
    macro_rules! emit {
        ($($name:literal)*) => {
            match (target, level) {
                $(
                    ($name, Level::TRACE) => tracing::trace!(target: $name, "seen"),
                    ($name, Level::DEBUG) => tracing::debug!(target: $name, "seen"),
                    ($name, Level::INFO) => tracing::info!(target: $name, "seen"),
                    ($name, _) => tracing::warn!(target: $name, "seen"),
                )*
                _ => unreachable!("{target}"),
            }
        };
    }
    !logged(verbosity, LogFormat::Text, || {
        emit!("karmada_metrics_adapter::gather" "hyper_util::client" "rustls::client" "kube_runtime::watcher"
            "kube_client::client" "kube_client::client::builder" "tower::buffer");
    })
    .is_empty()
}

#[test]
fn low_levels_log_info_but_not_debug() {
    for verbosity in [-1, 0, 1, 2, 3] {
        assert!(is_logged(verbosity, OURS, Level::INFO));
        assert!(is_logged(verbosity, "rustls::client", Level::INFO));
        assert!(!is_logged(verbosity, "kube_runtime::watcher", Level::WARN));
        assert!(!is_logged(verbosity, OURS, Level::DEBUG));
    }
}

#[test]
fn level_four_logs_debug_of_this_crate_only() {
    for verbosity in [4, 5] {
        assert!(is_logged(verbosity, OURS, Level::DEBUG));
        assert!(!is_logged(verbosity, OURS, Level::TRACE));
        assert!(!is_logged(verbosity, "hyper_util::client", Level::DEBUG));
    }
}

#[test]
fn level_six_logs_debug_of_libraries_too() {
    for verbosity in [6, 7] {
        for target in [OURS, "hyper_util::client", "rustls::client", "kube_runtime::watcher"] {
            assert!(is_logged(verbosity, target, Level::DEBUG), "{target}");
            assert!(!is_logged(verbosity, target, Level::TRACE), "{target}");
        }
        assert!(is_logged(verbosity, "kube_client::client::builder", Level::DEBUG));
        assert!(!is_logged(verbosity, "tower::buffer", Level::DEBUG));
    }
}

#[test]
fn level_eight_logs_trace_of_everything() {
    for target in [OURS, "hyper_util::client", "tower::buffer"] {
        assert!(is_logged(8, target, Level::TRACE), "{target}");
        assert!(is_logged(10, target, Level::TRACE), "{target}");
    }
}

#[test]
fn invalid_response_bodies_are_never_logged() {
    for verbosity in 0..=10 {
        assert!(!is_logged(verbosity, "kube_client::client", Level::WARN), "{verbosity}");
    }
    let logging = Logging { format: LogFormat::Text, verbosity: 0 };
    for rust_log in ["trace", "kube_client=trace", "kube_client::client=warn"] {
        let body = || tracing::warn!(target: "kube_client::client", "a body");
        assert_eq!(logged_with(Some(rust_log), &logging, body), "", "{rust_log}");
    }
}

#[test]
fn rust_log_replaces_verbosity_unless_it_is_empty() {
    let logging = Logging { format: LogFormat::Text, verbosity: 0 };
    let logged_debug =
        |rust_log| logged_with(Some(rust_log), &logging, || tracing::debug!(target: OURS, "seen"));
    assert!(logged_debug("debug").ends_with("seen\n"));
    assert_eq!(logged_debug(""), "");
    let invalid = filter(Some("karmada_metrics_adapter=loud"), 0).map_err(TelemetryError::from);
    assert!(invalid.unwrap_err().to_string().starts_with("RUST_LOG is not a filter"));
}

#[test]
fn text_line_has_utc_time_and_from_level_two_the_target() {
    let terse = logged(1, LogFormat::Text, || tracing::info!(target: OURS, cluster = "member1", "joined"));
    let (time, rest) = terse.split_once(' ').unwrap();
    assert!(time.contains('T') && time.ends_with('Z'), "{time}");
    assert_eq!(rest, " INFO joined cluster=\"member1\"\n");
    let wordy = logged(2, LogFormat::Text, || tracing::info!(target: OURS, "joined"));
    assert!(wordy.ends_with(" INFO karmada_metrics_adapter::gather: joined\n"), "{wordy}");
}

#[test]
fn json_line_is_one_flat_object() {
    let line = logged(0, LogFormat::Json, || tracing::warn!(cluster = "member1", "left\nout"));
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line.matches('\n').count(), 1);
    assert_eq!(event["level"], "WARN");
    assert_eq!(event["message"], "left\nout");
    assert_eq!(event["cluster"], "member1");
    assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn message_with_line_breaks_is_one_line() {
    let line =
        logged(0, LogFormat::Text, || tracing::info!("a response\r\n2023-01-01T00:00:00Z  INFO forged"));
    assert!(line.ends_with(" INFO a response\\r\\n2023-01-01T00:00:00Z  INFO forged\n"), "{line}");
}
