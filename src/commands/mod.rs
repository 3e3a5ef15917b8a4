//! Commands: what the process does instead of serving. A result goes to stdout; an error is one line, which the binary
//! says on stderr.

mod certs;
mod check;
mod query;
mod table;

use std::io::{IsTerminal as _, Write as _};

use crate::cli::commands::Command;
use crate::transport::environment::Proxies;

/// Runs a command to its end.
///
/// # Errors
/// If it could not do its work, or if what it has found (and printed) is not in order.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Certs(command) => certs::run(command).await,
        Command::Check(order) => {
            warn_of_environment();
            check::run(order).await
        }
        Command::Query(order) => {
            warn_of_environment();
            query::run(&order).await
        }
    }
}

/// A command has no log.
fn warn_of_environment() {
    for ignored in Proxies::of_environment().ignored() {
        eprintln!("karmada-metrics-adapter: ignored: {ignored}");
    }
}

/// A reader that has gone (`| head -1`) is no reason to fail.
fn print(result: &str) {
    let _ = is_read(result);
}

/// Prints a result and says whether its reader is still there.
fn is_read(result: &str) -> bool {
    let mut out = std::io::stdout();
    write!(out, "{result}").and_then(|()| out.flush()).is_ok()
}

/// One line on stderr, if somebody watches, that is written over by the next; an empty one takes it away.
fn progress(text: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K{text}");
        let _ = err.flush();
    }
}
