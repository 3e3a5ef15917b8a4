//! Signals that stop a program.

use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGINT (Ctrl-C), SIGTERM or SIGHUP (terminal closed) and returns the exit code that a shell expects. Signals count
/// from this call on.
///
/// # Errors
/// If no signal handler can be installed.
pub fn interrupted() -> io::Result<impl Future<Output = ExitCode>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => ExitCode::from(130),
            _ = terminate.recv() => ExitCode::from(143),
            _ = hangup.recv() => ExitCode::from(129),
        }
    })
}
