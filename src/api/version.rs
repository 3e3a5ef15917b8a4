//! Version of this build, in the format of `version.Info` of k8s.io/apimachinery.

use std::env;

use serde::Serialize;

/// The output of `/version` and of `version -o json`. Unknown fields are empty, as in Go.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    pub major: &'static str,
    pub minor: &'static str,
    /// Major version of the behaviour that is emulated; always this version.
    pub emulation_major: &'static str,
    /// Minor version of the behaviour that is emulated.
    pub emulation_minor: &'static str,
    /// Major version of the oldest behaviour that can be emulated; always this version.
    pub min_compatibility_major: &'static str,
    /// Minor version of the oldest behaviour that can be emulated.
    pub min_compatibility_minor: &'static str,
    /// The full version, with the prefix `v`.
    pub git_version: &'static str,
    pub git_commit: &'static str,
    /// Whether the Git tree has uncommitted changes.
    pub git_tree_state: &'static str,
    /// Time of the build, RFC 3339.
    pub build_date: &'static str,
    /// Always empty: the adapter is not written in Go. Clients print this field.
    pub go_version: &'static str,
    /// The name of the compiler.
    pub compiler: &'static str,
    /// Operating system and architecture, such as `linux/amd64`.
    pub platform: String,
}

/// The CPU architecture in Go's naming.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl VersionInfo {
    /// The version of this build.
    pub fn current() -> Self {
        let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
        Self {
            major,
            minor,
            emulation_major: major,
            emulation_minor: minor,
            min_compatibility_major: major,
            min_compatibility_minor: minor,
            git_version: concat!("v", env!("CARGO_PKG_VERSION")),
            git_commit: "",
            git_tree_state: "",
            build_date: "1970-01-01T00:00:00Z",
            go_version: "",
            compiler: "rustc",
            platform: format!("{}/{}", env::consts::OS, architecture()),
        }
    }
}
