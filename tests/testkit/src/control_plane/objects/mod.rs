//! Stored objects: their resource types, the store, and how they are read, written and watched.

pub(super) mod resources;
pub(super) mod rest;
pub(super) mod selection;
pub(super) mod store;
mod table;
pub(super) mod watching;
