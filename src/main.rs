//! The binary: reads the command line and serves, unless something else was asked for.

use std::process::ExitCode;

use karmada_metrics_adapter::app;
use karmada_metrics_adapter::cli::{Cli, Ignored};
use karmada_metrics_adapter::config::Config;
use karmada_metrics_adapter::process::{open_files, shutdown, telemetry};

fn main() -> ExitCode {
    let read = Cli::read(std::env::args_os()).and_then(|cli| {
        let ignored = cli.ignored().clone();
        Ok((Config::try_from(cli)?, ignored))
    });
    let (config, ignored) = match read {
        Ok(read) => read,
        Err(stop) => return stop.report(),
    };
    match run(config, &ignored) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("karmada-metrics-adapter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, ignored: &Ignored) -> anyhow::Result<()> {
    telemetry::init(&config.logging)?;
    ignored.log();
    open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = shutdown::on_signal()?;
        app::serve(config, shutdown).await
    })
}
