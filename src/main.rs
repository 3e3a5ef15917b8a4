//! The binary: reads the command line and does what it says.

use std::process::ExitCode;

use karmada_metrics_adapter::cli::{Cli, Task};
use karmada_metrics_adapter::process::{open_files, shutdown, telemetry};
use karmada_metrics_adapter::{app, commands};

fn main() -> ExitCode {
    let task = match Cli::read(std::env::args_os()).and_then(|cli| Ok(cli.task()?)) {
        Ok(task) => task,
        Err(stop) => return stop.report(),
    };
    match run(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("karmada-metrics-adapter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
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
