//! The commands `certs`, `check` and `query`. A command prints its result on stdout. Its error is one line, which the
//! binary prints on stderr.

mod certs;
mod check;
mod output;
mod query;
mod table;

use std::io::{self, Write as _};

use crate::cli::commands::Command;
use crate::transport::environment::Proxies;

/// Runs a command.
///
/// # Errors
/// If the command failed, or if it found and printed a problem.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Certs(command) => certs::run(command).await,
        Command::Check(flags) => {
            warn_of_ignored_proxies();
            check::run(flags).await
        }
        Command::Query(flags) => {
            warn_of_ignored_proxies();
            query::run(&flags).await
        }
    }
}

/// Prints ignored proxy settings on stderr, because commands have no log.
fn warn_of_ignored_proxies() {
    for ignored in Proxies::from_environment().ignored() {
        let _ = writeln!(io::stderr(), "karmada-metrics-adapter: ignored: {ignored}");
    }
}
