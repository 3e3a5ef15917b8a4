//! `karmada-metrics-adapter`: one metrics API over all member clusters of a Karmada control plane.
//!
//! The layers, lowest first: `api`, `query`, `config`, `merge`, `cli`, `process`, `transport`, `kubeconfig`, `control`, `member`,
//! `fleet`, `gather`, `answer`, `access`, `server`, `app`, `commands`. A module uses only those before it, which
//! `tests/it/layers.rs` checks; `docs/architecture.md` shows how a request goes through them.

pub mod access;
pub mod answer;
pub mod api;
pub mod app;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod fleet;
pub mod gather;
pub mod kubeconfig;
pub mod member;
pub mod merge;
pub mod process;
pub mod query;
pub mod server;
pub mod transport;

/// What this process calls itself where it asks others.
pub const USER_AGENT: &str = concat!("karmada-metrics-adapter/v", env!("CARGO_PKG_VERSION"));
