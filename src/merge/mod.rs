//! Merges the pages of several clusters into one list. Pure: a merge stops only if `reserve` stops it.

pub mod custom;
pub mod external;
pub mod resource;

use crate::api::page::Page;

/// Pages with their clusters' names, ordered by name.
pub type Pages<'a> = [(&'a str, &'a Page)];
