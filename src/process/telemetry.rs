//! Logging: one line for each event on stderr, as text or as JSON. Timestamps are UTC.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, Logging};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` is malformed.
    #[error("RUST_LOG is not a filter such as info,karmada_metrics_adapter=debug: correct or unset it")]
    Filter(#[from] ParseError),
    /// Logging was set up before. A process can set it up only once.
    #[error("logging is set up already: call init once")]
    AlreadySet(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Log lines that could not be written. There is one log in the process, and so one counter.
static LOST_LINES: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Registers the counter of lost log lines.
pub fn register(registry: &mut Registry) {
    let help = "Log lines that could not be written to stderr";
    registry.register("karmada_metrics_adapter_lost_log_lines", help, LOST_LINES.clone());
}

/// Writes all events from now on to stderr. `RUST_LOG`, if set, is the only filter: the verbosity then has no effect.
///
/// # Errors
///
/// If `RUST_LOG` is malformed, or at a second call.
pub fn init(logging: &Logging) -> Result<(), TelemetryError> {
    let rust_log = std::env::var("RUST_LOG").ok();
    let filter = filter(rust_log.as_deref(), logging.verbosity)?;
    let ansi = io::stderr().is_terminal();
    tracing::subscriber::set_global_default(subscriber(logging, filter, ansi, io::stderr))
        .map_err(|error| TelemetryError::AlreadySet(error.into()))
}

/// The filter in `RUST_LOG`, otherwise the filter for klog's verbosity. With both filters, `kube_client::client` logs only
/// errors. Its warnings contain the body of each response that kube cannot parse, and the body may contain a Secret.
fn filter(rust_log: Option<&str>, verbosity: i32) -> Result<EnvFilter, ParseError> {
    let rust_log = rust_log.filter(|text| !text.is_empty()).unwrap_or(directives(verbosity));
    EnvFilter::try_new(format!("{rust_log},kube_client::client=error"))
}

/// The filter for klog's verbosity. The caller logs a failure of the control plane once. kube would log it again at each try,
/// so kube's own messages are turned off at low levels.
fn directives(verbosity: i32) -> &'static str {
    match verbosity {
        ..=3 => "info,kube_client::client::builder=off,kube_runtime::watcher=error",
        4..=5 => concat!(
            "info,karmada_metrics_adapter=debug,kube_client::client::builder=off,",
            "kube_runtime::watcher=error"
        ),
        6..=7 => concat!(
            "info,karmada_metrics_adapter=debug,hyper=debug,rustls=debug,kube=debug,",
            "kube_client::client::builder=debug"
        ),
        8.. => "trace,kube_client::client::builder=trace",
    }
}

fn subscriber(
    logging: &Logging,
    filter: EnvFilter,
    ansi: bool,
    output: impl for<'a> MakeWriter<'a> + Send + Sync + 'static,
) -> Box<dyn tracing::Subscriber + Send + Sync> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(logging.verbosity >= 2)
        .with_ansi(ansi && logging.format == LogFormat::Text)
        // The subscriber would report a failed write on stderr, which panics if stderr is closed.
        .log_internal_errors(false)
        .with_writer(SingleLineFormat(output));
    match logging.format {
        LogFormat::Text => Box::new(lines.compact().finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_span_list(false).finish()),
    }
}

/// Writes each event on one line. A member's message in an event may contain line breaks; they must not forge a log line.
struct SingleLineFormat<M>(M);

struct SingleLineWriter<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for SingleLineFormat<M> {
    type Writer = SingleLineWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        SingleLineWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for SingleLineWriter<W> {
    /// The formatter writes each event with one call. A line that cannot be written (a full disk, a closed pipe) is counted and
    /// dropped: the task that logs must not fail.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if self.0.write_all(&one_line(event)).is_err() {
            LOST_LINES.inc();
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn one_line(event: &[u8]) -> Cow<'_, [u8]> {
    let text = event.strip_suffix(b"\n").unwrap_or(event);
    if !text.contains(&b'\n') && !text.contains(&b'\r') {
        return event.into();
    }
    let mut line = Vec::with_capacity(event.len() + 16);
    for &byte in text {
        match byte {
            b'\n' => line.extend_from_slice(br"\n"),
            b'\r' => line.extend_from_slice(br"\r"),
            _ => line.push(byte),
        }
    }
    line.push(b'\n');
    line.into()
}
