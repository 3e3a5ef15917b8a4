//! Outcomes to an answer: pure. It stops only where there is no memory left for the answer, or nobody waits for it.

pub mod custom;
pub mod external;
pub mod resource;
pub mod verdict;

use std::sync::Arc;

use crate::api::page::Page;
use crate::process::budget::Held;

/// The pages of an answer by cluster, in the order of the clusters' names.
pub type Pages = [(Arc<str>, Held<Arc<Page>>)];
