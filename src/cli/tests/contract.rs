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

/// A value that the type takes, and one that it does not.
fn samples(kind: &str) -> (&'static str, Option<&'static str>) {
    match kind {
        "bool" => ("false", Some("maybe")),
        "int" | "uint" | "Level" => ("7", Some("seven")),
        "float32" => ("2.5", Some("half")),
        "duration" => ("1m30s", Some("90")),
        "strings" => ("a,b", Some("\"a")),
        "ip" => ("::1", Some("localhost")),
        "quantity" => ("512Ki", Some("lots")),
        "severity" => ("warning", Some("loud")),
        "traceLocation" => ("server.go:10", Some("server.go")),
        "pattern=N,..." => ("server=2,page*=4", Some("server=high")),
        "int32Slice" => ("23,29", Some("23,x25519")),
        "namedCertKey" => ("tls.crt,tls.key:example.com", Some("tls.crt")),
        "string" => ("text", None),
        other => panic!("a type without a sample: {other}"),
    }
}

#[test]
fn every_flag_of_the_reference_is_accepted_with_a_value_of_its_type_and_refused_with_another() {
    let rows = rows();
    assert_eq!(rows.len(), 92);
    for Row { flag, kind, .. } in rows {
        let (right, wrong) = samples(&kind);
        let right = match flag.as_str() {
            "metrics-bind-address" => ":9090",
            "tls-min-version" => "VersionTLS13",
            _ => right,
        };
        let cli = read(&[&format!("--{flag}={right}")]).unwrap_or_else(|stop| panic!("{flag}: {stop}"));
        let means_nothing_here =
            Cli::command().get_arguments().any(|arg| arg.get_id() == flag.as_str() && arg.is_hide_set());
        assert_eq!(cli.ignored(), if means_nothing_here { vec![flag.as_str()] } else { vec![] });
        if kind == "bool" {
            assert!(read(&[&format!("--{flag}")]).is_ok(), "{flag}");
        } else {
            assert!(read(&[&format!("--{flag}"), right]).is_ok(), "{flag}");
        }
        if let Some(wrong) = wrong {
            let line = refusal(&[&format!("--{flag}={wrong}")]);
            assert!(line.starts_with(&format!("--{flag}: {wrong:?} ")), "{line}");
        }
    }
}

#[test]
fn flags_that_mean_something_have_the_references_default() {
    // Unset means no limit here, and both sides' unset TLS version is 1.2.
    let differs =
        ["cluster-api-qps", "cluster-api-burst", "kube-api-qps", "kube-api-burst", "tls-min-version"];
    let command = Cli::command();
    for Row { flag, default, .. } in rows().into_iter().filter(|row| !differs.contains(&row.flag.as_str())) {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag.as_str())).unwrap();
        if !arg.is_hide_set() {
            let ours = arg
                .get_default_values()
                .first()
                .and_then(|value| value.to_str())
                .filter(|value| *value != "0");
            let theirs = default.as_deref().map(|text| text.trim_matches(['"', '[', ']']));
            assert_eq!(ours, theirs, "{flag}");
        }
    }
}
