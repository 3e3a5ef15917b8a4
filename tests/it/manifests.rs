//! Compares `apiservice/` and `deploy/` with the adapter.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use karmada_metrics_adapter::testing::{Cli, DRAIN_TIMEOUT, Task};
use serde_json::{Value, json};
use testkit::adapter::{AdapterProcess, Invocation};
use testkit::api_client::Credentials;
use testkit::control_plane::{ADAPTER_USER, BACKEND_NAMESPACE, BACKEND_SERVICE, Recorded};
use testkit::fleet::Fleet;
use testkit::kustomize;
use testkit::member::contract_directory;
use tokio::process::Command;

use crate::stage::{GENEROUS, PODS, Stage, binary, client, members, send};
use crate::variants::{self, Variant, assert_serves};

/// The Secrets with the kubeconfig and with the serving certificate.
const SECRETS: [&str; 2] = ["karmada-metrics-adapter-config", "karmada-metrics-adapter-serving"];
/// An image name that does not exist.
const IMAGE: &str = "registry.example/karmada-metrics-adapter:0.1.0";

fn repository() -> PathBuf {
    fs::canonicalize(env!("CARGO_MANIFEST_DIR")).expect("the repository")
}

/// The objects that `kubectl kustomize` builds from a directory. `None` without kubectl.
async fn built(directory: &Path) -> Option<Vec<Value>> {
    let text =
        kustomize(directory).await.unwrap_or_else(|error| panic!("{}: {error:#}", directory.display()));
    Some(serde_saphyr::from_multiple(&text?).expect("YAML"))
}

/// Builds a temporary kustomization from directories of the repository and optionally one object.
async fn overlaid(resources: &[&str], components: &[&str], file: Option<&Value>) -> Option<Vec<Value>> {
    let directory = tempfile::tempdir().expect("a directory");
    let root = fs::canonicalize(directory.path()).expect("the directory exists");
    // kustomize accepts no absolute paths.
    let to_root = "../".repeat(root.components().count() - 1);
    let relative = |path: &&str| format!("{to_root}{}", repository().join(path).display()).replace("//", "/");
    let mut resources: Vec<String> = resources.iter().map(relative).collect();
    if let Some(object) = file {
        fs::write(root.join("object.yaml"), object.to_string()).expect("a file");
        resources.push("object.yaml".to_owned());
    }
    let components: Vec<String> = components.iter().map(relative).collect();
    let kustomization = json!({"kind": "Kustomization", "resources": resources, "components": components});
    fs::write(root.join("kustomization.yaml"), kustomization.to_string()).expect("a file");
    built(&root).await
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("{list} is not a list"));
    list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
}

/// Panics unless the selector matches the labels.
fn assert_selects(selector: &Value, labels: &Value) {
    let selector = selector.as_object().expect("a selector");
    assert!(!selector.is_empty());
    for (key, value) in selector {
        assert_eq!(&labels[key], value, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registered_apis_are_served() {
    let Some(objects) = overlaid(&["apiservice", "apiservice/external"], &[], None).await else { return };
    let service = only(&objects, "Service");
    assert_eq!(service["metadata"]["name"], BACKEND_SERVICE);
    assert_eq!(service["metadata"]["namespace"], BACKEND_NAMESPACE);
    let to = format!("{BACKEND_SERVICE}.{BACKEND_NAMESPACE}.svc.cluster.local");
    assert_eq!(service["spec"]["externalName"], to);
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let mut names = BTreeSet::new();
    for registration in of_kind(&objects, "APIService") {
        let spec = &registration["spec"];
        let (group, version) =
            (spec["group"].as_str().expect("a group"), spec["version"].as_str().expect("a version"));
        assert_eq!(registration["metadata"]["name"], format!("{version}.{group}"));
        assert_eq!(spec["service"], json!({"name": BACKEND_SERVICE, "namespace": BACKEND_NAMESPACE}));
        assert_eq!((&spec["groupPriorityMinimum"], &spec["versionPriority"]), (&json!(100), &json!(200)));
        let response = stage.get(&format!("/apis/{group}/{version}")).await;
        assert_eq!(response.status, StatusCode::OK, "{group}/{version}");
        names.insert(format!("{version}.{group}"));
    }
    assert_eq!(names.len(), 4, "{names:?}");
    let by_default = built(&repository().join("apiservice")).await.expect("kubectl is installed");
    let by_default = of_kind(&by_default, "APIService");
    assert!(by_default.iter().all(|service| service["spec"]["group"] != "external.metrics.k8s.io"));
    assert_eq!(by_default.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_starts_and_its_probes_succeed() {
    let Some(objects) = built(&repository().join("deploy/host")).await else { return };
    let pod = &only(&objects, "Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let fleet = Fleet::start(members(2, 1).await).await.expect("the fleet starts");
    let stage = variants::start(fleet, &texts(&container["args"]), None).await;
    let probe = |name: &str| container[name]["httpGet"]["path"].as_str().expect("a path").to_owned();
    assert_eq!(probe("livenessProbe"), "/livez");
    assert_eq!(probe("readinessProbe"), "/readyz");
    assert_serves(&stage, &["livenessProbe", "readinessProbe"].map(probe)).await;
}

#[tokio::test]
async fn grace_period_is_longer_than_shutdown() {
    let Some(objects) = built(&repository().join("deploy/host")).await else { return };
    let host = &only(&objects, "Deployment")["spec"]["template"]["spec"];
    let pods =
        std::iter::once((&host["terminationGracePeriodSeconds"], texts(&host["containers"][0]["args"])));
    // The installers set no grace period, and the overlay keeps their arguments.
    let variants = Variant::all();
    let default = Value::Null;
    let installed = variants.iter().map(|variant| (&default, variant.command[1..].to_vec()));
    for (seconds, arguments) in pods.chain(installed) {
        let grace = Duration::from_secs(seconds.as_u64().unwrap_or(30));
        let arguments = arguments.into_iter().map(|argument| argument.replace("$(POD_IP)", "10.0.0.1"));
        let command = ["karmada-metrics-adapter".to_owned()].into_iter().chain(arguments);
        let Ok(Task::Serve(config, _)) = Cli::read(command).expect("known flags").task() else {
            panic!("not the serving command")
        };
        let needed = config.serving.shutdown_delay + DRAIN_TIMEOUT;
        assert!(needed < grace, "{needed:?} of {grace:?}");
    }
}

#[tokio::test]
async fn deployment_ports_and_labels_match_its_services() {
    let components = ["deploy/components/service-monitor"];
    let Some(objects) = overlaid(&["deploy/host"], &components, None).await else { return };
    let deployment = only(&objects, "Deployment");
    let template = &deployment["spec"]["template"];
    let labels = &template["metadata"]["labels"];
    let container = &template["spec"]["containers"][0];
    assert_selects(&deployment["spec"]["selector"]["matchLabels"], labels);
    let arguments = texts(&container["args"]);
    let flag = |name: &str| {
        let value = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{name}")).to_owned()
    };
    let ports = json!([
        {"name": "https", "containerPort": flag("--secure-port").parse::<u16>().expect("a port")},
        {"name": "metrics", "containerPort": flag("--metrics-bind-address").strip_prefix(':')
            .expect("all addresses").parse::<u16>().expect("a port")},
    ]);
    assert_eq!(container["ports"], ports);
    assert!(ports[0]["containerPort"].as_u64() > Some(1023), "lower ports need root");
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "https");
        assert_eq!(container[probe]["httpGet"]["scheme"], "HTTPS");
    }
    let service = only(&objects, "Service");
    assert_selects(&service["spec"]["selector"], labels);
    assert_eq!(service["metadata"]["name"], BACKEND_SERVICE);
    assert_eq!(service["metadata"]["namespace"], BACKEND_NAMESPACE);
    let of_service = json!([
        {"name": "https", "port": 443, "targetPort": "https"},
        {"name": "metrics", "port": 8080, "targetPort": "metrics"},
    ]);
    assert_eq!(service["spec"]["ports"], of_service);
    let policy = only(&objects, "NetworkPolicy");
    assert_selects(&policy["spec"]["podSelector"]["matchLabels"], labels);
    assert_eq!(policy["spec"]["ingress"][0], json!({"ports": [{"port": "https"}]}));
    assert_eq!(policy["spec"]["ingress"][1]["ports"], json!([{"port": "metrics"}]));
    let budget = only(&objects, "PodDisruptionBudget");
    assert_selects(&budget["spec"]["selector"]["matchLabels"], labels);
    assert_eq!((&deployment["spec"]["replicas"], &budget["spec"]["maxUnavailable"]), (&json!(2), &json!(1)));
    let monitor = only(&objects, "ServiceMonitor");
    assert_selects(&monitor["spec"]["selector"]["matchLabels"], &service["metadata"]["labels"]);
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "metrics");
    assert_eq!(monitor["metadata"]["namespace"], service["metadata"]["namespace"]);
}

#[tokio::test]
async fn deployment_files_come_from_the_documented_secrets() {
    let Some(objects) = built(&repository().join("deploy/host")).await else { return };
    let pod = &only(&objects, "Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let secrets: Vec<&str> = pod["volumes"]
        .as_array()
        .expect("volumes")
        .iter()
        .filter_map(|volume| volume["secret"]["secretName"].as_str())
        .collect();
    assert_eq!(secrets, SECRETS);
    let mounts = container["volumeMounts"].as_array().expect("mounts");
    assert!(mounts.iter().all(|mount| mount["subPath"].is_null()), "Kubernetes does not update a subPath");
    let paths: Vec<&str> = mounts.iter().filter_map(|mount| mount["mountPath"].as_str()).collect();
    for argument in texts(&container["args"]) {
        let Some((_, path)) = argument.split_once("=/") else { continue };
        assert!(paths.iter().any(|mount| format!("/{path}").starts_with(mount)), "{argument} is not mounted");
    }
    let recipe = |file: &str| fs::read_to_string(repository().join(file)).expect("a recipe");
    let (config, serving) = (recipe("deploy/README.md"), recipe("certs/README.md"));
    assert!(config.contains(&format!("secret generic {} --from-file=karmada.config=", SECRETS[0])));
    assert!(serving.contains(&format!("secret tls {} ", SECRETS[1])));
}

#[tokio::test]
async fn overlay_replaces_only_the_image_of_every_installer() {
    for variant in Variant::all() {
        let deployment = |image: &str| {
            json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "karmada-metrics-adapter", "namespace": "karmada-system"},
                "spec": {"template": {"spec": {
                    "initContainers": [{"name": "wait", "image": "docker.io/bitnami/kubectl:latest"}],
                    "containers": [{"name": variant.container, "image": image, "command": variant.command}],
                }}},
            })
        };
        let before = deployment(&variant.image);
        let Some(after) = overlaid(&[], &["deploy/overlays/image-swap"], Some(&before)).await else { return };
        assert_eq!(after, [deployment(IMAGE)], "{}", variant.name);
    }
}

#[test]
fn image_has_the_binary_at_the_path_of_every_installer() {
    let text = fs::read_to_string(repository().join("deploy/Dockerfile")).expect("a Dockerfile");
    let (_, last) = text.rsplit_once("\nFROM ").expect("stages");
    assert!(last.starts_with("scratch\n"), "{last}");
    // Karmada's manifests use port 443, which needs root.
    assert!(!last.contains("\nUSER "), "{last}");
    for variant in Variant::all() {
        let path = &variant.command[0];
        assert!(last.contains(&format!(" {path}\n")), "no file is copied to {path}");
        assert!(last.contains(&format!("ENTRYPOINT [\"{path}\"]")), "{last}");
    }
    assert!(last.contains(" /etc/ssl/certs/ca-certificates.crt\n"), "{last}");
}

#[test]
fn helm_values_exist_in_karmadas_chart() {
    let text = fs::read_to_string(repository().join("deploy/helm-values.yaml")).expect("values");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    let chart =
        fs::read(contract_directory().join("variants/chart-latest.json")).expect("the recorded chart");
    let chart: Value = serde_json::from_slice(&chart).expect("JSON");
    let known = texts(&chart["values"]);
    let sections: Vec<&String> = values.as_object().expect("sections").keys().collect();
    assert_eq!(sections, ["metricsAdapter"]);
    for key in values["metricsAdapter"].as_object().expect("values").keys() {
        assert!(known.contains(key), "{key} is not in {known:?}");
    }
    let image = &values["metricsAdapter"]["image"];
    let part = |key: &str| image[key].as_str().expect("a text");
    assert_eq!(format!("{}/{}:{}", part("registry"), part("repository"), part("tag")), IMAGE);
}

/// Uses the kubeconfig that the script of `deploy/` makes.
#[tokio::test(flavor = "multi_thread")]
async fn rbac_grants_exactly_the_used_permissions() {
    let Some(objects) = built(&repository().join("deploy/control-plane")).await else { return };
    let fleet = Fleet::start(members(2, 1).await).await.expect("the fleet starts");
    let plane = &fleet.plane;
    plane.revoke(ADAPTER_USER);
    let account = &only(&objects, "ServiceAccount")["metadata"];
    assert_eq!(
        (&account["namespace"], &account["name"]),
        (&json!(BACKEND_NAMESPACE), &json!(BACKEND_SERVICE))
    );
    let bindings = [of_kind(&objects, "RoleBinding"), of_kind(&objects, "ClusterRoleBinding")].concat();
    assert_eq!(bindings.len(), 3);
    for binding in bindings {
        let subject = &binding["subjects"][0];
        assert_eq!((&subject["namespace"], &subject["name"]), (&account["namespace"], &account["name"]));
        let role = objects.iter().find(|role| {
            role["kind"] == binding["roleRef"]["kind"]
                && role["metadata"]["name"] == binding["roleRef"]["name"]
                && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
        });
        plane.bind(ADAPTER_USER, role.expect("the role of the binding"));
    }

    let kubeconfig = plane.directory().join("made.kubeconfig");
    make_kubeconfig(&fleet, only(&objects, "Secret"), &kubeconfig).await;
    let invocation = fleet.invocation(binary(), &["--v=4".to_owned()]).expect("an invocation");
    let mut adapter =
        AdapterProcess::start(&Invocation { kubeconfig, ..invocation }).expect("the adapter starts");
    adapter.ready(GENEROUS).await.expect("the adapter is ready");
    let stage = Stage::of(fleet, adapter);
    let plane = &stage.fleet.plane;

    // A user with a token. The adapter reviews the token and the access.
    plane.add_token("a-user's", "alice", &[]);
    plane.allow("alice", &["get"], "custom.metrics.k8s.io", &["*"]);
    let alice = client(&stage.adapter, Credentials::Token("a-user's"));
    assert_eq!(send(&alice, "GET", PODS, &[], "").await.status, StatusCode::OK);
    // Members reject this token, so the adapter reads the Secret.
    stage.member(0).rotate_token();
    stage.get(PODS).await;
    // Empty lists are not trusted, so the adapter gets the Clusters by name.
    plane.empty_lists(true);
    plane.compact();
    let by_name = |request: &Recorded| request.verb == "get" && request.path.ends_with("/clusters/member1");
    tokio::time::timeout(GENEROUS, plane.wait_for_request(by_name))
        .await
        .expect("the Cluster is read in time");
    plane.empty_lists(false);

    // Watches start after an undefined time.
    let deadline = Instant::now() + GENEROUS;
    while !plane.unused(ADAPTER_USER).is_empty() {
        let unused = plane.unused(ADAPTER_USER);
        assert!(Instant::now() < deadline, "unneeded permissions: {unused:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let log = fs::read_to_string(stage.adapter.log()).expect("a log");
    let forbidden: Vec<&str> = log.lines().filter(|line| line.to_lowercase().contains("forbidden")).collect();
    assert!(forbidden.is_empty(), "missing permissions: {forbidden:#?}");
}

/// Makes the kubeconfig like `deploy/README.md`, with a Secret that the control plane has filled in.
async fn make_kubeconfig(fleet: &Fleet, secret: &Value, to: &Path) {
    let plane = &fleet.plane;
    assert_eq!(secret["type"], "kubernetes.io/service-account-token");
    assert_eq!(secret["metadata"]["annotations"]["kubernetes.io/service-account.name"], BACKEND_SERVICE);
    let token = "the-adapter's-own";
    let mut secret = secret.clone();
    secret["data"] = json!({
        "token": STANDARD.encode(token),
        "ca.crt": STANDARD.encode(plane.ca_pem()),
    });
    plane.apply(secret).expect("the Secret is applied");
    plane.add_token(token, ADAPTER_USER, &["system:serviceaccounts"]);
    let admin = plane.admin_kubeconfig().expect("a kubeconfig");
    let home = plane.directory();
    let script = repository().join("deploy/control-plane/kubeconfig.sh");
    let made = Command::new(script)
        .arg(&admin)
        .arg(plane.url())
        .env("HOME", home)
        .output()
        .await
        .expect("the script runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::write(to, made.stdout).expect("a file");
}
