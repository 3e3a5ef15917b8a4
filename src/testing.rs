//! Items for tests and benchmarks. They may change in every version.

pub use crate::api::codec::EncodeList;
pub use crate::api::custom_metrics::{MetricValueList, Version};
pub use crate::api::field_selector::FieldSelector;
pub use crate::api::group::MetricsResource;
pub use crate::api::memory::{Reserve, Stopped};
pub use crate::api::page::{BodyFormat, Expected, Page};
pub use crate::api::resource_metrics::ObjectMetricsList;
pub use crate::api::selector::Selector;
pub use crate::cli::{Cli, EarlyExit, Task};
pub use crate::config::SameNamePods;
pub use crate::merge::{Pages, custom, resource};
pub use crate::process::budget::Budget;
pub use crate::process::open_files;
pub use crate::server::listener::DRAIN_TIMEOUT;
