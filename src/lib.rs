//! `karmada-metrics-adapter`: one metrics API for all member clusters of a Karmada control plane.
//!
//! The layers, lowest first: `api`, `query`, `config`, `merge`, `cli`, `process`, `transport`, `kubeconfig`, `control`,
//! `member`, `fleet`, `gather`, `response`, `access`, `server`, `app`, `commands`. A module uses only modules before it.
//! `tests/it/layers.rs` checks this. `docs/architecture.md` describes how a request passes through the layers.

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
use std::io::{self, Write as _};
use std::process::ExitCode;

use cli::{Cli, Task};
use process::{open_files, shutdown, telemetry};

/// The `User-Agent` of requests to API servers.
const USER_AGENT: &str = concat!("karmada-metrics-adapter/v", env!("CARGO_PKG_VERSION"));

/// Runs the process with these arguments. Returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let task = match Cli::read(arguments).and_then(|cli| Ok(cli.task()?)) {
        Ok(task) => task,
        Err(exit) => return exit.report(),
    };
    match perform(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, the exit code still reports the failure.
            let _ = writeln!(io::stderr(), "karmada-metrics-adapter: {error:#}");
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
    // Does not wait for blocking tasks, such as a DNS lookup that hangs.
    runtime.shutdown_background();
    result
}
