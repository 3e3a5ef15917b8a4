//! Whom to believe, from files and from the ConfigMap, while it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use testkit::adapter::AdapterProcess;
use testkit::api_client::{ApiClient, Credentials};
use testkit::fleet::Fleet;
use testkit::pki::Authority;
use tokio::sync::RwLock;

use crate::stage::{GENEROUS, PODS, Stage, binary, client, members, send};

/// The path and headers by which a front proxy asks.
const AS_ADMIN: [(&str, &str); 2] = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
const DISCOVERY: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const CONFIG_MAP: &str = "extension-apiserver-authentication";
/// Files are looked at this often.
const SOON: &str = "--reload-interval=20ms";
/// The client CA is the ConfigMap's.
const NO_FILE: &str = "--client-ca-file=";

/// A file in a directory as Kubernetes mounts Secrets: a link to a link, which is swapped.
struct Mounted {
    directory: tempfile::TempDir,
    versions: AtomicUsize,
}

impl Mounted {
    fn new(content: &str) -> Self {
        let mounted =
            Self { directory: tempfile::tempdir().expect("a directory"), versions: AtomicUsize::new(0) };
        std::os::unix::fs::symlink("..data/ca.crt", mounted.file()).expect("a link");
        mounted.swap(content);
        mounted
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    fn swap(&self, content: &str) {
        let version = format!("..version-{}", self.versions.fetch_add(1, Ordering::Relaxed));
        let at = |name: &str| self.directory.path().join(name);
        std::fs::create_dir(at(&version)).expect("a directory");
        std::fs::write(at(&version).join("ca.crt"), content).expect("a file");
        std::os::unix::fs::symlink(&version, at("..data_tmp")).expect("a link");
        std::fs::rename(at("..data_tmp"), at("..data")).expect("the link is swapped");
    }
}

/// Changes keys of the ConfigMap; `null` removes one.
fn publish(stage: &Stage, keys: &[(&str, Value)]) {
    let map = stage.fleet.plane.object("ConfigMap", "kube-system", CONFIG_MAP).expect("the ConfigMap");
    let mut map = Value::clone(&map);
    for (key, value) in keys {
        match value {
            Value::Null => drop(map["data"].as_object_mut().expect("data").remove(*key)),
            value => map["data"][*key] = value.clone(),
        }
    }
    stage.fleet.plane.apply(map).expect("it is applied");
}

/// Asks until the answer has this status; nothing outside tells that a change has been taken over.
async fn until(client: &ApiClient, status: StatusCode) {
    let deadline = Instant::now() + GENEROUS;
    loop {
        let answer = send(client, "GET", DISCOVERY, &AS_ADMIN, "").await;
        if answer.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "still {} and not {status}", answer.status);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for a line in the adapter's log.
async fn logged(adapter: &AdapterProcess, words: &[&str]) {
    let deadline = Instant::now() + GENEROUS;
    loop {
        let log = std::fs::read_to_string(adapter.log()).expect("a log");
        if log.lines().any(|line| words.iter().all(|word| line.contains(word))) {
            return;
        }
        assert!(Instant::now() < deadline, "no line has {words:?}:\n{log}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn status(client: &ApiClient) -> StatusCode {
    send(client, "GET", DISCOVERY, &AS_ADMIN, "").await.status
}

fn of(stage: &Stage, authority: &Authority) -> ApiClient {
    let identity = authority.client("front-proxy-client", &["system:masters"]);
    client(&stage.adapter, Credentials::Certificate(&identity))
}

async fn bare(flags: &[&str]) -> Stage {
    Stage::start_bare(members(1, 1).await, flags).await
}

fn flag(name: &str, file: &Path) -> String {
    format!("--{name}={}", file.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_the_two_choices_comes_from_its_flag_or_from_the_config_map() {
    for (client_file, proxy_file) in [(true, true), (true, false), (false, true), (false, false)] {
        let (clients, proxy) = (Authority::new("own-client-ca"), Authority::new("own-proxy-ca"));
        let (client_ca, proxy_ca) = (Mounted::new(&clients.pem()), Mounted::new(&proxy.pem()));
        let mut flags = vec![NO_FILE.to_owned()];
        if client_file {
            flags.push(flag("client-ca-file", &client_ca.file()));
        }
        if proxy_file {
            flags.push(flag("requestheader-client-ca-file", &proxy_ca.file()));
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let stage = bare(&flags).await;
        let plane = &stage.fleet.plane;
        let published = plane.client_identity("admin", &["system:masters"]);
        let published = client(&stage.adapter, Credentials::Certificate(&published));
        let expected = |own: bool| if own { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        let context = format!("{flags:?}");
        assert_eq!(status(&of(&stage, &clients)).await, expected(client_file), "{context}");
        assert_eq!(status(&published).await, expected(!client_file), "{context}");
        assert_eq!(status(&of(&stage, &proxy)).await, expected(proxy_file), "{context}");
        assert_eq!(stage.get(DISCOVERY).await.status, expected(!proxy_file), "{context}");
        let reads = plane.requests().iter().any(|request| request.path.starts_with(CONFIG_MAPS));
        assert_eq!(reads, !(client_file && proxy_file), "it is read only if something is missing: {context}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_config_map_is_watched_by_its_name() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let watch =
        stage.fleet.plane.seen(|request| request.verb == "watch" && request.path == CONFIG_MAPS).await;
    assert!(watch.query.contains(&format!("fieldSelector=metadata.name%3D{CONFIG_MAP}")), "{}", watch.query);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_authority_file_is_refused_and_the_last_good_one_stays() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let file = Mounted::new(&old.pem());
    let stage = bare(&[&flag("client-ca-file", &file.file()), SOON]).await;
    let (before, after) = (of(&stage, &old), of(&stage, &new));
    assert_eq!((status(&before).await, status(&after).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    for (content, complaint) in [
        (String::new(), "has no certificate in PEM"),
        (new.pem()[..200].to_owned(), "is no PEM"),
        (
            format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", new.pem()),
            "a certificate in it cannot be used",
        ),
    ] {
        file.swap(&content);
        logged(&stage.adapter, &["WARN", "--client-ca-file", complaint, "stays in use"]).await;
        assert_eq!((status(&before).await, status(&after).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    }
    file.swap(&new.pem());
    until(&after, StatusCode::OK).await;
    assert_eq!(status(&before).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_config_map_loses_or_garbles_is_believed_further() {
    let stage = Stage::start(members(1, 1).await, &[NO_FILE]).await;
    let plane = &stage.fleet.plane;
    let admin = plane.client_identity("admin", &["system:masters"]);
    let admin = client(&stage.adapter, Credentials::Certificate(&admin));
    let good = plane.object("ConfigMap", "kube-system", CONFIG_MAP).expect("the ConfigMap");
    for (keys, words) in [
        (vec![("client-ca-file", json!(" "))], "the key client-ca-file is missing"),
        (vec![("client-ca-file", json!("nonsense"))], "client-ca-file names no authority"),
        (
            vec![("requestheader-client-ca-file", Value::Null)],
            "the key requestheader-client-ca-file is missing",
        ),
        (vec![("requestheader-allowed-names", Value::Null)], "requestheader-allowed-names is missing"),
        (vec![("requestheader-allowed-names", json!("{}"))], "requestheader-allowed-names is no JSON list"),
        (vec![("requestheader-username-headers", json!("[\"a b\"]"))], "\"a b\" is no header name"),
        (vec![("requestheader-extra-headers-prefix", json!("[\"\"]"))], "\"\" is no header name"),
    ] {
        publish(&stage, &keys);
        logged(&stage.adapter, &["WARN", words, "stays in use"]).await;
        assert_eq!(status(&admin).await, StatusCode::OK, "{keys:?}");
        assert_eq!(stage.get(DISCOVERY).await.status, StatusCode::OK, "{keys:?}");
        plane.apply(Value::clone(&good)).expect("it is applied");
    }
    plane.delete("ConfigMap", "kube-system", CONFIG_MAP);
    logged(&stage.adapter, &["WARN", "it is gone"]).await;
    assert_eq!(status(&admin).await, StatusCode::OK);
    plane.drop_watches();
    plane.compact();
    assert_eq!(stage.get(DISCOVERY).await.status, StatusCode::OK);
    let (old, new) = (admin, Authority::new("new-client-ca"));
    let mut map = Value::clone(&good);
    map["data"]["client-ca-file"] = json!(new.pem());
    plane.apply(map).expect("it is applied");
    until(&of(&stage, &new), StatusCode::OK).await;
    assert_eq!(status(&old).await, StatusCode::UNAUTHORIZED, "it is followed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_part_that_is_garbled_keeps_no_other_from_changing() {
    let stage = Stage::start(members(1, 1).await, &[NO_FILE]).await;
    let new = Authority::new("new-client-ca");
    let garbled = ("requestheader-client-ca-file", json!("nonsense"));
    publish(&stage, &[garbled, ("client-ca-file", json!(new.pem()))]);
    until(&of(&stage, &new), StatusCode::OK).await;
    assert_eq!(stage.get(DISCOVERY).await.status, StatusCode::OK, "the front proxy is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_config_map_it_starts_only_if_told_and_takes_it_over_when_it_appears() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let map = fleet.plane.object("ConfigMap", "kube-system", CONFIG_MAP).expect("the ConfigMap");
    fleet.plane.delete("ConfigMap", "kube-system", CONFIG_MAP);

    let mut strict = fleet.run_adapter(binary(), &[], None).expect("it runs");
    let ended = tokio::time::timeout(GENEROUS, strict.ended()).await.expect("it ends in time");
    assert_eq!(ended.expect("it ran").code(), Some(1));
    logged(&strict, &[CONFIG_MAP, "--authentication-tolerate-lookup-failure"]).await;

    let flags = ["--authentication-tolerate-lookup-failure".to_owned(), NO_FILE.to_owned()];
    let mut adapter = fleet.run_adapter(binary(), &flags, None).expect("it runs");
    adapter.ready(GENEROUS).await.expect("it is ready");
    let stage = Stage::of(fleet, adapter);
    let refused = stage.get(DISCOVERY).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "the front proxy is nobody in particular so far");
    stage.fleet.plane.apply(Value::clone(&map)).expect("it is applied");
    let deadline = Instant::now() + GENEROUS;
    while stage.get(DISCOVERY).await.status != StatusCode::OK {
        assert!(Instant::now() < deadline, "{}", stage.adapter.log_tail());
    }
    let admin = stage.fleet.plane.client_identity("admin", &["system:masters"]);
    assert_eq!(status(&client(&stage.adapter, Credentials::Certificate(&admin))).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_lookup_skipped_only_files_count() {
    let stage = bare(&["--authentication-skip-lookup"]).await;
    let plane = &stage.fleet.plane;
    let admin = plane.client_identity("admin", &["system:masters"]);
    assert_eq!(
        status(&client(&stage.adapter, Credentials::Certificate(&admin))).await,
        StatusCode::OK,
        "a file"
    );
    assert_eq!(stage.get(DISCOVERY).await.status, StatusCode::UNAUTHORIZED, "the ConfigMap's front proxy");
    assert_eq!(plane.requests().iter().filter(|request| request.path.starts_with(CONFIG_MAPS)).count(), 0);
}

/// One kind of client under load: each request is sent and answered while its certificate holds.
struct Load {
    current: RwLock<ApiClient>,
    ended: AtomicBool,
    answered: AtomicUsize,
}

impl Load {
    fn of(first: ApiClient) -> Arc<Self> {
        Arc::new(Self { current: RwLock::new(first), ended: false.into(), answered: 0.into() })
    }

    async fn run(self: Arc<Self>) {
        while !self.ended.load(Ordering::Relaxed) {
            let client = self.current.read().await;
            for path in [DISCOVERY, PODS] {
                let answer = send(&client, "GET", path, &AS_ADMIN, "").await;
                assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Replaces the authority so often: first beside the old one, and alone once nobody uses the old one any more.
    async fn rotate(&self, stage: &Stage, times: usize, first: Authority, publish: impl Fn(String)) {
        let mut old = first;
        for number in 0..times {
            // The same name each time, as after a renewal with a new key.
            let new = Authority::new(if number % 2 == 0 { "rotated-ca" } else { "renamed-ca" });
            let (before, after) = (of(stage, &old), of(stage, &new));
            publish(format!("{}{}", old.pem(), new.pem()));
            until(&after, StatusCode::OK).await;
            assert_eq!(status(&before).await, StatusCode::OK, "both hold");
            *self.current.write().await = after;
            publish(new.pem());
            until(&before, StatusCode::UNAUTHORIZED).await;
            old = new;
        }
        self.ended.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_rotations_of_each_authority_under_load_fail_no_request() {
    rotations(50, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_rotate_as_well_from_the_other_source() {
    rotations(10, false).await;
}

/// Rotates both authorities at the same time, one in a file and one in the ConfigMap.
async fn rotations(times: usize, clients_in_file: bool) {
    let (clients, proxy) = (Authority::new("client-ca"), Authority::new("proxy-ca"));
    let (in_file, in_map, key, flags) = if clients_in_file {
        (&clients, &proxy, "requestheader-client-ca-file", ["", "client-ca-file"])
    } else {
        (&proxy, &clients, "client-ca-file", [NO_FILE, "requestheader-client-ca-file"])
    };
    let file = Mounted::new(&in_file.pem());
    let flag = flag(flags[1], &file.file());
    let flags: Vec<&str> = [flags[0], &flag, SOON].into_iter().filter(|flag| !flag.is_empty()).collect();
    let stage = bare(&flags).await;
    publish(&stage, &[(key, json!(in_map.pem()))]);
    let (file_load, map_load) = (Load::of(of(&stage, in_file)), Load::of(of(&stage, in_map)));
    until(&of(&stage, in_map), StatusCode::OK).await;
    let running: Vec<_> =
        [&file_load, &map_load, &file_load, &map_load].map(|load| tokio::spawn(load.clone().run())).into();
    let (in_file, in_map) = if clients_in_file { (clients, proxy) } else { (proxy, clients) };
    tokio::join!(
        file_load.rotate(&stage, times, in_file, |pem| file.swap(&pem)),
        map_load.rotate(&stage, times, in_map, |pem| publish(&stage, &[(key, json!(pem))])),
    );
    for load in running {
        load.await.expect("every request was answered with 200");
    }
    for load in [&file_load, &map_load] {
        let answered = load.answered.load(Ordering::Relaxed);
        assert!(answered >= times, "only {answered} requests were answered in {times} rotations");
    }
}
