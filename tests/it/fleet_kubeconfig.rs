//! `--fleet-kubeconfig`: each context of the file is a member. All kinds of credentials work.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::fleet::Fleet;
use testkit::member::{Fault, Flaw, Member};
use testkit::proxy::{Kind, Proxy};

use crate::process::run;
use crate::stage::{GENEROUS, PODS, Stage, clusters, members, until};

/// The log line for a rejected file.
const REJECTED: &str = "files have changed and cannot be used; the previous content stays in use";

/// A kubeconfig in a directory with the files that it refers to.
pub struct Kubeconfig {
    directory: TempDir,
    contexts: Vec<(String, Value, Value)>,
}

impl Kubeconfig {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), contexts: Vec::new() }
    }

    /// A kubeconfig with one context per member, with its token.
    pub fn of(members: &[Member]) -> Self {
        let mut kubeconfig = Self::new();
        for member in members {
            kubeconfig.add(member.name(), cluster(member), json!({"token": member.token()}));
        }
        kubeconfig.write();
        kubeconfig
    }

    pub fn add(&mut self, name: &str, cluster: Value, user: Value) {
        self.remove(name);
        self.contexts.push((name.to_owned(), cluster, user));
    }

    pub fn remove(&mut self, name: &str) {
        self.contexts.retain(|(context, _, _)| context != name);
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("config")
    }

    pub fn flag(&self) -> String {
        format!("--fleet-kubeconfig={}", self.path().display())
    }

    pub fn write(&self) {
        let (mut contexts, mut clusters, mut users) = (Vec::new(), Vec::new(), Vec::new());
        for (name, cluster, user) in &self.contexts {
            contexts.push(json!({"name": name, "context": {"cluster": name, "user": name}}));
            clusters.push(json!({"name": name, "cluster": cluster}));
            users.push(json!({"name": name, "user": user}));
        }
        let file = json!({
            "apiVersion": "v1", "kind": "Config", "contexts": contexts, "clusters": clusters, "users": users,
        });
        self.put("config", &file.to_string());
    }

    /// Writes a file atomically.
    pub fn put(&self, name: &str, text: &str) {
        let fresh = self.directory.path().join("fresh");
        fs::write(&fresh, text).expect("written");
        fs::rename(&fresh, self.directory.path().join(name)).expect("renamed");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).expect("a file")
    }

    /// An exec plugin that runs these shell lines. In them, `print_token TOKEN SECONDS` prints a token that expires after that
    /// time.
    fn plugin(&self, name: &str, lines: &str) -> Value {
        let print_token = "print_token() { echo '{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\",' \
                   \"\\\"status\\\": {\\\"token\\\": \\\"$1\\\",\" \
                   \"\\\"expirationTimestamp\\\": \\\"$(date -u -d \"$2 seconds\" +%FT%TZ)\\\"}}\"; }";
        self.put(name, &format!("cd {}\n{print_token}\n{lines}\n", self.directory.path().display()));
        json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "sh",
            "args": [self.directory.path().join(name)],
            "env": [{"name": "FROM_THE_FILE", "value": "it-is-set"}],
            "interactiveMode": "IfAvailable",
            "provideClusterInfo": true,
        }})
    }
}

/// The cluster entry of a member, with inline CA.
pub fn cluster(member: &Member) -> Value {
    let access = member.access();
    json!({"server": access.endpoint, "certificate-authority-data": STANDARD.encode(access.ca_pem)})
}

/// Starts an adapter with a fleet from a kubeconfig. The control plane has no clusters.
async fn stage(kubeconfig: &Kubeconfig, flags: &[&str]) -> Stage {
    let fleet = Fleet::start(Vec::new()).await.expect("a control plane starts");
    let flag = kubeconfig.flag();
    Stage::start_in(fleet, &[&[flag.as_str()], flags].concat(), Vec::new()).await
}

/// One query returns values of exactly these members, without warnings.
async fn assert_complete(stage: &Stage, expected: &[&str]) {
    let response = stage.get(PODS).await;
    assert_eq!((response.status, response.warnings()), (StatusCode::OK, Vec::new()), "{:?}", response.body);
    assert_eq!(clusters(&response.json().expect("JSON")), expected);
}

fn log(stage: &Stage) -> String {
    fs::read_to_string(stage.adapter.log()).expect("a log")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_context_is_a_member() {
    let fleet = members(7, 1).await;
    let [token, file, certificate, insecure, named, proxied, plugin] = &fleet[..] else { panic!("seven") };
    let mut kubeconfig = Kubeconfig::new();
    kubeconfig.add("token", cluster(token), json!({"token": token.token()}));
    kubeconfig.put("token", &format!("{}\n", file.token()));
    kubeconfig.put("ca.crt", &file.access().ca_pem);
    let by_file = json!({"server": file.access().endpoint, "certificate-authority": "ca.crt"});
    kubeconfig.add("file", by_file, json!({"tokenFile": "token"}));
    let identity = certificate.client_certificate();
    kubeconfig.put("client.crt", &identity.certificate);
    let by_certificate =
        json!({"client-certificate": "client.crt", "client-key-data": STANDARD.encode(&identity.key)});
    kubeconfig.add("certificate", cluster(certificate), by_certificate);
    let without_verification =
        json!({"server": insecure.access().endpoint, "insecure-skip-tls-verify": true});
    kubeconfig.add("insecure", without_verification, json!({"token": insecure.token()}));
    named.fault(Fault::BadCertificate(Flaw::WrongName));
    let mut with_server_name = cluster(named);
    with_server_name["tls-server-name"] = json!("elsewhere.example");
    kubeconfig.add("named", with_server_name, json!({"token": named.token()}));
    let proxy = Proxy::start(Kind::Http).await.expect("a proxy starts");
    let mut with_proxy = cluster(proxied);
    with_proxy["proxy-url"] = json!(proxy.url());
    kubeconfig.add("proxied", with_proxy, json!({"token": proxied.token()}));
    let script =
        format!("echo \"$FROM_THE_FILE $KUBERNETES_EXEC_INFO\" > info\nprint_token {} 3600", plugin.token());
    let user = kubeconfig.plugin("plugin.sh", &script);
    kubeconfig.add("plugin", cluster(plugin), user);
    kubeconfig.write();

    let stage = stage(&kubeconfig, &[]).await;
    assert_complete(&stage, &["certificate", "file", "insecure", "named", "plugin", "proxied", "token"])
        .await;
    assert!(!proxy.tunnels().is_empty());
    let output = kubeconfig.read("info");
    let info: Value =
        serde_json::from_str(output.strip_prefix("it-is-set ").expect("the environment")).expect("JSON");
    assert_eq!((&info["kind"], &info["spec"]["interactive"]), (&json!("ExecCredential"), &json!(false)));
    assert_eq!(info["spec"]["cluster"]["server"], plugin.access().endpoint);

    // The control plane is used for access reviews, not for clusters.
    let plane = &stage.fleet.plane;
    assert_eq!(stage.get_with(PODS, &[("X-Remote-User", "reader")]).await.status, StatusCode::FORBIDDEN);
    plane.allow("another", &["*"], "custom.metrics.k8s.io", &["*"]);
    assert_eq!(stage.get_with(PODS, &[("X-Remote-User", "another")]).await.status, StatusCode::OK);
    assert_eq!(plane.count("list", "/apis/cluster.karmada.io/v1alpha1/clusters"), 0);
    assert!(stage.metrics().await.contains("karmada_metrics_adapter_clusters{standing=\"asked\"} 7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_file_is_reloaded_and_read_at_once_after_a_401() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet);
    kubeconfig.put("token", &fleet[0].token());
    kubeconfig.add("member1", cluster(&fleet[0]), json!({"tokenFile": "token"}));
    kubeconfig.write();
    let both = ["member1", "member2"];
    let stage = stage(&kubeconfig, &["--reload-interval=1h"]).await;
    for _ in 0..3 {
        assert_complete(&stage, &both).await;
        kubeconfig.put("token", &fleet[0].rotate_token());
        assert_complete(&stage, &both).await;
        // The file is read again at most once a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    drop(stage);
    let stage = self::stage(&kubeconfig, &["--reload-interval=50ms", "--discovery-interval=100ms"]).await;
    kubeconfig.put("token", &fleet[0].rotate_token_keeping_old());
    tokio::time::timeout(GENEROUS, fleet[0].queried_with_newest_token())
        .await
        .expect("the new token is used");
    assert_complete(&stage, &both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn context_changes_need_no_restart() {
    let fleet = members(3, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..1]);
    let stage = stage(&kubeconfig, &["--reload-interval=50ms"]).await;
    assert_complete(&stage, &["member1"]).await;
    kubeconfig.add("prod/member2", cluster(&fleet[1]), json!({"token": fleet[1].token()}));
    kubeconfig.write();
    until(&stage, |names| names == ["member1", "prod-member2"]).await;
    kubeconfig.remove("member1");
    kubeconfig.add("prod/member2", cluster(&fleet[2]), json!({"token": fleet[2].token()}));
    kubeconfig.write();
    until(&stage, |names| names == ["prod-member2"]).await;
    tokio::time::timeout(GENEROUS, fleet[2].arrived_at(PODS)).await.expect("the new endpoint is queried");
    fleet[0].reset_counters();
    assert_complete(&stage, &["prod-member2"]).await;
    assert_eq!(fleet[0].counters().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_with_the_same_tag_are_reported_and_not_queried() {
    let fleet = members(3, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..1]);
    for (name, member) in [("eu/west", &fleet[1]), ("eu:west", &fleet[2])] {
        kubeconfig.add(name, cluster(member), json!({"token": member.token()}));
    }
    kubeconfig.write();
    let stage = stage(&kubeconfig, &["--reload-interval=50ms"]).await;
    stage.logged("would all be the cluster eu-west: rename all but one", 1).await;
    assert!(log(&stage).contains("eu/west") && log(&stage).contains("eu:west"));
    assert_complete(&stage, &["member1"]).await;
    kubeconfig.remove("eu:west");
    kubeconfig.write();
    until(&stage, |names| names == ["eu-west", "member1"]).await;
    // A member that is already queried stays in the fleet.
    kubeconfig.add("eu:west", cluster(&fleet[2]), json!({"token": fleet[2].token()}));
    kubeconfig.write();
    stage.logged("credentials are not usable; the cluster is queried with its last valid ones", 1).await;
    assert_complete(&stage, &["eu-west", "member1"]).await;
    assert_eq!(fleet[2].counters().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_context_does_not_affect_others() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..1]);
    let reachable = cluster(&fleet[1]);
    kubeconfig.add("basic", reachable.clone(), json!({"username": "admin", "password": "s3cr3t"}));
    kubeconfig.add("lost", reachable.clone(), json!({"tokenFile": "nowhere"}));
    let mut untrusted = reachable.clone();
    untrusted["certificate-authority-data"] = json!(STANDARD.encode("no certificate"));
    kubeconfig.add("untrusted", untrusted, json!({"token": "s3cr3t"}));
    let users = [
        ("failing", "print_token s3cr3t 60; exit 3"),
        ("babbling", "echo s3cr3t"),
        ("hanging", "echo $$ > pid; sleep 1000"),
    ];
    for (name, lines) in users {
        let user = kubeconfig.plugin(name, lines);
        kubeconfig.add(name, reachable.clone(), user);
    }
    let missing = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./missing"}});
    kubeconfig.add("missing", reachable, missing);
    kubeconfig.write();
    let stage = stage(&kubeconfig, &[]).await;
    assert_complete(&stage, &["member1"]).await;
    for words in [
        ": API servers no longer accept user name and password",
        "nowhere cannot be read",
        "the CA bundle has no valid PEM certificate",
        "the exec plugin sh has failed (exit status: 3)",
        "the exec plugin sh printed no ExecCredential",
        "missing cannot be run",
        "some exec plugins have not ended; their clusters join the fleet later",
    ] {
        stage.logged(words, 1).await;
    }
    assert!(!log(&stage).contains("s3cr3t"));
    assert!(stage.metrics().await.contains("karmada_metrics_adapter_clusters{standing=\"outside\"} 7"));
    // The processes of a plugin are killed when its context is removed.
    let shell = kubeconfig.read("pid").trim().to_owned();
    assert!(Path::new("/proc").join(&shell).exists());
    kubeconfig.remove("hanging");
    kubeconfig.write();
    let ended = async {
        while Path::new("/proc").join(&shell).exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(GENEROUS, ended).await.expect("the plugin is killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_credentials_are_renewed_before_expiry_and_after_a_401() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..1]);
    let member = &fleet[1];
    kubeconfig.put("current", &member.token());
    let user = kubeconfig.plugin("plugin.sh", "cat lasts >> runs\nprint_token $(cat current) $(cat lasts)");
    kubeconfig.put("lasts", "4\n");
    kubeconfig.add("plugin", cluster(member), user);
    kubeconfig.write();
    let both = ["member1", "plugin"];
    let stage = stage(&kubeconfig, &["--discovery-interval=100ms"]).await;
    for _ in 0..3 {
        kubeconfig.put("current", &member.rotate_token_keeping_old());
        tokio::time::timeout(GENEROUS, member.queried_with_newest_token())
            .await
            .expect("the credentials are renewed");
        assert_complete(&stage, &both).await;
    }
    kubeconfig.put("lasts", "3600\n");
    let lasts = async {
        while kubeconfig.read("runs").lines().last() != Some("3600") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(GENEROUS, lasts).await.expect("the credentials are renewed");
    kubeconfig.put("current", &member.rotate_token());
    let again = async { while !stage.get(PODS).await.warnings().is_empty() {} };
    tokio::time::timeout(GENEROUS, again).await.expect("the plugin runs after a 401");
    assert_complete(&stage, &both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_file_keeps_the_last_fleet_and_prevents_start() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet);
    let both = ["member1", "member2"];
    let stage = stage(&kubeconfig, &["--reload-interval=50ms", "--discovery-interval=100ms"]).await;
    let broken = "users:\n- name: a\n  user: {token: \"s3cr3t\n";
    let not_yaml = "the kubeconfig cannot be used: line 3 is not valid YAML";
    let empty = "the kubeconfig has no contexts, and each would be a member";
    for (round, (text, error)) in
        [(broken, not_yaml), ("", empty), ("contexts: []\n", empty)].into_iter().enumerate()
    {
        kubeconfig.put("config", text);
        stage.logged(REJECTED, round + 1).await;
        assert_complete(&stage, &both).await;
        let (code, _, err) = run(&[&kubeconfig.flag(), "--secure-port=0", "--cert-dir="]).await;
        let line = format!("karmada-metrics-adapter: --fleet-kubeconfig: {error}");
        assert_eq!((code, err.lines().last()), (Some(1), Some(line.as_str())));
        assert!(!err.contains("s3cr3t"), "{err}");
        kubeconfig.add("member1", cluster(&fleet[0]), json!({"token": fleet[0].rotate_token_keeping_old()}));
        kubeconfig.write();
        tokio::time::timeout(GENEROUS, fleet[0].queried_with_newest_token())
            .await
            .expect("a valid file is used");
    }
    fs::remove_file(kubeconfig.path()).expect("removed");
    stage.logged(REJECTED, 4).await;
    assert_complete(&stage, &both).await;
    assert!(!log(&stage).contains("s3cr3t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_members_are_named_by_their_tags() {
    let fleet = members(3, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..2]);
    kubeconfig.add("prod/member3", cluster(&fleet[2]), json!({"token": fleet[2].token()}));
    kubeconfig.write();
    let stage = stage(&kubeconfig, &[]).await;
    assert_complete(&stage, &["member1", "member2", "prod-member3"]).await;
    fleet[2].fault(Fault::Refused);
    let response = stage.get(PODS).await;
    assert_eq!(clusters(&response.json().expect("JSON")), ["member1", "member2"]);
    let [warning] = &response.warnings()[..] else { panic!("{:?}", response.warnings()) };
    assert!(warning.contains("values of 1 cluster are missing: prod-member3: the API server "), "{warning}");
    fleet[1].fault_on("/apis/custom.metrics.k8s.io", Fault::Abort);
    let response = stage.get(PODS).await;
    assert_eq!(
        clusters(&response.json().expect("JSON")),
        ["member1", "member2"],
        "the last-known value is used"
    );
}
