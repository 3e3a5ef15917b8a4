//! Results on stdout, progress on stderr.

use std::io::{IsTerminal as _, Write as _};

/// A reader that has gone (`| head -1`) is no reason to fail.
pub(super) fn print(result: &str) {
    let _ = is_read(result);
}

/// Prints a result and says whether its reader is still there.
pub(super) fn is_read(result: &str) -> bool {
    let mut out = std::io::stdout();
    write!(out, "{result}").and_then(|()| out.flush()).is_ok()
}

/// One line on stderr, if somebody watches, that is written over by the next; an empty one takes it away.
pub(super) fn progress(text: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{text}");
        let _ = err.flush();
    }
}
