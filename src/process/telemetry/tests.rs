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
    logged_as_asked(None, &Logging { format, verbosity }, events)
}

fn logged_as_asked(asked: Option<&str>, logging: &Logging, events: impl FnOnce()) -> String {
    let output = Output::default();
    let writer = output.clone();
    let filter = filter(asked, logging.verbosity).unwrap();
    tracing::subscriber::with_default(subscriber(logging, filter, false, move || writer.clone()), events);
    String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
}

/// Whether an event of that target and level is shown.
fn shows(verbosity: i32, target: &str, level: Level) -> bool {
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
fn low_levels_show_information_and_no_debugging() {
    for verbosity in [-1, 0, 1, 2, 3] {
        assert!(shows(verbosity, OURS, Level::INFO));
        assert!(shows(verbosity, "rustls::client", Level::INFO));
        assert!(!shows(verbosity, "kube_runtime::watcher", Level::WARN));
        assert!(!shows(verbosity, OURS, Level::DEBUG));
    }
}

#[test]
fn level_four_debugs_this_crate_only() {
    for verbosity in [4, 5] {
        assert!(shows(verbosity, OURS, Level::DEBUG));
        assert!(!shows(verbosity, OURS, Level::TRACE));
        assert!(!shows(verbosity, "hyper_util::client", Level::DEBUG));
    }
}

#[test]
fn level_six_debugs_the_libraries_below_too() {
    for verbosity in [6, 7] {
        for target in [OURS, "hyper_util::client", "rustls::client", "kube_runtime::watcher"] {
            assert!(shows(verbosity, target, Level::DEBUG), "{target}");
            assert!(!shows(verbosity, target, Level::TRACE), "{target}");
        }
        assert!(shows(verbosity, "kube_client::client::builder", Level::DEBUG));
        assert!(!shows(verbosity, "tower::buffer", Level::DEBUG));
    }
}

#[test]
fn level_eight_traces_everything() {
    for target in [OURS, "hyper_util::client", "tower::buffer"] {
        assert!(shows(8, target, Level::TRACE), "{target}");
        assert!(shows(10, target, Level::TRACE), "{target}");
    }
}

#[test]
fn a_response_body_that_kube_cannot_read_is_shown_at_no_level() {
    for verbosity in 0..=10 {
        assert!(!shows(verbosity, "kube_client::client", Level::WARN), "{verbosity}");
    }
    let logging = Logging { format: LogFormat::Text, verbosity: 0 };
    for asked in ["trace", "kube_client=trace", "kube_client::client=warn"] {
        let body = || tracing::warn!(target: "kube_client::client", "a body");
        assert_eq!(logged_as_asked(Some(asked), &logging, body), "", "{asked}");
    }
}

#[test]
fn what_the_environment_asks_for_wins_unless_it_is_empty() {
    let logging = Logging { format: LogFormat::Text, verbosity: 0 };
    let shown = |asked| logged_as_asked(Some(asked), &logging, || tracing::debug!(target: OURS, "seen"));
    assert!(shown("debug").ends_with("seen\n"));
    assert_eq!(shown(""), "");
    let refused = filter(Some("karmada_metrics_adapter=loud"), 0).map_err(TelemetryError::from);
    assert!(refused.unwrap_err().to_string().starts_with("RUST_LOG is not a filter"));
}

#[test]
fn a_text_line_starts_with_the_time_in_utc_and_names_its_target_from_level_two() {
    let terse = logged(1, LogFormat::Text, || tracing::info!(target: OURS, cluster = "member1", "joined"));
    let (time, rest) = terse.split_once(' ').unwrap();
    assert!(time.contains('T') && time.ends_with('Z'), "{time}");
    assert_eq!(rest, " INFO joined cluster=\"member1\"\n");
    let wordy = logged(2, LogFormat::Text, || tracing::info!(target: OURS, "joined"));
    assert!(wordy.ends_with(" INFO karmada_metrics_adapter::gather: joined\n"), "{wordy}");
}

#[test]
fn a_json_line_is_one_object_with_the_message_at_its_top() {
    let line = logged(0, LogFormat::Json, || tracing::warn!(cluster = "member1", "left\nout"));
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line.matches('\n').count(), 1);
    assert_eq!(event["level"], "WARN");
    assert_eq!(event["message"], "left\nout");
    assert_eq!(event["cluster"], "member1");
    assert!(event["timestamp"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_message_with_line_breaks_stays_on_one_line() {
    let line = logged(0, LogFormat::Text, || tracing::info!("a reply\r\n2023-01-01T00:00:00Z  INFO forged"));
    assert!(line.ends_with(" INFO a reply\\r\\n2023-01-01T00:00:00Z  INFO forged\n"), "{line}");
}
