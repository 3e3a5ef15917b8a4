//! `certs`: issues serving certificates for the aggregation layer, and prints existing certificates.

mod ca;
mod files;
mod issue;
mod show;
mod text;

use crate::cli::commands::CertsCommand;

/// Runs `certs issue` or `certs show`.
///
/// # Errors
/// The error of the command.
pub async fn run(command: CertsCommand) -> anyhow::Result<()> {
    match command {
        CertsCommand::Issue(flags) => issue::run(&flags)?,
        CertsCommand::Show(flags) => show::run(&flags).await?,
    }
    Ok(())
}
