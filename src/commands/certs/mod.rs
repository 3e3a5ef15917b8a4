//! `certs`: serving certificates that the aggregation layer accepts, and what is in those that are there.

mod authority;
mod files;
mod issue;
mod show;

use crate::api::time::Timestamp;
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

/// The name by which the aggregation layer asks for a Service, whatever its address.
fn service_name(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc")
}

/// A moment, in seconds since 1970, as RFC 3339 has it.
fn date(seconds: i64) -> String {
    Timestamp::new(seconds, 0).map_or_else(|| seconds.to_string(), |at| at.to_string())
}
