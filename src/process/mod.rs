//! Services of the process: logging, metrics, budgets, file reload, shutdown.

pub mod budget;
pub mod expiry;
pub mod file;
pub mod metrics;
pub mod open_files;
pub mod rate;
pub mod shutdown;
pub mod telemetry;
pub mod work;
