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

/// Whose CPU and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricsResource {
    /// Nodes, which are in no namespace.
    Nodes,
    /// Pods, container by container.
    Pods,
}

impl Group {
    /// All, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Custom, Self::External, Self::Resource];

    /// As it stands in a path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Custom => "custom.metrics.k8s.io",
            Self::External => "external.metrics.k8s.io",
            Self::Resource => "metrics.k8s.io",
        }
    }

    /// Its versions, the preferred one first.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Custom => &["v1beta2", "v1beta1"],
            Self::External | Self::Resource => &["v1beta1"],
        }
    }

    /// Whether this is one of its group versions.
    pub fn has(self, group_version: &str) -> bool {
        let parts = group_version.split_once('/');
        parts.is_some_and(|(group, version)| group == self.name() && self.versions().contains(&version))
    }
}

impl Display for Group {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl MetricsResource {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nodes, Self::Pods];

    /// As it stands in a path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
        }
    }

    /// The kind of one.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetrics",
            Self::Pods => "PodMetrics",
        }
    }

    /// The kind of a list of them.
    pub fn list_kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetricsList",
            Self::Pods => "PodMetricsList",
        }
    }
}
