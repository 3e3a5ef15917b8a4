//! Requests to end.

use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Waits for Ctrl-C, a request to end or the end of the terminal, from now on, and gives the exit code that a shell expects
/// of it.
///
/// # Errors
/// If signals cannot be awaited.
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
