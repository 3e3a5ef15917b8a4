//! The resources that the control plane stores.

/// A resource type with its names in discovery.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// The API group; empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    /// The name in paths.
    pub(crate) plural: &'static str,
    pub(crate) singular: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) namespaced: bool,
    /// Whether the resource has a subresource `status`.
    pub(crate) status: bool,
}

pub(crate) static CLUSTERS: Resource = Resource {
    group: "cluster.karmada.io",
    version: "v1alpha1",
    kind: "Cluster",
    plural: "clusters",
    singular: "cluster",
    short: &[],
    namespaced: false,
    status: true,
};
pub(crate) static SECRETS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short: &[],
    namespaced: true,
    status: false,
};
pub(crate) static CONFIG_MAPS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short: &["cm"],
    namespaced: true,
    status: false,
};
pub(crate) static NAMESPACES: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    namespaced: false,
    status: true,
};
/// Karmada's API server has the resource type but no nodes. Nodes exist only in member clusters.
pub(crate) static NODES: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short: &["no"],
    namespaced: false,
    status: true,
};
/// As for nodes.
pub(crate) static PODS: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short: &["po"],
    namespaced: true,
    status: true,
};
pub(crate) static API_SERVICES: Resource = Resource {
    group: "apiregistration.k8s.io",
    version: "v1",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    short: &[],
    namespaced: false,
    status: true,
};

/// All stored resources, in the order of discovery.
pub(crate) static STORED: [&Resource; 7] =
    [&CONFIG_MAPS, &NAMESPACES, &NODES, &PODS, &SECRETS, &API_SERVICES, &CLUSTERS];

impl Resource {
    /// The stored resource in a path.
    pub(crate) fn named(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        STORED
            .into_iter()
            .find(|known| known.group == group && known.version == version && known.plural == plural)
    }

    /// The stored resource of an object's `apiVersion` and `kind`.
    pub(crate) fn of_object(api_version: &str, kind: &str) -> Option<&'static Self> {
        STORED.into_iter().find(|known| known.api_version() == api_version && known.kind == kind)
    }

    /// The `apiVersion` of its objects.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `clusters.cluster.karmada.io`, as in error messages.
    pub(crate) fn qualified(&self) -> String {
        qualify(self.plural, self.group)
    }
}

/// The name of a resource with its group, as `schema.GroupResource` prints it.
pub(crate) fn qualify(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}
