//! Credentials are rotated under load and files change on disk. No query fails.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use testkit::control_plane::{ADAPTER_USER, MemberSpec};
use testkit::member::{Member, MemberOptions, Protocols};

use crate::stage::{GENEROUS, PODS, Stage, binary, clusters, distinct, members, until};

/// The number of concurrent queries.
const CLIENTS: usize = 4;

/// An incomplete kubeconfig.
const BROKEN: &str = "apiVersion: v1\nkind: Config\nusers: [{name: x, user: {token: s3cr3t-of-a-user}\n";

/// The load on the adapter.
#[derive(Default)]
struct Load {
    queries: AtomicUsize,
    done: AtomicBool,
}

impl Load {
    /// Sends queries without a pause until `done`, and checks that each response is complete.
    async fn run(&self, stage: &Stage, expected: &[&str]) {
        let Self { queries, done } = self;
        let clients = (0..CLIENTS).map(|_| async {
            while !done.load(Ordering::Relaxed) {
                let response = stage.get(&distinct(queries.fetch_add(1, Ordering::Relaxed))).await;
                assert_eq!(
                    (response.status, response.warnings()),
                    (StatusCode::OK, Vec::new()),
                    "{:?}",
                    response.body
                );
                let list = response.json().expect("JSON");
                assert_eq!(clusters(&list), expected);
                assert_eq!(list["items"].as_array().map(Vec::len), Some(2 * expected.len()));
            }
        });
        futures::future::join_all(clients).await;
    }

    /// Waits until each client has started another query.
    async fn next_queries(&self) {
        let before = self.queries.load(Ordering::Relaxed);
        while self.queries.load(Ordering::Relaxed) < before + 2 * CLIENTS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A kubeconfig with the token and the CA in files beside it.
fn write_kubeconfig(directory: &Path, server: &str, user: &str) {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: c, user: {user}}}\n\
         clusters:\n- name: c\n  cluster: {{server: {server:?}, certificate-authority: ca.crt}}\n\
         users:\n- name: {user}\n  user: {{tokenFile: token}}\n"
    );
    replace(&directory.join("kubeconfig"), &text);
}

/// Writes a file atomically.
fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).expect("written");
    std::fs::rename(&fresh, path).expect("renamed");
}

#[tokio::test(flavor = "multi_thread")]
async fn credential_rotation_under_load_fails_no_query() {
    let mut fleet = members(2, 2).await;
    let options = MemberOptions { protocols: Protocols::Http1, ..MemberOptions::default() };
    let http1 = Member::start_with("member3", options).await.expect("a member starts");
    fleet.push(http1.with_pods("http_requests", 2));
    let stage = Stage::start(fleet, &["--reload-interval=50ms", "--discovery-interval=1s"]).await;
    let load = Load::default();
    let rotating = async {
        let rotations = futures::join!(
            rotate_member(&stage, &load, 0),
            rotate_member(&stage, &load, 1),
            rotate_member(&stage, &load, 2),
            rotate_kubeconfig(&stage),
        );
        load.done.store(true, Ordering::Relaxed);
        rotations.0 + rotations.1 + rotations.2 + rotations.3
    };
    let start = Instant::now();
    let ((), rotations) = futures::join!(load.run(&stage, &["member1", "member2", "member3"]), rotating);
    let queries = load.queries.into_inner();
    assert_eq!(rotations, 200);
    eprintln!("{queries} queries during {rotations} rotations in {:?}", start.elapsed());
}

/// Sixty rotations: a new token forty times, and a new CA every other time. As in Kubernetes, the member accepts the old token
/// for a while, and the bundle contains the old CA until the new certificate is in use.
async fn rotate_member(stage: &Stage, load: &Load, index: usize) -> usize {
    let (plane, member) = (&stage.fleet.plane, stage.member(index));
    let mut bundle = member.access().ca_pem;
    let mut rotations = 0;
    for round in 0..40 {
        let rotate_ca = round % 2 == 1;
        if rotate_ca {
            bundle = format!("{bundle}{}", member.rotate_authority());
            rotations += 1;
        }
        member.rotate_token_keeping_old();
        plane
            .join(&MemberSpec { ca_bundle: Some(bundle.clone()), ..MemberSpec::from(member) })
            .expect("the cluster is changed");
        rotations += 1;
        let used = tokio::time::timeout(GENEROUS, member.queried_with_newest_token()).await;
        used.expect("the new token is used");
        if rotate_ca {
            member.renew_certificate();
            bundle = member.access().ca_pem;
        }
        load.next_queries().await;
    }
    rotations
}

/// Twenty rotations of the client certificate in the kubeconfig. The adapter must use each new one.
async fn rotate_kubeconfig(stage: &Stage) -> usize {
    for _ in 0..20 {
        let connections = stage.fleet.plane.connections();
        // A short absence of the file has no effect.
        std::fs::remove_file(stage.fleet.plane.adapter_kubeconfig().expect("written")).expect("removed");
        stage.fleet.plane.adapter_kubeconfig().expect("written");
        let deadline = Instant::now() + GENEROUS;
        while stage.fleet.plane.connections() == connections {
            assert!(Instant::now() < deadline, "the new kubeconfig is not used");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    20
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_kubeconfig_is_an_error_without_its_content() {
    let broken = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(broken.path(), BROKEN).expect("written");
    let kubeconfig = format!("--kubeconfig={}", broken.path().display());
    let mut command = tokio::process::Command::new(binary());
    command.args([&kubeconfig, "--secure-port=0", "--cert-dir="]).kill_on_drop(true);
    let output = tokio::time::timeout(GENEROUS, command.output())
        .await
        .expect("the process exits in time")
        .expect("the process runs");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("--kubeconfig: the kubeconfig cannot be used: line 3 is not valid YAML"), "{text}");
    assert!(!text.contains("s3cr3t"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_with_old_credentials_are_closed() {
    let stage = Stage::start(members(1, 2).await, &["--discovery-interval=1h"]).await;
    let member = stage.member(0);
    for _ in 0..5 {
        member.rotate_token_keeping_old();
        stage.fleet.plane.join(&MemberSpec::from(member)).expect("the cluster is changed");
        let used = async {
            while !member.is_queried_with_newest_token() {
                stage.get(PODS).await;
            }
        };
        tokio::time::timeout(GENEROUS, used).await.expect("the new token is used");
    }
    let closed = async {
        while member.open_connections() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(GENEROUS, closed).await.expect("old connections are closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconfig_and_its_files_are_reloaded_and_invalid_ones_rejected() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let fleet = testkit::fleet::Fleet::start(members(2, 2).await).await.expect("the fleet starts");
    let (user, server) = (ADAPTER_USER.replace(':', "-"), fleet.plane.url());
    replace(&at("ca.crt"), &fleet.plane.ca_pem());
    replace(&at("token"), "first-token");
    fleet.plane.add_token("first-token", ADAPTER_USER, &[]);
    write_kubeconfig(directory.path(), &server, &user);
    let path = at("kubeconfig").display().to_string();
    let flags = [
        &format!("--kubeconfig={path}"),
        &format!("--authorization-kubeconfig={path}"),
        "--reload-interval=50ms",
        "--authorization-webhook-cache-authorized-ttl=0s",
    ];
    let stage = Stage::start_in(fleet, &flags, Vec::new()).await;
    let plane = &stage.fleet.plane;
    plane.allow("reader", &["*"], "custom.metrics.k8s.io", &["*"]);
    // Reviews and watches use the current credentials.
    let works = async |name: &str| {
        assert_eq!(
            stage.get_with(PODS, &[("X-Remote-User", "reader")]).await.status,
            StatusCode::OK,
            "{name}"
        );
        let late = Member::start(name).await.expect("a member starts").with_pods("http_requests", 2);
        plane.join(&MemberSpec::from(&late)).expect("the cluster joins");
        until(&stage, |names| names.iter().any(|found| found == name)).await;
        plane.remove(name);
        until(&stage, |names| names.iter().all(|found| found != name)).await;
    };
    works("at-first").await;

    // A new token in the file; the old one is revoked.
    plane.add_token("second-token", ADAPTER_USER, &[]);
    replace(&at("token"), "second-token");
    stage.logged("files have changed and are in use", 2).await;
    plane.remove_token("first-token");
    plane.drop_watches();
    works("new-token").await;

    // Invalid files are rejected, and the log does not contain their content.
    let valid = std::fs::read_to_string(at("kubeconfig")).expect("readable");
    let rejected = "files have changed and cannot be used; the previous content stays in use";
    replace(&at("kubeconfig"), BROKEN);
    stage.logged(rejected, 2).await;
    works("broken").await;
    replace(&at("kubeconfig"), &valid.replace("tokenFile: token", "tokenFile: nowhere"));
    stage.logged("nowhere cannot be read", 2).await;
    works("without-token").await;
    replace(&at("kubeconfig"), &valid);
    replace(&at("ca.crt"), "no certificate");
    stage.logged(rejected, 6).await;
    works("without-ca").await;
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    for secret in ["s3cr3t", "first-token", "second-token"] {
        assert!(!log.contains(secret), "{log}");
    }
}
