//! The binary: reads the command line and serves.

use std::process::ExitCode;

use karmada_metrics_adapter::app;
use karmada_metrics_adapter::cli::Cli;
use karmada_metrics_adapter::config::Config;
use karmada_metrics_adapter::process::{open_files, shutdown, telemetry};

fn main() -> ExitCode {
    let read = Cli::read(std::env::args_os()).and_then(|cli| {
        let ignored = cli.ignored().into_iter().map(str::to_owned).collect::<Vec<_>>();
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

fn run(config: Config, ignored: &[String]) -> anyhow::Result<()> {
    telemetry::init(&config.logging)?;
    if !ignored.is_empty() {
        tracing::info!(flags = ignored.join(","), "flags without a meaning here are accepted and ignored");
    }
    open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = shutdown::on_signal()?;
        app::serve(config, shutdown).await
    })
}
