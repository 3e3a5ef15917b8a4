//! Commands: what the process does instead of serving. A result goes to stdout; an error is one line, which the binary
//! says on stderr.

mod certs;
mod check;
mod output;
mod query;
mod table;

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
