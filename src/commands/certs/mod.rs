//! `certs`: serving certificates that the aggregation layer accepts, and what is in those that are there.

mod ca;
mod files;
mod issue;
mod show;
mod text;

use crate::cli::commands::CertsCommand;

/// # Errors
/// As the commands below.
pub async fn run(command: CertsCommand) -> anyhow::Result<()> {
    match command {
        CertsCommand::Issue(order) => issue::run(&order)?,
        CertsCommand::Show(order) => show::run(&order).await?,
    }
    Ok(())
}
