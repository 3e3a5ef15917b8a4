//! Results on stdout, progress on stderr.

use std::io::{IsTerminal as _, Write as _};

/// Prints a result. A closed pipe (`| head -1`) is not an error.
pub(super) fn print(result: &str) {
    let _ = try_print(result);
}

/// Prints a result. Returns false if the pipe is closed.
pub(super) fn try_print(result: &str) -> bool {
    let mut out = std::io::stdout();
    write!(out, "{result}").and_then(|()| out.flush()).is_ok()
}

/// Prints a progress line on stderr if it is a terminal. The next line replaces it; an empty text clears it.
pub(super) fn progress(text: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{text}");
        let _ = err.flush();
    }
}
