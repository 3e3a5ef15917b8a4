//! Every flag of Karmada's built-in adapter.

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

/// Valid and invalid values of a type.
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
        other => panic!("no samples for this type: {other}"),
    }
}

/// Valid values of flags that accept only some values of their type.
fn special_samples(flag: &str) -> Option<&'static [&'static str]> {
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
fn every_flag_of_the_built_in_adapter_accepts_only_values_of_its_type() {
    let rows = rows();
    assert_eq!(rows.len(), 92);
    for Row { flag, kind, .. } in rows {
        let (valid, invalid) = samples(&kind);
        let has_no_effect =
            Cli::command().get_arguments().any(|arg| arg.get_id() == flag.as_str() && arg.is_hide_set());
        for value in special_samples(&flag).unwrap_or(valid) {
            let arg = format!("--{flag}={value}");
            let cli = read(&[&arg]).unwrap_or_else(|error| panic!("{arg}: {error}"));
            let ignored = if has_no_effect { vec![flag.as_str()] } else { vec![] };
            assert_eq!(Vec::from_iter(cli.ignored().names()), ignored);
            if kind != "bool" {
                assert!(read(&[&format!("--{flag}"), value]).is_ok(), "{arg}");
            }
        }
        if kind == "bool" {
            assert!(read(&[&format!("--{flag}")]).is_ok(), "{flag}");
        }
        for value in invalid {
            let line = refusal(&[&format!("--{flag}={value}")]);
            assert!(line.starts_with(&format!("--{flag}: ")), "{line}");
            assert!(value.is_empty() || line.contains(&format!("{value:?} ")), "{line}");
        }
    }
}

#[test]
fn defaults_of_the_built_in_adapter_change_nothing() {
    // Here these four are unlimited if unset.
    let unequal = ["cluster-api-qps", "cluster-api-burst", "kube-api-qps", "kube-api-burst"];
    // The built-in adapter's help prints these defaults, but it does not accept them as values.
    let not_values = [":0", "[]"];
    for Row { flag, kind, default } in rows().into_iter().filter(|row| !unequal.contains(&row.flag.as_str()))
    {
        // Help does not print a default that is empty or zero.
        let zero = match &*kind {
            "bool" => "false",
            "int" | "uint" | "Level" | "float32" | "duration" | "quantity" | "severity" => "0",
            _ => "",
        };
        let default = default.unwrap_or_else(|| zero.to_owned());
        if !not_values.contains(&&*default) {
            let arg = format!("--{flag}={}", default.trim_matches(['"', '[', ']']));
            assert_eq!(config(&[&arg]), config(&[]), "{arg}");
            assert_eq!(read(&[&arg]).unwrap().ignored().warnings().next(), None, "{arg}");
        }
    }
}

#[test]
fn misleading_ignored_flags_cause_a_warning() {
    let warnings = |args: &[&str]| {
        let cli = read(args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
        cli.ignored().warnings().map(|(sentence, flags)| (sentence.to_owned(), flags)).collect::<Vec<_>>()
    };
    for (args, word, flags) in [
        (&["--audit-policy-file=policy.yaml"][..], "audit log", &["audit-policy-file"][..]),
        (&["--audit-webhook-config-file=hook"], "audit log", &["audit-webhook-config-file"]),
        (&["--audit-log-path=a.log", "--audit-log-maxage=1"], "audit log", &["audit-log-path"]),
        (
            &["--audit_log_path=a.log", "--audit-policy-file=p"],
            "audit log",
            &["audit-policy-file", "audit-log-path"],
        ),
        (&["--log-file=a.log"], "stderr", &["log-file"]),
        (&["--log-dir", "/var/log"], "stderr", &["log-dir"]),
        (&["--logtostderr=F"], "stderr", &["logtostderr"]),
        (&["--tls-sni-cert-key=tls.crt,tls.key:example.com"], "certificate", &["tls-sni-cert-key"]),
        (&["--tls-curve-preferences=29"], "key exchange", &["tls-curve-preferences"]),
    ] {
        match &warnings(args)[..] {
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
        assert_eq!(warnings(harmless), [], "{harmless:?}");
    }
}
