//! Each of Karmada's installers starts the adapter with arguments of its own; an image with this binary takes them all.

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

/// Where a Linux system keeps its roots, which is where an image has to have them.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The environment variable that names a binary without libraries.
const STATIC: &str = "STATIC_ADAPTER";

/// What an installer of Karmada makes of the adapter's Deployment.
pub(crate) struct Variant {
    pub(crate) name: String,
    /// The container's name, and the image that it names.
    pub(crate) container: String,
    pub(crate) image: String,
    /// The binary's path and its arguments.
    pub(crate) command: Vec<String>,
    /// What is asked to see whether it lives and is ready.
    pub(crate) probes: [String; 2],
}

impl Variant {
    /// All that are written down in `tests/contract/variants`, by name.
    pub(crate) fn all() -> Vec<Self> {
        let directory = fs::read_dir(contract_directory().join("variants")).expect("variants");
        let mut variants: Vec<Self> = directory
            .map(|entry| {
                let text = fs::read(entry.expect("an entry").path()).expect("a readable file");
                Self::read(&serde_json::from_slice(&text).expect("JSON"))
            })
            .collect();
        variants.sort_by(|one, other| one.name.cmp(&other.name));
        assert!(variants.len() > 3, "the variants are not where they should be");
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
async fn the_arguments_of_every_installer_start_it() {
    for variant in Variant::all() {
        println!("{}", variant.name);
        let fleet = Fleet::start(members(2, 1).await).await.expect("the fleet starts");
        let stage = start(fleet, &variant.command[1..], None).await;
        assert_serves(&stage, &variant.probes).await;
    }
}

/// As an image `FROM scratch` does: the binary, CA roots and what is mounted, at the very paths of the manifests.
#[tokio::test(flavor = "multi_thread")]
async fn without_anything_else_in_its_image_it_serves_with_the_arguments_of_every_installer() {
    let Some(binary) = env::var_os(STATIC).map(PathBuf::from) else {
        assert!(env::var_os("CI").is_none(), "{STATIC} names no binary: build one with `make static`");
        eprintln!("{STATIC} names no binary without libraries: none is started in an empty root");
        return;
    };
    for variant in Variant::all() {
        println!("{}", variant.name);
        let fleet = Fleet::start(members(2, 1).await).await.expect("the fleet starts");
        // This one is believed by the system's roots.
        let trusting = MemberSpec { ca_bundle: Some(String::new()), ..(&fleet.members[1]).into() };
        fleet.plane.join(&trusting).expect("it joins");
        let stage = start(fleet, &variant.command[1..], Some(&binary)).await;
        assert_serves(&stage, &variant.probes).await;
    }
}

/// Starts this binary in an empty root, or the one that is under test where it is, with these arguments.
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

/// It answers its probes and a query, with values of both clusters.
pub(crate) async fn assert_serves(stage: &Stage, probes: &[String]) {
    let kubelet = client(&stage.adapter, Credentials::None);
    for probe in probes {
        assert_eq!(send(&kubelet, "GET", probe, &[], "").await.status, StatusCode::OK, "{probe}");
    }
    let answer = stage.get(PODS).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let list = answer.json().expect("JSON");
    assert_eq!(clusters(&list), ["member1", "member2"], "by {CLUSTER_LABEL}: {list}");
}
