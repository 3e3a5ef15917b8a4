//! Commands and their flags.

use super::*;
use crate::cli::commands::{CertsCommand, CertsIssueFlags, CertsShowFlags};

fn issue(args: &[&str]) -> CertsIssueFlags {
    match read(&[&["certs", "issue"], args].concat()).unwrap().task() {
        Ok(Task::Run(Command::Certs(CertsCommand::Issue(issue)))) => issue,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn show(args: &[&str]) -> CertsShowFlags {
    match read(&[&["certs", "show"], args].concat()).unwrap().task() {
        Ok(Task::Run(Command::Certs(CertsCommand::Show(show)))) => show,
        other => panic!("{args:?}: {other:?}"),
    }
}

/// The error line for invalid arguments of a command, without the program's name.
fn refused(args: &[&str]) -> String {
    let line = read(args).unwrap_err().to_string();
    assert!(!line.contains('\n'), "more than one line: {line}");
    line.strip_prefix("karmada-metrics-adapter: ").expect("begins with the program's name").to_owned()
}

#[test]
fn certificate_is_issued_for_karmadas_service_by_default() {
    let default = issue(&[]);
    assert_eq!(
        (default.service.as_str(), default.namespace.as_str()),
        ("karmada-metrics-adapter", "karmada-system")
    );
    assert_eq!(default.cluster_domain, "cluster.local");
    assert_eq!(default.validity, Duration::from_secs(365 * 24 * 60 * 60));
    assert!(!default.force && default.ca_cert.is_none() && default.dns_name.is_empty());
    let other =
        issue(&["--dns-name=a.example,*.b.example", "--dns_name", "c", "--ip=::1,10.0.0.1", "--force"]);
    assert_eq!(other.dns_name, ["a.example", "*.b.example", "c"]);
    assert_eq!(other.ip.iter().map(ToString::to_string).collect::<Vec<_>>(), ["::1", "10.0.0.1"]);
    assert!(other.force && !issue(&["--force", "--force=false"]).force);
    assert_eq!(issue(&["--validity", "36h"]).validity, Duration::from_secs(36 * 60 * 60));
}

#[test]
fn show_accepts_files_and_addresses_between_flags() {
    let flags = show(&["tls.crt", "--warn=0", "127.0.0.1:443", "-o", "json", "--service", "adapter"]);
    assert_eq!(flags.sources, ["tls.crt", "127.0.0.1:443"]);
    assert_eq!(flags.service.as_deref(), Some("adapter"));
    assert!(flags.warn.is_zero() && flags.output.is_some());
}

#[test]
fn invalid_command_arguments_are_one_line_errors() {
    for (args, line) in [
        (&["certs"][..], "certs: a subcommand is missing: issue, show"),
        (&["certs", "isue"], r#""isue": unknown subcommand; did you mean issue?"#),
        (&["certs", "show"], "<FILE|HOST:PORT>... is missing (see --help)"),
        (&["certs", "issue", "--ca-cert=ca.crt"], "--ca-key <FILE> is missing (see --help)"),
        (&["certs", "issue", "--force", "no"], r#"unexpected argument "no" (see --help)"#),
        (&["certs", "issue", "--servce=a"], "--servce: unknown flag; did you mean --service?"),
        (
            &["certs", "issue", "--validity=1y"],
            r#"--validity: "1y" is not a time of at least one second (such as 365d, 24h or 30m)"#,
        ),
        (
            &["certs", "issue", "--validity=0.5s"],
            r#"--validity: "0.5s" is not a time of at least one second (such as 365d, 24h or 30m)"#,
        ),
        (
            &["certs", "show", "a", "--warn=soon"],
            r#"--warn: "soon" is not a time of zero or more (such as 30d, 24h or 30m)"#,
        ),
        (
            &["query", "--metric=m", "--group=nodes"],
            r#"--group: "nodes" is not one of custom, external, resource"#,
        ),
        (&["query", "--group", "custom"], "--metric <NAME> is missing (see --help)"),
        (
            &["certs", "issue", "--namespace=a.b"],
            r#"--namespace: "a.b" is not the name of a Service or namespace (lower-case letters, digits and -, at most 63)"#,
        ),
        (
            &["certs", "issue", "--dns-name=a,b_c"],
            r#"--dns-name: "b_c" is not a DNS name (such as metrics.example.com)"#,
        ),
        (&["certs", "issue", "--ip=a"], r#"--ip: "a" is not an IP address"#),
        (&["certs", "show", "a", "-o", "xml"], r#"--output: "xml" is not one of json"#),
    ] {
        assert_eq!(refused(args), line, "{args:?}");
    }
}

#[test]
fn query_is_given_by_path_or_by_flags() {
    let query = |args: &[&str]| match read(&[&["query"], args].concat()).unwrap().task() {
        Ok(Task::Run(Command::Query(query))) => query,
        other => panic!("{args:?}: {other:?}"),
    };
    assert_eq!(query(&["/apis", "--watch", "-o", "json"]).path.as_deref(), Some("/apis"));
    assert_eq!(query(&["/apis", "-w"]).watch, Some(Duration::from_secs(15)));
    let default = query(&["--metric", "m"]);
    assert_eq!((default.resource.as_str(), default.namespace.as_str()), ("pods", "default"));
    assert!(default.watch.is_none() && default.name.is_none());
    assert_eq!(query(&["--group=resource", "-n", "", "--watch=2s"]).watch, Some(Duration::from_secs(2)));
}

#[test]
fn each_command_has_help() {
    assert!(printed(&["--help"]).contains("\n  certs "));
    assert!(printed(&["certs", "--help"]).contains("\n  issue "));
    assert!(printed(&["certs", "issue", "--help"]).contains("--ca-cert <FILE>"));
}
