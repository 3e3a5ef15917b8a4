//! Commands: what the process does instead of serving. A result goes to stdout; an error is one line, which the binary
//! says on stderr.

mod certs;
mod check;
mod table;

use std::io::Write as _;

use crate::cli::commands::Command;

/// Runs a command to its end.
///
/// # Errors
/// If it could not do its work, or if what it has found (and printed) is not in order.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Certs(command) => certs::run(command).await,
        Command::Check(order) => check::run(order).await,
    }
}

/// A reader that has gone (`| head -1`) is no reason to fail.
fn print(result: &str) {
    let _ = write!(std::io::stdout(), "{result}");
}
