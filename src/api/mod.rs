//! Wire formats, pure: nothing here waits, and nothing here knows of clusters.

pub mod codec;
pub mod custom_metrics;
pub mod discovery;
pub mod duration;
pub mod meta;
pub mod page;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod text;
pub mod time;
pub mod version;
