//! The adapter's binary against a simulated control plane and member clusters: real TLS, real sockets.

mod access;
mod aggregation;
mod certificates;
mod churn;
mod cli;
mod contract;
mod discovery;
mod faults;
mod floods;
mod formats;
mod identity;
mod last_known;
mod layers;
mod members;
mod membership;
mod openapi;
mod paths;
mod pressure;
mod process;
mod raw;
mod rotation;
mod scale;
mod scaling;
mod stage;
mod transport;
mod trust;
