//! This process: what it logs, what it counts, how it ends.

pub mod file;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
pub mod work;
