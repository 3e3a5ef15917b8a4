//! Outcomes to an answer: pure, and it cannot fail.

pub mod custom;
pub mod verdict;
