//! Which build this is, in the shape of `version.Info` of k8s.io/apimachinery.

use std::env;

use serde::Serialize;

/// What `/version` and `version -o json` say. What is not known of a build is empty, as in Go.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// The first number of the version.
    pub major: &'static str,
    /// The second.
    pub minor: &'static str,
    /// The version whose behaviour this one has: its own.
    pub emulation_major: &'static str,
    /// The second number of that.
    pub emulation_minor: &'static str,
    /// The oldest version whose behaviour it could have: its own.
    pub min_compatibility_major: &'static str,
    /// The second number of that.
    pub min_compatibility_minor: &'static str,
    /// `v` and the whole version.
    pub git_version: &'static str,
    /// The commit.
    pub git_commit: &'static str,
    /// Whether anything was changed after it.
    pub git_tree_state: &'static str,
    /// RFC 3339.
    pub build_date: &'static str,
    /// Clients print it and the compiler; there is no Go in here.
    pub go_version: &'static str,
    /// What compiled it.
    pub compiler: &'static str,
    /// Operating system and architecture.
    pub platform: String,
}

/// The architecture by Go's name for it.
fn architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl VersionInfo {
    /// This build.
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
