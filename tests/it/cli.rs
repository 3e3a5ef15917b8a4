//! Tests of the command line: commands other than serving, and the log lines about flags.

use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::fleet::Fleet;
use tokio::process::Command;

use crate::process::run;
use crate::stage::{GENEROUS, Stage, binary, members};

#[tokio::test]
async fn version_is_printed() {
    let (code, line, err) = run(&["version"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(run(&["--version"]).await.1, line);
    let (code, json, _) = run(&["version", "-o", "json"]).await;
    let info: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let version = info["gitVersion"].as_str().expect("a version").trim_start_matches('v');
    assert_eq!((code, line), (Some(0), format!("karmada-metrics-adapter {version}\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_command_line_report_the_same_version() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let served = stage.get("/version").await.body;
    let (_, printed, _) = run(&["version", "--output=json"]).await;
    let read = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).expect("JSON");
    assert_eq!(read(&served), read(printed.as_bytes()));
}

#[tokio::test]
async fn bash_completes_flags_their_values_and_subcommands() {
    let (code, script, err) = run(&["completion", "bash"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let completed = async |words: &str| {
        let script_with_words = format!(
            "{script}\nCOMP_WORDS=(karmada-metrics-adapter {words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _karmada__metrics__adapter karmada-metrics-adapter \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"\n\
             echo \"${{COMPREPLY[*]}}\""
        );
        let child = Command::new("bash")
            .args(["-c", &script_with_words])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output =
            tokio::time::timeout(GENEROUS, child).await.expect("bash exits in time").expect("bash runs");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    assert_eq!(completed("--member-ti").await, "--member-timeout");
    assert_eq!(completed("--on-member-failure la").await, "last-known");
    assert_eq!(completed("ver").await, "version");
    assert_eq!(completed("completion f").await, "fish");
    assert_eq!(completed("version --out").await, "--output");
    assert_eq!(completed("certs is").await, "issue");
    assert_eq!(completed("certs issue --ca-c").await, "--ca-cert");
    assert_eq!(completed("--audit-log-p").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn ignored_flags_are_logged_with_warnings() {
    let flags = [
        "--audit-policy-file=/etc/audit/policy.yaml",
        "--audit-webhook-config-file=/etc/audit/hook.yaml",
        "--log-file=/var/log/adapter.log",
        "--tls-sni-cert-key=tls.crt,tls.key:example.com",
        "--tls-curve-preferences=23",
        "--profiling=false",
        "--logging-format=json",
    ];
    let stage = Stage::start(members(1, 1).await, &flags).await;
    let warning = async |words: &str| {
        let line = stage.adapter.wait_for_log_line(words, GENEROUS).await.expect("a line");
        let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        format!("{} {}", line["level"].as_str().expect("a level"), line["flags"].as_str().expect("flags"))
    };
    // Three of these flags are in Karmada's manifests.
    assert_eq!(
        warning("ignored flags that have no effect").await,
        "INFO audit-log-maxage,audit-log-maxbackup,audit-log-path,audit-policy-file,audit-webhook-config-file,\
         log-file,profiling,tls-curve-preferences,tls-sni-cert-key"
    );
    assert_eq!(warning("writes no audit log").await, "WARN audit-policy-file,audit-webhook-config-file");
    assert_eq!(warning("logs are written to stderr only").await, "WARN log-file");
    assert_eq!(warning("the certificate of --tls-cert-file").await, "WARN tls-sni-cert-key");
    assert_eq!(warning("key exchange").await, "WARN tls-curve-preferences");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_karmadas_manifests_cause_no_warning() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    assert!(log.contains("audit-log-path") && !log.contains("WARN"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_rate_is_limited() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let started = Instant::now();
    let flags = ["--kube-api-qps=1", "--kube-api-burst=1"].map(str::to_owned);
    let mut adapter = fleet.run_adapter(binary(), &flags, None).expect("the adapter starts");
    adapter.ready(GENEROUS).await.expect("the adapter is ready");
    // Both resources are listed and then watched: four requests at one per second.
    for resource in ["/clusters", "/secrets"] {
        fleet
            .plane
            .wait_for_request(|request| request.verb == "watch" && request.path.ends_with(resource))
            .await;
    }
    assert!(started.elapsed() >= Duration::from_secs(3), "{:?}", started.elapsed());
}
