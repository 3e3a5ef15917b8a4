//! Benchmarks of karmada-metrics-adapter: the release binary, compared with a floor and the reference adapter.
//!
//! `docs/performance.md` describes the measurements and has the results.

// Scenarios and the fleet.
pub mod bodies;
pub mod fleet;
pub mod scenario;

// The programs and their load.
pub mod floor;
pub mod load;
pub mod program;

// The measurement.
pub mod hot_path;
pub mod instructions;
pub mod measure;
pub mod profile;
pub mod run;

// The results.
pub mod document;
pub mod environment;
mod plot;
pub mod report;
pub mod results;
