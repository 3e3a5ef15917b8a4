//! Outcomes to an answer: pure, and it cannot fail.

pub mod custom;
pub mod external;
pub mod resource;
pub mod verdict;

use std::sync::Arc;

use crate::api::page::Page;

/// The pages of an answer by cluster, in the order of the clusters' names.
pub type Pages = [(Arc<str>, Arc<Page>)];
