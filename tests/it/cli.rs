//! The command line at the binary: what is answered instead of serving, and what is said of flags.

use std::process::Stdio;
use std::time::{Duration, Instant};

use testkit::fleet::Fleet;
use tokio::process::Command;

use crate::process::run;
use crate::stage::{GENEROUS, Stage, binary, members};

#[tokio::test]
async fn the_version_is_told_without_serving() {
    let (code, line, err) = run(&["version"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(run(&["--version"]).await.1, line);
    let (code, json, _) = run(&["version", "-o", "json"]).await;
    let info: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let version = info["gitVersion"].as_str().expect("a version").trim_start_matches('v');
    assert_eq!((code, line), (Some(0), format!("karmada-metrics-adapter {version}\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_and_the_command_line_tell_the_same_version() {
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
        let ask = format!(
            "{script}\nCOMP_WORDS=(karmada-metrics-adapter {words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _karmada__metrics__adapter karmada-metrics-adapter \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"\n\
             echo \"${{COMPREPLY[*]}}\""
        );
        let child = Command::new("bash").args(["-c", &ask]).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(GENEROUS, child).await.expect("it ends").expect("bash runs");
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
async fn flags_that_mean_nothing_are_named_and_silence_deceives_nobody() {
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
    let said = async |words: &str| {
        let line = stage.adapter.says(words, GENEROUS).await.expect("a line");
        let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        format!("{} {}", line["level"].as_str().expect("a level"), line["flags"].as_str().expect("flags"))
    };
    // Three of these come with the flags of Karmada's own manifests.
    assert_eq!(
        said("accepted and ignored").await,
        "INFO audit-log-maxage,audit-log-maxbackup,audit-log-path,audit-policy-file,audit-webhook-config-file,\
         log-file,profiling,tls-curve-preferences,tls-sni-cert-key"
    );
    assert_eq!(said("nothing is audited").await, "WARN audit-policy-file,audit-webhook-config-file");
    assert_eq!(said("logs go to stderr").await, "WARN log-file");
    assert_eq!(said("the certificate of --tls-cert-file").await, "WARN tls-sni-cert-key");
    assert_eq!(said("key exchange").await, "WARN tls-curve-preferences");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flags_of_karmadas_own_manifests_start_without_a_warning() {
    let stage = Stage::start(members(1, 1).await, &[]).await;
    let log = std::fs::read_to_string(stage.adapter.log()).expect("a log");
    assert!(log.contains("audit-log-path") && !log.contains("WARN"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_for_the_control_plane_is_kept_to() {
    let fleet = Fleet::start(members(1, 1).await).await.expect("the fleet starts");
    let began = Instant::now();
    let flags = ["--kube-api-qps=1", "--kube-api-burst=1"].map(str::to_owned);
    let mut adapter = fleet.run_adapter(binary(), &flags, None).expect("the adapter starts");
    adapter.ready(GENEROUS).await.expect("the adapter is ready");
    // Each is listed and then watched; who waits for a token gets it in no order.
    for what in ["/clusters", "/secrets"] {
        fleet.plane.seen(|request| request.verb == "watch" && request.path.ends_with(what)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
}
