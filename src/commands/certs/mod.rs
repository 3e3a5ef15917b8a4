//! `certs`: serving certificates that the aggregation layer accepts, and what is in those that are there.

mod authority;
mod files;
mod issue;
mod show;
mod text;

use crate::cli::commands::Certs;

/// # Errors
/// As the commands below.
pub async fn run(command: Certs) -> anyhow::Result<()> {
    match command {
        Certs::Issue(order) => issue::run(&order)?,
        Certs::Show(order) => show::run(&order).await?,
    }
    Ok(())
}
