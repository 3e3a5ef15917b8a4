//! Wire formats: parsers and encoders without I/O. They do not depend on the clusters of the fleet.

pub mod cause;
pub mod codec;
pub mod custom_metrics;
pub mod discovery;
pub mod duration;
pub mod external_metrics;
pub mod field_selector;
pub mod group;
pub mod memory;
pub mod meta;
pub mod openapi;
pub mod page;
pub mod quantity;
pub mod resource_metrics;
pub mod selector;
pub mod status;
pub mod table;
pub mod text;
pub mod time;
pub mod version;
