//! The metrics APIs.

use std::fmt::{self, Display, Formatter};

/// One of the API groups that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// What applications say of themselves, by object.
    Custom,
    /// What is known of things outside the clusters, such as queues.
    External,
    /// CPU and memory of pods and nodes.
    Resource,
}

impl Group {
    /// All, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Custom, Self::External, Self::Resource];

    /// As it stands in a path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Custom => super::custom_metrics::GROUP,
            Self::External => super::external_metrics::GROUP,
            Self::Resource => super::resource_metrics::GROUP,
        }
    }

    /// Its versions, the preferred one first.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Custom => &["v1beta2", "v1beta1"],
            Self::External => &[super::external_metrics::VERSION],
            Self::Resource => &[super::resource_metrics::VERSION],
        }
    }
}

impl Display for Group {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
