//! Trusted CAs from files and from the ConfigMap, and their changes at run time.

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

/// The headers of a front proxy for `admin`.
const AS_ADMIN: [(&str, &str); 2] = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];
const DISCOVERY: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const CONFIG_MAP: &str = "extension-apiserver-authentication";
/// A short interval between reloads of files.
const SOON: &str = "--reload-interval=20ms";
/// With this flag, the client CA comes from the ConfigMap.
const NO_FILE: &str = "--client-ca-file=";

/// A file that is mounted like the key of a Secret: a symbolic link through another link, which is replaced.
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
        std::fs::rename(at("..data_tmp"), at("..data")).expect("the link is replaced");
    }
}

/// Changes keys of the ConfigMap. `null` removes a key.
fn publish(stage: &Stage, keys: &[(&str, Value)]) {
    let map = stage.fleet.plane.object("ConfigMap", "kube-system", CONFIG_MAP).expect("the ConfigMap");
    let mut map = Value::clone(&map);
    for (key, value) in keys {
        match value {
            Value::Null => drop(map["data"].as_object_mut().expect("data").remove(*key)),
            value => map["data"][*key] = value.clone(),
        }
    }
    stage.fleet.plane.apply(map).expect("the ConfigMap is applied");
}

/// Repeats a request until the response has this status. A changed CA has no other visible effect.
async fn until(client: &ApiClient, status: StatusCode) {
    let deadline = Instant::now() + GENEROUS;
    loop {
        let response = send(client, "GET", DISCOVERY, &AS_ADMIN, "").await;
        if response.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "the status is {} instead of {status}", response.status);
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
        assert!(Instant::now() < deadline, "no log line contains {words:?}:\n{log}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn status(client: &ApiClient) -> StatusCode {
    send(client, "GET", DISCOVERY, &AS_ADMIN, "").await.status
}

fn client_of(stage: &Stage, ca: &Authority) -> ApiClient {
    let identity = ca.client("front-proxy-client", &["system:masters"]);
    client(&stage.adapter, Credentials::Certificate(&identity))
}

async fn bare(flags: &[&str]) -> Stage {
    Stage::start_bare(members(1, 1).await, flags).await
}

fn flag(name: &str, file: &Path) -> String {
    format!("--{name}={}", file.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_settings_come_from_flag_or_config_map() {
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
        assert_eq!(status(&client_of(&stage, &clients)).await, expected(client_file), "{context}");
        assert_eq!(status(&published).await, expected(!client_file), "{context}");
        assert_eq!(status(&client_of(&stage, &proxy)).await, expected(proxy_file), "{context}");
        assert_eq!(stage.get(DISCOVERY).await.status, expected(!proxy_file), "{context}");
        let reads = plane.requests().iter().any(|request| request.path.starts_with(CONFIG_MAPS));
        assert_eq!(
            reads,
            !(client_file && proxy_file),
            "the ConfigMap is read only for missing files: {context}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn config_map_is_watched_by_name() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let watch = stage
        .fleet
        .plane
        .wait_for_request(|request| request.verb == "watch" && request.path == CONFIG_MAPS)
        .await;
    assert!(watch.query.contains(&format!("fieldSelector=metadata.name%3D{CONFIG_MAP}")), "{}", watch.query);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_ca_file_keeps_the_last_valid_one() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let file = Mounted::new(&old.pem());
    let stage = bare(&[&flag("client-ca-file", &file.file()), SOON]).await;
    let (before, after) = (client_of(&stage, &old), client_of(&stage, &new));
    assert_eq!((status(&before).await, status(&after).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    for (content, error) in [
        (String::new(), "has no certificate in PEM"),
        (new.pem()[..200].to_owned(), "is not PEM"),
        (
            format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", new.pem()),
            "a certificate in it is not usable",
        ),
    ] {
        file.swap(&content);
        logged(&stage.adapter, &["WARN", "--client-ca-file", error, "stays in use"]).await;
        assert_eq!((status(&before).await, status(&after).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    }
    file.swap(&new.pem());
    until(&after, StatusCode::OK).await;
    assert_eq!(status(&before).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_config_map_keeps_the_last_valid_settings() {
    let stage = Stage::start(members(1, 1).await, &[NO_FILE]).await;
    let plane = &stage.fleet.plane;
    let admin = plane.client_identity("admin", &["system:masters"]);
    let admin = client(&stage.adapter, Credentials::Certificate(&admin));
    let valid = plane.object("ConfigMap", "kube-system", CONFIG_MAP).expect("the ConfigMap");
    for (keys, words) in [
        (vec![("client-ca-file", json!(" "))], "the key client-ca-file is missing"),
        (vec![("client-ca-file", json!("nonsense"))], "client-ca-file has no usable CA bundle"),
        (
            vec![("requestheader-client-ca-file", Value::Null)],
            "the key requestheader-client-ca-file is missing",
        ),
        (vec![("requestheader-allowed-names", Value::Null)], "requestheader-allowed-names is missing"),
        (
            vec![("requestheader-allowed-names", json!("{}"))],
            "requestheader-allowed-names is not a JSON list",
        ),
        (vec![("requestheader-username-headers", json!("[\"a b\"]"))], "\"a b\" is not a valid header name"),
        (vec![("requestheader-extra-headers-prefix", json!("[\"\"]"))], "\"\" is not a valid header name"),
    ] {
        publish(&stage, &keys);
        logged(&stage.adapter, &["WARN", words, "stay in use"]).await;
        assert_eq!(status(&admin).await, StatusCode::OK, "{keys:?}");
        assert_eq!(stage.get(DISCOVERY).await.status, StatusCode::OK, "{keys:?}");
        plane.apply(Value::clone(&valid)).expect("the ConfigMap is applied");
    }
    plane.delete("ConfigMap", "kube-system", CONFIG_MAP);
    logged(&stage.adapter, &["WARN", "the ConfigMap was deleted"]).await;
    assert_eq!(status(&admin).await, StatusCode::OK);
    plane.drop_watches();
    plane.compact();
    assert_eq!(stage.get(DISCOVERY).await.status, StatusCode::OK);
    let (old, new) = (admin, Authority::new("new-client-ca"));
    let mut map = Value::clone(&valid);
    map["data"]["client-ca-file"] = json!(new.pem());
    plane.apply(map).expect("the ConfigMap is applied");
    until(&client_of(&stage, &new), StatusCode::OK).await;
    assert_eq!(status(&old).await, StatusCode::UNAUTHORIZED, "the ConfigMap is watched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_part_does_not_block_other_parts() {
    let stage = Stage::start(members(1, 1).await, &[NO_FILE]).await;
    let new = Authority::new("new-client-ca");
    let malformed = ("requestheader-client-ca-file", json!("nonsense"));
    publish(&stage, &[malformed, ("client-ca-file", json!(new.pem()))]);
    until(&client_of(&stage, &new), StatusCode::OK).await;
    assert_eq!(stage.get(DISCOVERY).await.status, StatusCode::OK, "the front proxy's CA is unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_config_map_is_tolerated_only_with_the_flag() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let map = fleet.plane.object("ConfigMap", "kube-system", CONFIG_MAP).expect("the ConfigMap");
    fleet.plane.delete("ConfigMap", "kube-system", CONFIG_MAP);

    let mut strict = fleet.run_adapter(binary(), &[], None).expect("the adapter starts");
    let ended = tokio::time::timeout(GENEROUS, strict.ended()).await.expect("the adapter exits in time");
    assert_eq!(ended.expect("an exit status").code(), Some(1));
    logged(&strict, &[CONFIG_MAP, "--authentication-tolerate-lookup-failure"]).await;

    let flags = ["--authentication-tolerate-lookup-failure".to_owned(), NO_FILE.to_owned()];
    let mut adapter = fleet.run_adapter(binary(), &flags, None).expect("the adapter starts");
    adapter.ready(GENEROUS).await.expect("the adapter is ready");
    let stage = Stage::of(fleet, adapter);
    let response = stage.get(DISCOVERY).await;
    assert_eq!(response.status, StatusCode::FORBIDDEN, "the front proxy is not trusted yet");
    stage.fleet.plane.apply(Value::clone(&map)).expect("the ConfigMap is applied");
    let deadline = Instant::now() + GENEROUS;
    while stage.get(DISCOVERY).await.status != StatusCode::OK {
        assert!(Instant::now() < deadline, "{}", stage.adapter.log_tail());
    }
    let admin = stage.fleet.plane.client_identity("admin", &["system:masters"]);
    assert_eq!(status(&client(&stage.adapter, Credentials::Certificate(&admin))).await, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_lookup_uses_only_files() {
    let stage = bare(&["--authentication-skip-lookup"]).await;
    let plane = &stage.fleet.plane;
    let admin = plane.client_identity("admin", &["system:masters"]);
    assert_eq!(
        status(&client(&stage.adapter, Credentials::Certificate(&admin))).await,
        StatusCode::OK,
        "the client CA file is used"
    );
    assert_eq!(
        stage.get(DISCOVERY).await.status,
        StatusCode::UNAUTHORIZED,
        "the front proxy of the ConfigMap is not trusted"
    );
    assert_eq!(plane.requests().iter().filter(|request| request.path.starts_with(CONFIG_MAPS)).count(), 0);
}

/// Load with one kind of client. Each request succeeds with a valid certificate.
struct Load {
    current: RwLock<ApiClient>,
    ended: AtomicBool,
    responses: AtomicUsize,
}

impl Load {
    fn of(first: ApiClient) -> Arc<Self> {
        Arc::new(Self { current: RwLock::new(first), ended: false.into(), responses: 0.into() })
    }

    async fn run(self: Arc<Self>) {
        while !self.ended.load(Ordering::Relaxed) {
            let client = self.current.read().await;
            for path in [DISCOVERY, PODS] {
                let response = send(&client, "GET", path, &AS_ADMIN, "").await;
                assert_eq!(response.status, StatusCode::OK, "{:?}", response.body);
                self.responses.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Replaces the CA `times` times: first both CAs are trusted, then only the new one when no client uses the old one.
    async fn rotate(&self, stage: &Stage, times: usize, first: Authority, publish: impl Fn(String)) {
        let mut old = first;
        for number in 0..times {
            // CA names repeat, as after a renewal with a new key.
            let new = Authority::new(if number % 2 == 0 { "rotated-ca" } else { "renamed-ca" });
            let (before, after) = (client_of(stage, &old), client_of(stage, &new));
            publish(format!("{}{}", old.pem(), new.pem()));
            until(&after, StatusCode::OK).await;
            assert_eq!(status(&before).await, StatusCode::OK, "both CAs are trusted");
            *self.current.write().await = after;
            publish(new.pem());
            until(&before, StatusCode::UNAUTHORIZED).await;
            old = new;
        }
        self.ended.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ca_rotation_under_load_fails_no_request() {
    rotations(50, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ca_rotation_works_from_the_other_source() {
    rotations(10, false).await;
}

/// Rotates both CAs at the same time, one in a file and one in the ConfigMap.
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
    let (file_load, map_load) = (Load::of(client_of(&stage, in_file)), Load::of(client_of(&stage, in_map)));
    until(&client_of(&stage, in_map), StatusCode::OK).await;
    let running: Vec<_> =
        [&file_load, &map_load, &file_load, &map_load].map(|load| tokio::spawn(load.clone().run())).into();
    let (in_file, in_map) = if clients_in_file { (clients, proxy) } else { (proxy, clients) };
    tokio::join!(
        file_load.rotate(&stage, times, in_file, |pem| file.swap(&pem)),
        map_load.rotate(&stage, times, in_map, |pem| publish(&stage, &[(key, json!(pem))])),
    );
    for load in running {
        load.await.expect("every response is 200");
    }
    for load in [&file_load, &map_load] {
        let responses = load.responses.load(Ordering::Relaxed);
        assert!(responses >= times, "only {responses} responses in {times} rotations");
    }
}
