//! Every row of the reference's table of flags.

use super::*;

struct Row {
    flag: String,
    kind: String,
    default: Option<String>,
}

fn rows() -> Vec<Row> {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/flags.json")).unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    rows.iter()
        .map(|row| Row {
            flag: text(&row["flag"]).unwrap(),
            kind: text(&row["type"]).unwrap(),
            default: text(&row["default"]),
        })
        .collect()
}

/// Values that the type takes, and others that it does not.
fn samples(kind: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match kind {
        "bool" => (&["true", "false", "T", "0"], &["maybe", "yes", ""]),
        "int" => (&["7", "0x10", "0"], &["seven", "1.5", ""]),
        "uint" => (&["7", "0x10", "0"], &["seven", "-1", ""]),
        "Level" => (&["7", "-1"], &["seven", "2147483648", ""]),
        "float32" => (&["2.5", "10", "-1", "1e3"], &["half", "1,5", ""]),
        "duration" => (&["1m30s", "0", "250ms"], &["90", "soon", ""]),
        "strings" => (&["a,b", "\"a\",b", ""], &["\"a"]),
        "ip" => (&["::1", "10.0.0.1"], &["localhost", "10.0.0.1:443", ""]),
        "quantity" => (&["512Ki", "1.5M", "0"], &["lots", "1KiB", ""]),
        "severity" => (&["warning", "INFO", "2"], &["loud", ""]),
        "traceLocation" => (&["server.go:10", ""], &["server.go", "server.go:0", "server:10"]),
        "pattern=N,..." => (&["server=2,page*=4", ""], &["server=high", "server", "=2"]),
        "int32Slice" => (&["23,29", "-1"], &["23,x25519", "2147483648", ""]),
        "namedCertKey" => {
            (&["tls.crt,tls.key:example.com,*.example.com", "tls.crt,tls.key"], &["tls.crt", ""])
        }
        "string" => (&["text", "a b,c=d", ""], &[]),
        other => panic!("a type without samples: {other}"),
    }
}

/// Flags whose texts have more of a meaning than their type.
fn special(flag: &str) -> Option<&'static [&'static str]> {
    match flag {
        "authorization-always-allow-paths" => Some(&["/healthz,/metrics/*", ""]),
        "authentication-token-webhook-cache-ttl" => Some(&["1m30s", "0"]),
        "logging-format" => Some(&["json", "text"]),
        "metrics-bind-address" => Some(&[":9090", "0", ""]),
        "tls-min-version" => Some(&["VersionTLS10", "VersionTLS13", ""]),
        _ => None,
    }
}

#[test]
fn every_flag_of_the_reference_is_accepted_with_a_value_of_its_type_and_refused_with_another() {
    let rows = rows();
    assert_eq!(rows.len(), 92);
    for Row { flag, kind, .. } in rows {
        let (right, wrong) = samples(&kind);
        let means_nothing_here =
            Cli::command().get_arguments().any(|arg| arg.get_id() == flag.as_str() && arg.is_hide_set());
        for value in special(&flag).unwrap_or(right) {
            let said = format!("--{flag}={value}");
            let cli = read(&[&said]).unwrap_or_else(|stop| panic!("{said}: {stop}"));
            let ignored = if means_nothing_here { vec![flag.as_str()] } else { vec![] };
            assert_eq!(Vec::from_iter(cli.ignored().names()), ignored);
            if kind != "bool" {
                assert!(read(&[&format!("--{flag}"), value]).is_ok(), "{said}");
            }
        }
        if kind == "bool" {
            assert!(read(&[&format!("--{flag}")]).is_ok(), "{flag}");
        }
        for value in wrong {
            let line = refusal(&[&format!("--{flag}={value}")]);
            assert!(line.starts_with(&format!("--{flag}: ")), "{line}");
            assert!(value.is_empty() || line.contains(&format!("{value:?} ")), "{line}");
        }
    }
}

#[test]
fn saying_the_references_default_changes_nothing() {
    // Unset, these four mean no limit here.
    let differs = ["cluster-api-qps", "cluster-api-burst", "kube-api-qps", "kube-api-burst"];
    // Defaults as help shows them, which the reference, too, would not read.
    let shown = [":0", "[]"];
    for Row { flag, kind, default } in rows().into_iter().filter(|row| !differs.contains(&row.flag.as_str()))
    {
        // Help leaves out what is empty or zero.
        let zero = match &*kind {
            "bool" => "false",
            "int" | "uint" | "Level" | "float32" | "duration" | "quantity" | "severity" => "0",
            _ => "",
        };
        let default = default.unwrap_or_else(|| zero.to_owned());
        if !shown.contains(&&*default) {
            let said = format!("--{flag}={}", default.trim_matches(['"', '[', ']']));
            assert_eq!(config(&[&said]), config(&[]), "{said}");
            assert_eq!(read(&[&said]).unwrap().ignored().warnings().next(), None, "{said}");
        }
    }
}

#[test]
fn a_flag_whose_silence_would_deceive_is_answered_with_the_truth() {
    let truths = |args: &[&str]| {
        let cli = read(args).unwrap_or_else(|stop| panic!("{args:?}: {stop}"));
        cli.ignored().warnings().map(|(sentence, flags)| (sentence.to_owned(), flags)).collect::<Vec<_>>()
    };
    for (args, word, flags) in [
        (&["--audit-policy-file=policy.yaml"][..], "audited", &["audit-policy-file"][..]),
        (&["--audit-webhook-config-file=hook"], "audited", &["audit-webhook-config-file"]),
        (&["--audit-log-path=a.log", "--audit-log-maxage=1"], "audited", &["audit-log-path"]),
        (
            &["--audit_log_path=a.log", "--audit-policy-file=p"],
            "audited",
            &["audit-policy-file", "audit-log-path"],
        ),
        (&["--log-file=a.log"], "stderr", &["log-file"]),
        (&["--log-dir", "/var/log"], "stderr", &["log-dir"]),
        (&["--logtostderr=F"], "stderr", &["logtostderr"]),
        (&["--tls-sni-cert-key=tls.crt,tls.key:example.com"], "certificate", &["tls-sni-cert-key"]),
        (&["--tls-curve-preferences=29"], "key exchange", &["tls-curve-preferences"]),
    ] {
        match &truths(args)[..] {
            [(sentence, about)] => assert!(sentence.contains(word) && about == flags, "{sentence} {about:?}"),
            other => panic!("{args:?}: {other:?}"),
        }
    }
    for harmless in [
        &["--audit-policy-file="][..],
        &["--audit-log-path=a.log", "--audit-log-path=-"],
        &["--audit-webhook-mode=batch", "--profiling=false", "--alsologtostderr"],
        &["--logtostderr", "--log-file="],
    ] {
        assert_eq!(truths(harmless), [], "{harmless:?}");
    }
}
