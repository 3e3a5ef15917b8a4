//! This process: what it logs, what it counts, how it ends.

pub mod budget;
pub mod expiry;
pub mod file;
pub mod metrics;
pub mod open_files;
pub mod rate;
pub mod shutdown;
pub mod telemetry;
pub mod work;
