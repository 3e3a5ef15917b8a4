//! Results on stdout, progress on stderr.

use std::io::{self, IsTerminal as _, Write as _};

/// Prints a result.
///
/// # Errors
/// If stdout is closed or its disk is full.
pub(super) fn print(result: &str) -> io::Result<()> {
    let mut out = io::stdout();
    write!(out, "{result}").and_then(|()| out.flush())
}

/// Prints a progress line on stderr if it is a terminal. The next line replaces it; an empty text clears it.
pub(super) fn progress(text: &str) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{text}");
        let _ = err.flush();
    }
}
