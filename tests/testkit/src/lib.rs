//! A simulated Karmada control plane and member clusters, independent of the adapter: it speaks HTTPS, JSON and
//! protobuf of its own, so that the code under test cannot vouch for itself, and hosts any adapter's binary.
//!
//! The modules stand in groups, lowest first: a group uses itself and what is above it.

// What Go and Kubernetes write.
mod go_duration;
mod go_url;
pub mod protobuf;
mod selector;
pub mod timestamp;

// Servers, clients and what is between them.
pub mod api_client;
pub mod black_hole;
pub mod https;
pub mod kubeconfig;
mod listener;
pub mod pki;
pub mod proxy;
pub mod sockets;

// A fleet: members with an application, their control plane, an adapter's process.
pub mod adapter;
pub mod app;
pub mod control_plane;
pub mod fleet;
pub mod member;

// What works on it.
pub mod federated_hpa;
mod kubectl;
mod signals;
pub mod walkthrough;

pub use kubectl::{Kubectl, kubectls, kustomize, on_path};
pub use listener::{hold_port, serve_each};
pub use signals::interrupted;
