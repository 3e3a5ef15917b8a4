//! What the process logs: one line an event on stderr, as text or as JSON. Timestamps are UTC.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{LogFormat, Logging};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The environment asks for something that is no filter.
    #[error("RUST_LOG is not a filter such as info,karmada_metrics_adapter=debug: unset it or mend it")]
    Filter(#[from] ParseError),
    /// It was set up before, which may happen once in a process.
    #[error("logging is set up already: call init once")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Makes stderr the place where events go from here on. `RUST_LOG`, when set, decides alone what is shown.
///
/// # Errors
///
/// A `RUST_LOG` that cannot be read, and a second call.
pub fn init(logging: &Logging) -> Result<(), TelemetryError> {
    let asked = std::env::var("RUST_LOG").ok();
    let filter = filter(asked.as_deref(), logging.verbosity)?;
    let ansi = io::stderr().is_terminal();
    tracing::subscriber::set_global_default(subscriber(logging, filter, ansi, io::stderr))
        .map_err(|error| TelemetryError::Twice(error.into()))
}

/// What `RUST_LOG` asks for, else what klog's level shows. Values of Secrets never reach a log, whoever asks: where
/// kube cannot read a response it warns with the body, so that module is held to errors.
fn filter(asked: Option<&str>, verbosity: i32) -> Result<EnvFilter, ParseError> {
    let asked = asked.filter(|text| !text.is_empty()).unwrap_or(directives(verbosity));
    EnvFilter::try_new(format!("{asked},kube_client::client=error"))
}

/// What fails between us and the control plane is said once by whoever asked, not again by kube at each attempt.
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
        .with_writer(SingleLineFormat(output));
    match logging.format {
        LogFormat::Text => Box::new(lines.compact().finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_span_list(false).finish()),
    }
}

/// Keeps an event on one line, whatever a member's message in it holds, so that no reply can forge a line.
struct SingleLineFormat<M>(M);

struct SingleLineWriter<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for SingleLineFormat<M> {
    type Writer = SingleLineWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        SingleLineWriter(self.0.make_writer())
    }
}

impl<W: Write> Write for SingleLineWriter<W> {
    /// The formatter writes an event in one piece.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(&one_line(event))?;
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
