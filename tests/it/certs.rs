//! `certs issue` makes pairs that the aggregation layer accepts; `certs show` reports problems of existing certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use testkit::adapter::AdapterProcess;
use testkit::control_plane::{CUSTOM_METRICS, ControlPlane};
use testkit::fleet::{Fleet, PREFERRED};
use testkit::kubectls;
use testkit::pki::{Authority, Identity};
use tokio::process::Command;

use crate::process::run;
use crate::stage::{GENEROUS, PODS, binary, members};

const NAME: &str = "karmada-metrics-adapter.karmada-system.svc";

/// A directory for issued certificates.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// A path in the directory, as an argument.
    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).expect("a file")
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.at(name), text).expect("a file is written");
        self.at(name)
    }

    /// Runs `certs issue` for the directory and returns its output.
    async fn issue(&self, flags: &[&str]) -> String {
        let directory = self.at("");
        let (code, out, err) = run(&[&["certs", "issue", "--out-dir", &directory], flags].concat()).await;
        assert_eq!((code, err.as_str()), (Some(0), ""));
        out
    }

    /// Issues a new certificate from the directory's CA and replaces the old one.
    async fn renew(&self, flags: &[&str]) -> String {
        let (certificate, key) = (self.at("ca.crt"), self.at("ca.key"));
        self.issue(&[&["--ca-cert", &certificate, "--ca-key", &key, "--force"], flags].concat()).await
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("a directory");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

/// Runs a `certs` command that fails and returns its one-line error.
async fn failure(arguments: &[&str]) -> String {
    let (code, out, err) = run(&[&["certs"], arguments].concat()).await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    err.trim_end().strip_prefix("karmada-metrics-adapter: ").expect("the program's name").to_owned()
}

/// Runs `certs show -o json` and returns its exit code and output.
async fn show(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, out, _) = run(&[&["certs", "show", "-o", "json"], arguments].concat()).await;
    (code, serde_json::from_str(&out).expect("JSON"))
}

/// The CA bundle for the APIServices, from the line `caBundle:`.
fn ca_bundle(printed: &str) -> String {
    let line = printed.lines().find_map(|line| line.strip_prefix("caBundle: ")).expect("the line");
    String::from_utf8(STANDARD.decode(line).expect("base64")).expect("PEM")
}

/// Starts an adapter that serves with the folder's pair.
fn serve(fleet: &Fleet, folder: &Folder) -> AdapterProcess {
    let flags = [
        format!("--tls-cert-file={}", folder.at("tls.crt")),
        format!("--tls-private-key-file={}", folder.at("tls.key")),
        "--reload-interval=100ms".to_owned(),
    ];
    fleet.run_adapter(binary(), &flags, None).expect("the adapter starts")
}

/// Registers the adapter with this CA bundle. Like in kube-apiserver up to 1.34, an APIService can be available with an invalid
/// certificate; clients then get the error.
async fn register(fleet: &Fleet, adapter: &AdapterProcess, bundle: &str) {
    fleet.plane.probe_without_verifying();
    let registered = fleet.plane.register_backend(adapter.address(), Some(bundle), &CUSTOM_METRICS);
    registered.expect("the APIServices are registered");
    let available = tokio::time::timeout(GENEROUS, fleet.plane.available(PREFERRED)).await;
    available.expect("the APIService is available in time").expect("the APIService is registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregation_layer_accepts_only_a_pair_for_the_right_service() {
    let (ours, strange) = (Folder::new(), Folder::new());
    let bundle = ca_bundle(&ours.issue(&[]).await);
    let strange_bundle = ca_bundle(&strange.issue(&["--service=another", "--namespace=elsewhere"]).await);
    assert_eq!(bundle, ours.read("ca.crt"));
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");

    for (folder, bundle, status) in [
        (&strange, &strange_bundle, StatusCode::SERVICE_UNAVAILABLE),
        (&ours, &bundle, StatusCode::OK),
        // The name is right, but another CA is registered.
        (&ours, &strange_bundle, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let adapter = serve(&fleet, folder);
        register(&fleet, &adapter, bundle).await;
        let response = fleet.plane.admin_client().get(PODS).await.expect("a response");
        assert_eq!(response.status, status, "{:?}", response.body);
        if status != StatusCode::OK {
            let body = String::from_utf8_lossy(&response.body);
            assert!(body.contains("certificate"), "the certificate is rejected: {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_pair_is_served_without_restart_or_new_ca_bundle() {
    let folder = Folder::new();
    let bundle = ca_bundle(&folder.issue(&["--validity=20d"]).await);
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let adapter = serve(&fleet, &folder);
    register(&fleet, &adapter, &bundle).await;
    let query = async || fleet.plane.admin_client().get(PODS).await.expect("a response").status;
    assert_eq!(query().await, StatusCode::OK);

    let address = adapter.address().to_string();
    let (code, list) = show(&[&address, "--service=karmada-metrics-adapter"]).await;
    assert_eq!((code, &list[0]["problems"]), (Some(1), &serde_json::json!(["EndsSoon"])), "{list}");
    assert_eq!(list[0]["source"], address.as_str());
    let printed = folder.renew(&["--validity=90d"]).await;
    assert_eq!(ca_bundle(&printed), bundle);
    let deadline = Instant::now() + GENEROUS;
    loop {
        let (code, list) = show(&[&address, "--service=karmada-metrics-adapter"]).await;
        assert_eq!(query().await, StatusCode::OK);
        if list[0]["daysLeft"] == 89 || list[0]["daysLeft"] == 90 {
            assert_eq!(code, Some(0), "{list}");
            break;
        }
        assert!(Instant::now() < deadline, "{}", adapter.log_tail());
    }
    // This opens a new connection, which gets the new certificate.
    register(&fleet, &adapter, &bundle).await;
    assert_eq!(query().await, StatusCode::OK);
}

#[tokio::test]
async fn keys_are_private_and_files_are_replaced_only_on_request() {
    let folder = Folder::new();
    folder.issue(&[]).await;
    assert_eq!(folder.names(), ["ca.crt", "ca.key", "tls.crt", "tls.key"], "no temporary files");
    for name in ["ca.key", "tls.key"] {
        let mode = fs::metadata(folder.at(name)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let before = folder.names().iter().map(|name| folder.read(name)).collect::<Vec<_>>();
    let directory = folder.at("");
    let line = failure(&["issue", "--out-dir", &directory]).await;
    assert!(line.contains("tls.key") && line.contains("or allow it with --force"), "{line}");
    let (certificate, key) = (folder.at("ca.crt"), folder.at("ca.key"));
    let signed = ["issue", "--out-dir", &directory, "--ca-cert", &certificate, "--ca-key", &key];
    let line = failure(&signed).await;
    assert!(!line.contains("ca.crt") && !line.contains("ca.key"), "{line}");
    let after = folder.names().iter().map(|name| folder.read(name)).collect::<Vec<_>>();
    assert_eq!(after, before);

    folder.renew(&[]).await;
    assert_eq!((folder.read("ca.crt"), folder.read("ca.key")), (before[0].clone(), before[1].clone()));
    assert_ne!(folder.read("tls.crt"), before[2]);
    let mode = fs::metadata(folder.at("tls.key")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let line = failure(&["issue", "--out-dir", &certificate]).await;
    assert!(line.starts_with(&certificate) && line.contains("cannot be written: "), "{line}");
}

#[tokio::test]
async fn output_contains_expiry_and_next_steps() {
    let folder = Folder::new();
    let directory = folder.at("made/of/new");
    let flags = ["--namespace=metrics", "--dns-name=m.example", "--ip=10.0.0.7,127.0.0.1", "--out-dir"];
    let (_, printed, _) = run(&[&["certs", "issue"], &flags[..], &[&directory]].concat()).await;
    let at = |name: &str| Path::new(&directory).join(name).display().to_string();
    for words in [
        format!("{}: the private key of the CA; never put it into a cluster\n", at("ca.key")),
        "for karmada-metrics-adapter.metrics.svc, karmada-metrics-adapter.metrics.svc.cluster.local, \
         karmada-metrics-adapter.metrics, karmada-metrics-adapter, localhost, 127.0.0.1, m.example, 10.0.0.7\n"
            .to_owned(),
        format!(
            "kubectl -n metrics create secret tls karmada-metrics-adapter-serving --cert={} --key={} ",
            at("tls.crt"),
            at("tls.key")
        ),
    ] {
        assert!(printed.contains(&words), "{words} is not in\n{printed}");
    }
    let (_, list) = show(&[&at("tls.crt"), &at("ca.crt")]).await;
    let (certificate, ca) = (&list[0], &list[1]);
    assert!(printed.contains(&format!("expires {}, for", certificate["notAfter"].as_str().expect("text"))));
    assert!(certificate["daysLeft"] == 364 || certificate["daysLeft"] == 365, "{certificate}");
    assert!(ca["daysLeft"] == 3649 || ca["daysLeft"] == 3650, "{ca}");
    assert_eq!(certificate["issuer"], ca["subject"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn printed_command_creates_and_replaces_the_secret() {
    let plane = ControlPlane::start().await.expect("a control plane");
    let kubeconfig = plane.admin_kubeconfig().expect("a kubeconfig");
    if kubectls(&kubeconfig).is_empty() {
        return;
    }
    let folder = Folder::new();
    for printed in [folder.issue(&[]).await, folder.renew(&[]).await] {
        let line = printed.lines().find(|line| line.starts_with("kubectl ")).expect("a command");
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env("KUBECONFIG", &kubeconfig).env("HOME", folder.0.path());
        let output = shell.stdin(Stdio::null()).kill_on_drop(true).output();
        let output =
            tokio::time::timeout(GENEROUS, output).await.expect("kubectl exits in time").expect("a shell");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let secret = plane.object("Secret", "karmada-system", "karmada-metrics-adapter-serving");
        let secret = secret.expect("the Secret exists");
        assert_eq!(secret["type"], "kubernetes.io/tls");
        assert_eq!(secret["data"]["tls.crt"], STANDARD.encode(folder.read("tls.crt")), "{line}");
        assert_eq!(secret["data"]["tls.key"], STANDARD.encode(folder.read("tls.key")));
    }
}

#[tokio::test]
async fn certificate_does_not_outlive_its_ca() {
    let folder = Folder::new();
    folder.issue(&[]).await;
    folder.renew(&["--validity=9000d"]).await;
    let (_, list) = show(&[&folder.at("tls.crt"), &folder.at("ca.crt")]).await;
    assert_eq!(list[0]["notAfter"], list[1]["notAfter"]);
}

/// Writes a CA, changed by `adjust`, and its key into two files.
fn write_ca(folder: &Folder, adjust: impl FnOnce(&mut CertificateParams)) -> [String; 2] {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "odd");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    adjust(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    [folder.write("odd.crt", &certificate.pem()), folder.write("odd.key", &key.serialize_pem())]
}

#[tokio::test]
async fn unusable_ca_is_rejected_with_its_reason() {
    let (folder, other) = (Folder::new(), Folder::new());
    folder.issue(&[]).await;
    other.issue(&[]).await;
    let out = other.at("out");
    let refusal = async |certificate: &str, key: &str| {
        failure(&["issue", "--out-dir", &out, "--ca-cert", certificate, "--ca-key", key]).await
    };
    let (certificate, key) = (folder.at("ca.crt"), folder.at("ca.key"));

    let expired = write_ca(&other, |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let line = refusal(&expired[0], &expired[1]).await;
    assert!(line.starts_with("--ca-cert: CN=odd is valid from ") && line.contains("2020-01-01"), "{line}");
    let leaf = write_ca(&other, |params| params.is_ca = IsCa::NoCa);
    let not_a_ca = "is not a CA: this certificate may not sign other certificates";
    assert_eq!(refusal(&leaf[0], &leaf[1]).await, format!("--ca-cert: CN=odd {not_a_ca}"));
    let idle = write_ca(&other, |params| params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature]);
    assert_eq!(refusal(&idle[0], &idle[1]).await, format!("--ca-cert: CN=odd {not_a_ca}"));
    let narrow = write_ca(&other, |params| {
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let line = refusal(&narrow[0], &narrow[1]).await;
    assert!(
        line.starts_with("--ca-cert cannot sign this certificate, because clients would reject it: "),
        "{line}"
    );

    let line = refusal(&certificate, &other.at("ca.key")).await;
    assert!(line.starts_with("--ca-key does not belong to --ca-cert"), "{line}");
    let line = refusal(&key, &key).await;
    assert_eq!(line, format!("--ca-cert: {key} has no certificate in PEM"));
    let line = refusal(&certificate, &certificate).await;
    assert!(line.starts_with(&format!("--ca-key: {certificate} has no private key in PEM")), "{line}");
    let line = refusal(&certificate, "/nowhere/ca.key").await;
    assert!(line.starts_with("--ca-key: /nowhere/ca.key cannot be read: "), "{line}");
    assert!(!PathBuf::from(&out).exists(), "no file is written");

    let bundle = other.write("bundle.crt", &(other.read("ca.crt") + &folder.read("ca.crt")));
    let both = ["certs", "issue", "--out-dir", &out, "--ca-cert", &bundle, "--ca-key", &key];
    let (code, printed, err) = run(&both).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(ca_bundle(&printed), folder.read("ca.crt"), "the CA that belongs to the key is used");
}

#[tokio::test]
async fn show_fails_for_expired_expiring_or_misnamed_certificates() {
    let folder = Folder::new();
    let issuer = Authority::new("karmada");
    let put = |name: &str, Identity { certificate, .. }: Identity| folder.write(name, &certificate);
    let good = put("good.crt", issuer.server(&[NAME, "*.example.com", "10.0.0.1", "::1"]));
    let strange = put("strange.crt", issuer.server(&["localhost"]));
    let expired = put("expired.crt", issuer.expired_server(&[NAME]));
    let short = put("short.crt", issuer.short_lived_server(&[NAME], 3600));
    let ca = folder.write("ca.crt", &issuer.pem());

    let (code, list) = show(&[&good, &strange, &ca]).await;
    assert_eq!(code, Some(0), "{list}");
    assert_eq!(list[0]["names"], serde_json::json!([NAME, "*.example.com", "10.0.0.1", "::1"]));
    assert_eq!(
        (&list[0]["coversService"], &list[1]["coversService"], &list[2]["isCA"]),
        (&Value::Bool(true), &Value::Bool(false), &Value::Bool(true))
    );
    assert_eq!((&list[0]["issuer"], &list[0]["serviceName"]), (&"CN=karmada".into(), &NAME.into()));

    let named = "--service=karmada-metrics-adapter";
    let problems = async |arguments: &[&str]| {
        let (code, list) = show(arguments).await;
        let first = list[0]["problems"].as_array().expect("a list").clone();
        (code, first.iter().map(|problem| problem.as_str().expect("text").to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(problems(&[&good, &ca, named]).await, (Some(0), vec![]), "a CA needs no service name");
    assert_eq!(problems(&[&strange, named]).await, (Some(1), vec!["LacksServiceName".to_owned()]));
    let elsewhere = ["--namespace=elsewhere", named, &good];
    assert_eq!(problems(&elsewhere).await, (Some(1), vec!["LacksServiceName".to_owned()]));
    assert_eq!(problems(&[&expired]).await, (Some(1), vec!["Expired".to_owned()]));
    assert_eq!(problems(&[&short]).await, (Some(1), vec!["EndsSoon".to_owned()]));
    assert_eq!(problems(&[&short, "--warn=10m"]).await, (Some(0), vec![]));

    let (code, table, err) = run(&["certs", "show", &good, &expired, &strange, named]).await;
    assert_eq!(code, Some(1));
    assert_eq!(err, "karmada-metrics-adapter: 2 of 3 certificates have problems: see the column STATUS\n");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("SOURCE ") && lines[1].starts_with(&good), "{table}");
    assert!(lines[1].contains(" ok "), "{table}");
    assert!(lines[2].contains(" expired "), "{table}");
    assert!(lines[3].contains(&format!(" not valid for {NAME} ")), "{table}");
}

#[tokio::test]
async fn source_without_certificates_is_reported_beside_the_others() {
    let folder = Folder::new();
    folder.issue(&[]).await;
    let (key, certificate) = (folder.at("tls.key"), folder.at("tls.crt"));
    assert_eq!(failure(&["show", &key]).await, format!("{key}: no certificate in PEM"));
    let line = failure(&["show", "/nowhere/tls.crt"]).await;
    assert_eq!(line, "/nowhere/tls.crt: this file does not exist, and this is not HOST:PORT");
    // A port without a listener.
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let free = free.to_string();
    let (code, table, err) = run(&["certs", "show", &free, &certificate]).await;
    assert_eq!(code, Some(1));
    assert!(err.starts_with(&format!("karmada-metrics-adapter: {free}: cannot connect: ")), "{err}");
    assert!(table.contains(&certificate), "{table}");
}

/// Runs openssl in the folder. Returns its success and output, or `None` if openssl is not installed.
async fn openssl(folder: &Folder, arguments: &str) -> Option<(bool, String)> {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(folder.0.path()).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(GENEROUS, command.output()).await.expect("openssl exits in time")
    {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: openssl cannot be run: {error}");
            return None;
        }
    };
    let output_text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Some((output.status.success(), output_text))
}

#[tokio::test]
async fn openssl_verifies_chain_names_and_usages() {
    let folder = Folder::new();
    folder.issue(&["--dns-name=metrics.example"]).await;
    let verify = "verify -x509_strict -CAfile ca.crt -purpose sslserver";
    for (name, good) in [(NAME, true), ("metrics.example", true), ("karmada-system.svc", false)] {
        let result = openssl(&folder, &format!("{verify} -verify_hostname {name} tls.crt")).await;
        let Some((verified, output_text)) = result else { return };
        assert_eq!(verified, good, "{name}: {output_text}");
    }
    let text = openssl(&folder, "x509 -in tls.crt -noout -text").await.expect("openssl").1;
    for words in ["TLS Web Server Authentication", "CA:FALSE", "Authority Key Identifier", "prime256v1"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let text = openssl(&folder, "x509 -in ca.crt -noout -text").await.expect("openssl").1;
    for words in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "Subject Key Identifier"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
}

/// Karmada's installers create RSA keys, some in PKCS #1 form.
#[tokio::test]
async fn openssl_cas_sign_with_rsa_and_ec_keys() {
    let folder = Folder::new();
    let made = "req -x509 -nodes -days 30 -subj /O=karmada/CN=karmada";
    for (kind, form) in [("rsa:2048", "rsa -traditional"), ("ec -pkeyopt ec_paramgen_curve:P-384", "ec")] {
        let make = format!("{made} -newkey {kind} -keyout ca.key -out ca.crt");
        let Some((succeeded, output_text)) = openssl(&folder, &make).await else { return };
        assert!(succeeded, "{output_text}");
        folder.renew(&[]).await;
        let (succeeded, output_text) =
            openssl(&folder, &format!("{form} -in ca.key -out old.key")).await.expect("openssl");
        assert!(succeeded, "{output_text}");
        fs::rename(folder.at("old.key"), folder.at("ca.key")).expect("a file");
        assert!(!folder.read("ca.key").contains("BEGIN PRIVATE KEY"), "{form} writes the old key format");
        folder.renew(&[]).await;
        let verify = format!("verify -CAfile ca.crt -purpose sslserver -verify_hostname {NAME} tls.crt");
        let (succeeded, output_text) = openssl(&folder, &verify).await.expect("openssl");
        assert!(succeeded, "{output_text}");
    }
    // If the CA's subject cannot be copied exactly, no client would accept the certificate, so `issue` fails.
    let twice = made.replace("/O=karmada", "/OU=a/OU=b") + " -newkey rsa:2048 -keyout ca.key -out ca.crt";
    let (succeeded, output_text) = openssl(&folder, &twice).await.expect("openssl");
    assert!(succeeded, "{output_text}");
    let (certificate, key, out) = (folder.at("ca.crt"), folder.at("ca.key"), folder.at("out"));
    let line = failure(&["issue", "--ca-cert", &certificate, "--ca-key", &key, "--out-dir", &out]).await;
    assert!(line.starts_with("--ca-cert cannot sign this certificate"), "{line}");
}
