//! Karmada's installers start the adapter with different arguments. An image with this binary accepts all of them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use http::StatusCode;
use serde_json::Value;
use testkit::adapter::{AdapterProcess, Invocation};
use testkit::api_client::Credentials;
use testkit::control_plane::MemberSpec;
use testkit::fleet::Fleet;
use testkit::member::contract_directory;

use crate::stage::{CLUSTER_LABEL, GENEROUS, PODS, Stage, binary, client, clusters, members, send};

/// The file with the system's root CAs on Linux. An image must have it at this path.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The environment variable with the path of a statically linked binary.
const STATIC: &str = "STATIC_ADAPTER";

/// The adapter's Deployment as a Karmada installer creates it.
pub(crate) struct Variant {
    pub(crate) name: String,
    /// The container's name and its image.
    pub(crate) container: String,
    pub(crate) image: String,
    /// The binary's path and its arguments.
    pub(crate) command: Vec<String>,
    /// The paths of the liveness and readiness probes.
    pub(crate) probes: [String; 2],
}

impl Variant {
    /// All variants of `tests/contract/variants`, sorted by name.
    pub(crate) fn all() -> Vec<Self> {
        let directory = fs::read_dir(contract_directory().join("variants")).expect("variants");
        let mut variants: Vec<Self> = directory
            .map(|entry| {
                let text = fs::read(entry.expect("an entry").path()).expect("a readable file");
                Self::read(&serde_json::from_slice(&text).expect("JSON"))
            })
            .collect();
        variants.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(variants.len() > 3, "tests/contract/variants has more than 3 variants");
        variants
    }

    fn read(variant: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Self {
            name: text(&variant["name"]),
            container: text(&variant["container"]),
            image: text(&variant["image"]),
            command: variant["command"].as_array().expect("a command").iter().map(text).collect(),
            probes: ["liveness", "readiness"].map(|probe| text(&variant["probes"][probe])),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_of_every_installer_are_accepted() {
    for variant in Variant::all() {
        println!("{}", variant.name);
        let fleet = Fleet::start(members(2, 1).await).await.expect("the fleet starts");
        let stage = start(fleet, &variant.command[1..], None).await;
        assert_serves(&stage, &variant.probes).await;
    }
}

/// Like an image `FROM scratch`: only the binary, CA roots and the mounted files, at the paths of the manifests.
#[tokio::test(flavor = "multi_thread")]
async fn minimal_image_serves_with_the_arguments_of_every_installer() {
    let Some(binary) = env::var_os(STATIC).map(PathBuf::from) else {
        assert!(env::var_os("CI").is_none(), "{STATIC} is not set: build a static binary with `make static`");
        eprintln!("skipped: {STATIC} is not set");
        return;
    };
    for variant in Variant::all() {
        println!("{}", variant.name);
        let fleet = Fleet::start(members(2, 1).await).await.expect("the fleet starts");
        // This member is verified with the system's root CAs.
        let with_system_roots = MemberSpec { ca_bundle: Some(String::new()), ..(&fleet.members[1]).into() };
        fleet.plane.join(&with_system_roots).expect("the cluster joins");
        let stage = start(fleet, &variant.command[1..], Some(&binary)).await;
        assert_serves(&stage, &variant.probes).await;
    }
}

/// Starts the adapter with these arguments. If `jailed` names a binary, it runs in an empty root directory.
pub(crate) async fn start(fleet: Fleet, arguments: &[String], jailed: Option<&Path>) -> Stage {
    let invocation = fleet.invocation(jailed.unwrap_or_else(|| binary()), &[]).expect("a kubeconfig");
    let roots = fleet.members.iter().map(|member| member.access().ca_pem).collect();
    let invocation = Invocation {
        arguments: arguments.to_vec(),
        jailed: jailed.is_some(),
        files: vec![(SYSTEM_ROOTS.to_owned(), roots)],
        ..invocation
    };
    let mut adapter = AdapterProcess::start(&invocation).expect("the adapter starts");
    adapter.ready(GENEROUS).await.expect("the adapter is ready");
    Stage::of(fleet, adapter)
}

/// The probes succeed and a query returns values of both clusters.
pub(crate) async fn assert_serves(stage: &Stage, probes: &[String]) {
    let kubelet = client(&stage.adapter, Credentials::None);
    for probe in probes {
        assert_eq!(send(&kubelet, "GET", probe, &[], "").await.status, StatusCode::OK, "{probe}");
    }
    let response = stage.get(PODS).await;
    assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
    let list = response.json().expect("JSON");
    assert_eq!(clusters(&list), ["member1", "member2"], "by {CLUSTER_LABEL}: {list}");
}
