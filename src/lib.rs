//! `karmada-metrics-adapter`: one metrics API over all member clusters of a Karmada control plane.
//!
//! The layers, lowest first: `api`, `query`, `config`, `merge`, `cli`, `process`, `transport`, `kubeconfig`, `control`, `member`,
//! `fleet`, `gather`, `response`, `access`, `server`, `app`, `commands`. A module uses only those before it, which
//! `tests/it/layers.rs` checks; `docs/architecture.md` shows how a request goes through them.

// What a module shows to others; see clippy.toml.
#![warn(clippy::missing_docs_in_private_items)]

mod access;
mod api;
mod app;
mod cli;
mod commands;
mod config;
mod control;
mod fleet;
mod gather;
mod kubeconfig;
mod member;
mod merge;
mod process;
mod query;
mod response;
mod server;
#[doc(hidden)]
pub mod testing;
mod transport;

use std::ffi::OsString;
use std::process::ExitCode;

use cli::{Cli, Task};
use process::{open_files, shutdown, telemetry};

/// What this process calls itself where it asks others.
const USER_AGENT: &str = concat!("karmada-metrics-adapter/v", env!("CARGO_PKG_VERSION"));

/// Does what the command line says, to the end of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let task = match Cli::read(arguments).and_then(|cli| Ok(cli.task()?)) {
        Ok(task) => task,
        Err(stop) => return stop.report(),
    };
    match perform(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("karmada-metrics-adapter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves, or runs a command.
fn perform(task: Task) -> anyhow::Result<()> {
    if let Task::Serve(config, ignored) = &task {
        telemetry::init(&config.logging)?;
        ignored.log();
        open_files::raise();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match task {
            Task::Serve(config, _) => app::serve(*config, shutdown::on_signal()?).await,
            Task::Run(command) => commands::run(command).await,
        }
    });
    // A resolver that hangs would be waited for.
    runtime.shutdown_background();
    result
}
