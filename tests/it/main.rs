//! The adapter's binary against a simulated control plane and member clusters: real TLS, real sockets.

mod access;
mod aggregation;
mod contract;
mod discovery;
mod faults;
mod formats;
mod identity;
mod last_known;
mod layers;
mod members;
mod process;
mod scale;
mod scaling;
mod stage;
mod transport;
mod trust;
