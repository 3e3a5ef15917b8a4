//! The pages of several clusters as one list, pure: it stops only where there is no memory left for it, or nobody waits for it.

pub mod custom;
pub mod external;
pub mod resource;

use crate::api::page::Page;

/// The pages of an answer by cluster, in the order of the clusters' names.
pub type Pages<'a> = [(&'a str, &'a Page)];
