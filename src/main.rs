//! The binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    karmada_metrics_adapter::run(std::env::args_os())
}
