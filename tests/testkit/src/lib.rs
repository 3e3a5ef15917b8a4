//! A simulated Karmada control plane and member clusters, independent of the adapter: it speaks HTTPS, JSON and
//! protobuf of its own, so that the code under test cannot vouch for itself, and hosts any adapter's binary.

pub mod adapter;
pub mod api_client;
pub mod app;
pub mod base64;
pub mod control_plane;
pub mod federated_hpa;
pub mod fleet;
pub mod https;
pub mod member;
pub mod pki;
pub mod protobuf;
pub mod proxy;
pub mod timestamp;
pub mod walkthrough;
