//! The metrics APIs.

use std::fmt::{self, Display, Formatter};

/// An API group that the adapter serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Metrics of Kubernetes objects, as applications report them.
    Custom,
    /// Metrics of systems outside the clusters, such as queues.
    External,
    /// CPU and memory of pods and nodes.
    Resource,
}

/// A resource of `metrics.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetricsResource {
    /// Nodes. They are cluster-scoped.
    Nodes,
    /// Pods, with the usage of each container.
    Pods,
}

impl Group {
    /// All groups, sorted by name.
    pub const ALL: [Self; 3] = [Self::Custom, Self::External, Self::Resource];

    /// The name in a request path.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Custom => "custom.metrics.k8s.io",
            Self::External => "external.metrics.k8s.io",
            Self::Resource => "metrics.k8s.io",
        }
    }

    /// The versions, the preferred version first.
    pub const fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Custom => &["v1beta2", "v1beta1"],
            Self::External | Self::Resource => &["v1beta1"],
        }
    }

    /// Whether `group_version`, such as `metrics.k8s.io/v1beta1`, belongs to this group.
    pub fn has_version(self, group_version: &str) -> bool {
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
    /// Both resources.
    pub const ALL: [Self; 2] = [Self::Nodes, Self::Pods];

    /// The name in a request path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Pods => "pods",
        }
    }

    /// The kind of a single object.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetrics",
            Self::Pods => "PodMetrics",
        }
    }

    /// The kind of a list.
    pub fn list_kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetricsList",
            Self::Pods => "PodMetricsList",
        }
    }
}
