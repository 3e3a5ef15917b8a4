//! A simulated Karmada control plane with member clusters, and a runner for the binary of any adapter.
//!
//! The kit shares no code with the adapter: it has its own HTTPS, JSON and protobuf code. A bug in the adapter can therefore
//! not hide itself in the tests.
//!
//! The modules are in groups, lowest layer first. A group uses only itself and the groups above it in this file.

// Formats of Go and Kubernetes.
mod go_duration;
mod go_url;
pub mod protobuf;
mod selector;
pub mod timestamp;

// Servers, clients and the network between them.
pub mod api_client;
pub mod black_hole;
pub mod https;
pub mod kubeconfig;
mod listener;
pub mod pki;
pub mod proxy;
pub mod sockets;

// A fleet: members with an application, the control plane, and the process of an adapter.
pub mod adapter;
pub mod app;
pub mod control_plane;
pub mod fleet;
pub mod member;

// Users of a fleet.
pub mod federated_hpa;
mod kubectl;
mod signals;
pub mod walkthrough;

pub use kubectl::{Kubectl, kubectls, kustomize, on_path};
pub use listener::{hold_port, serve_each};
pub use signals::interrupted;
