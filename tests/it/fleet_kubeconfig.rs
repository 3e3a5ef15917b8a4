//! `--fleet-kubeconfig`: each context of a file is a member, whatever way it logs in.

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

/// What the log says of a file that is refused.
const REFUSED: &str = "files have changed and cannot be used; what was in use stays in use";

/// A kubeconfig, in a directory with the files that it refers to.
pub struct Kubeconfig {
    directory: TempDir,
    contexts: Vec<(String, Value, Value)>,
}

impl Kubeconfig {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), contexts: Vec::new() }
    }

    /// A file in which each member is a context with its token.
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

    /// Puts a whole file in place of another.
    pub fn put(&self, name: &str, text: &str) {
        let fresh = self.directory.path().join("fresh");
        fs::write(&fresh, text).expect("written");
        fs::rename(&fresh, self.directory.path().join(name)).expect("renamed");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).expect("a file")
    }

    /// A plugin that does what the lines of shell say, among which `say TOKEN SECONDS` prints a token that ends then.
    fn plugin(&self, name: &str, lines: &str) -> Value {
        let say = "say() { echo '{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\",' \
                   \"\\\"status\\\": {\\\"token\\\": \\\"$1\\\",\" \
                   \"\\\"expirationTimestamp\\\": \\\"$(date -u -d \"$2 seconds\" +%FT%TZ)\\\"}}\"; }";
        self.put(name, &format!("cd {}\n{say}\n{lines}\n", self.directory.path().display()));
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

/// How a member is reached, by what is in the file itself.
pub fn cluster(member: &Member) -> Value {
    let access = member.access();
    json!({"server": access.endpoint, "certificate-authority-data": STANDARD.encode(access.ca_pem)})
}

/// An adapter whose fleet is a file, beside a control plane in which no cluster has joined.
async fn stage(kubeconfig: &Kubeconfig, flags: &[&str]) -> Stage {
    let fleet = Fleet::start(Vec::new()).await.expect("a control plane starts");
    let flag = kubeconfig.flag();
    Stage::start_in(fleet, &[&[flag.as_str()], flags].concat(), Vec::new()).await
}

/// Asks once: everybody is there and nobody is complained about.
async fn whole(stage: &Stage, expected: &[&str]) {
    let answer = stage.get(PODS).await;
    assert_eq!((answer.status, answer.warnings()), (StatusCode::OK, Vec::new()), "{:?}", answer.body);
    assert_eq!(clusters(&answer.json().expect("JSON")), expected);
}

fn log(stage: &Stage) -> String {
    fs::read_to_string(stage.adapter.log()).expect("a log")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_context_is_a_member_whatever_way_it_logs_in_and_is_reached() {
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
    let anything = json!({"server": insecure.access().endpoint, "insecure-skip-tls-verify": true});
    kubeconfig.add("insecure", anything, json!({"token": insecure.token()}));
    named.fault(Fault::BadCertificate(Flaw::WrongName));
    let mut elsewhere = cluster(named);
    elsewhere["tls-server-name"] = json!("elsewhere.example");
    kubeconfig.add("named", elsewhere, json!({"token": named.token()}));
    let proxy = Proxy::start(Kind::Http).await.expect("a proxy starts");
    let mut through = cluster(proxied);
    through["proxy-url"] = json!(proxy.url());
    kubeconfig.add("proxied", through, json!({"token": proxied.token()}));
    let told = format!("echo \"$FROM_THE_FILE $KUBERNETES_EXEC_INFO\" > told\nsay {} 3600", plugin.token());
    let user = kubeconfig.plugin("plugin.sh", &told);
    kubeconfig.add("plugin", cluster(plugin), user);
    kubeconfig.write();

    let stage = stage(&kubeconfig, &[]).await;
    whole(&stage, &["certificate", "file", "insecure", "named", "plugin", "proxied", "token"]).await;
    assert!(!proxy.tunnels().is_empty());
    let told = kubeconfig.read("told");
    let info: Value =
        serde_json::from_str(told.strip_prefix("it-is-set ").expect("the environment")).expect("JSON");
    assert_eq!((&info["kind"], &info["spec"]["interactive"]), (&json!("ExecCredential"), &json!(false)));
    assert_eq!(info["spec"]["cluster"]["server"], plugin.access().endpoint);

    // The control plane is asked who may, and not for clusters.
    let plane = &stage.fleet.plane;
    assert_eq!(stage.get_with(PODS, &[("X-Remote-User", "reader")]).await.status, StatusCode::FORBIDDEN);
    plane.allow("another", &["*"], "custom.metrics.k8s.io", &["*"]);
    assert_eq!(stage.get_with(PODS, &[("X-Remote-User", "another")]).await.status, StatusCode::OK);
    assert_eq!(plane.count("list", "/apis/cluster.karmada.io/v1alpha1/clusters"), 0);
    assert!(stage.metrics().await.contains("karmada_metrics_adapter_clusters{standing=\"asked\"} 7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_is_followed_and_read_at_once_when_a_member_refuses_the_token() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet);
    kubeconfig.put("token", &fleet[0].token());
    kubeconfig.add("member1", cluster(&fleet[0]), json!({"tokenFile": "token"}));
    kubeconfig.write();
    let both = ["member1", "member2"];
    let stage = stage(&kubeconfig, &["--reload-interval=1h"]).await;
    for _ in 0..3 {
        whole(&stage, &both).await;
        kubeconfig.put("token", &fleet[0].rotate_token());
        whole(&stage, &both).await;
        // Newer credentials are asked for once a second at most.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    drop(stage);
    let stage = self::stage(&kubeconfig, &["--reload-interval=50ms", "--discovery-interval=100ms"]).await;
    kubeconfig.put("token", &fleet[0].rotate_token_keeping_old());
    tokio::time::timeout(GENEROUS, fleet[0].asked_with_newest_token()).await.expect("the new token is used");
    whole(&stage, &both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_come_go_and_move_without_a_restart() {
    let fleet = members(3, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..1]);
    let stage = stage(&kubeconfig, &["--reload-interval=50ms"]).await;
    whole(&stage, &["member1"]).await;
    kubeconfig.add("prod/member2", cluster(&fleet[1]), json!({"token": fleet[1].token()}));
    kubeconfig.write();
    until(&stage, |names| names == ["member1", "prod-member2"]).await;
    kubeconfig.remove("member1");
    kubeconfig.add("prod/member2", cluster(&fleet[2]), json!({"token": fleet[2].token()}));
    kubeconfig.write();
    until(&stage, |names| names == ["prod-member2"]).await;
    tokio::time::timeout(GENEROUS, fleet[2].arrived_at(PODS)).await.expect("the new endpoint is asked");
    fleet[0].reset_counters();
    whole(&stage, &["prod-member2"]).await;
    assert_eq!(fleet[0].counters().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_that_would_have_one_tag_are_not_asked_and_said_to_collide() {
    let fleet = members(3, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..1]);
    for (name, member) in [("eu/west", &fleet[1]), ("eu:west", &fleet[2])] {
        kubeconfig.add(name, cluster(member), json!({"token": member.token()}));
    }
    kubeconfig.write();
    let stage = stage(&kubeconfig, &["--reload-interval=50ms"]).await;
    stage.logged("would all be the cluster eu-west: rename all but one", 1).await;
    assert!(log(&stage).contains("eu/west") && log(&stage).contains("eu:west"));
    whole(&stage, &["member1"]).await;
    kubeconfig.remove("eu:west");
    kubeconfig.write();
    until(&stage, |names| names == ["eu-west", "member1"]).await;
    // One that is asked already goes on.
    kubeconfig.add("eu:west", cluster(&fleet[2]), json!({"token": fleet[2].token()}));
    kubeconfig.write();
    stage.logged("the cluster is asked with its last good credentials", 1).await;
    whole(&stage, &["eu-west", "member1"]).await;
    assert_eq!(fleet[2].counters().requests, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_that_cannot_be_used_is_named_and_takes_no_other_down() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..1]);
    let there = cluster(&fleet[1]);
    kubeconfig.add("basic", there.clone(), json!({"username": "admin", "password": "s3cr3t"}));
    kubeconfig.add("lost", there.clone(), json!({"tokenFile": "nowhere"}));
    let mut untrusted = there.clone();
    untrusted["certificate-authority-data"] = json!(STANDARD.encode("no certificate"));
    kubeconfig.add("untrusted", untrusted, json!({"token": "s3cr3t"}));
    let users = [
        ("failing", "say s3cr3t 60; exit 3"),
        ("babbling", "echo s3cr3t"),
        ("hanging", "echo $$ > pid; sleep 1000"),
    ];
    for (name, lines) in users {
        let user = kubeconfig.plugin(name, lines);
        kubeconfig.add(name, there.clone(), user);
    }
    let missing = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./missing"}});
    kubeconfig.add("missing", there, missing);
    kubeconfig.write();
    let stage = stage(&kubeconfig, &[]).await;
    whole(&stage, &["member1"]).await;
    for words in [
        ": user name and password are not taken by API servers any more",
        "nowhere cannot be read",
        "the CA bundle has no valid PEM certificate",
        "the exec plugin sh has failed (exit status: 3)",
        "the exec plugin sh printed no ExecCredential",
        "missing cannot be run",
        "exec plugins have not ended; their clusters join when they have",
    ] {
        stage.logged(words, 1).await;
    }
    assert!(!log(&stage).contains("s3cr3t"));
    assert!(stage.metrics().await.contains("karmada_metrics_adapter_clusters{standing=\"outside\"} 7"));
    // What a plugin has started ends with its context.
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
async fn a_plugins_login_is_renewed_before_it_ends_and_when_a_member_refuses_it() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..1]);
    let member = &fleet[1];
    kubeconfig.put("current", &member.token());
    let user = kubeconfig.plugin("plugin.sh", "cat lasts >> runs\nsay $(cat current) $(cat lasts)");
    kubeconfig.put("lasts", "4\n");
    kubeconfig.add("plugin", cluster(member), user);
    kubeconfig.write();
    let both = ["member1", "plugin"];
    let stage = stage(&kubeconfig, &["--discovery-interval=100ms"]).await;
    for _ in 0..3 {
        kubeconfig.put("current", &member.rotate_token_keeping_old());
        tokio::time::timeout(GENEROUS, member.asked_with_newest_token()).await.expect("the login is renewed");
        whole(&stage, &both).await;
    }
    kubeconfig.put("lasts", "3600\n");
    let lasts = async {
        while kubeconfig.read("runs").lines().last() != Some("3600") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(GENEROUS, lasts).await.expect("the login is renewed");
    kubeconfig.put("current", &member.rotate_token());
    let again = async { while !stage.get(PODS).await.warnings().is_empty() {} };
    tokio::time::timeout(GENEROUS, again).await.expect("the plugin is run when the login is refused");
    whole(&stage, &both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_last_good_fleet_and_is_an_error_at_the_start() {
    let fleet = members(2, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet);
    let both = ["member1", "member2"];
    let stage = stage(&kubeconfig, &["--reload-interval=50ms", "--discovery-interval=100ms"]).await;
    let broken = "users:\n- name: a\n  user: {token: \"s3cr3t\n";
    let not_yaml = "the kubeconfig cannot be used: line 3 is no valid YAML";
    let empty = "the kubeconfig has no contexts, and each would be a member";
    for (round, (text, complaint)) in
        [(broken, not_yaml), ("", empty), ("contexts: []\n", empty)].into_iter().enumerate()
    {
        kubeconfig.put("config", text);
        stage.logged(REFUSED, round + 1).await;
        whole(&stage, &both).await;
        let (code, _, err) = run(&[&kubeconfig.flag(), "--secure-port=0", "--cert-dir="]).await;
        let line = format!("karmada-metrics-adapter: --fleet-kubeconfig: {complaint}");
        assert_eq!((code, err.lines().last()), (Some(1), Some(line.as_str())));
        assert!(!err.contains("s3cr3t"), "{err}");
        kubeconfig.add("member1", cluster(&fleet[0]), json!({"token": fleet[0].rotate_token_keeping_old()}));
        kubeconfig.write();
        tokio::time::timeout(GENEROUS, fleet[0].asked_with_newest_token())
            .await
            .expect("a good file is used");
    }
    fs::remove_file(kubeconfig.path()).expect("removed");
    stage.logged(REFUSED, 4).await;
    whole(&stage, &both).await;
    assert!(!log(&stage).contains("s3cr3t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_fail_are_named_by_their_tags() {
    let fleet = members(3, 1).await;
    let mut kubeconfig = Kubeconfig::of(&fleet[..2]);
    kubeconfig.add("prod/member3", cluster(&fleet[2]), json!({"token": fleet[2].token()}));
    kubeconfig.write();
    let stage = stage(&kubeconfig, &[]).await;
    whole(&stage, &["member1", "member2", "prod-member3"]).await;
    fleet[2].fault(Fault::Refused);
    let answer = stage.get(PODS).await;
    assert_eq!(clusters(&answer.json().expect("JSON")), ["member1", "member2"]);
    let [warning] = &answer.warnings()[..] else { panic!("{:?}", answer.warnings()) };
    assert!(warning.contains("values of 1 cluster are missing: prod-member3: the API server "), "{warning}");
    fleet[1].fault_on("/apis/custom.metrics.k8s.io", Fault::Abort);
    let answer = stage.get(PODS).await;
    assert_eq!(
        clusters(&answer.json().expect("JSON")),
        ["member1", "member2"],
        "a last known value stands in"
    );
}
