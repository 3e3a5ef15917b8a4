mod commands;
mod contract;
mod document;
mod subcommands;

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::config::{ExternalMerge, LogFormat, RateLimit, RequestLimits, SameNamePods, TlsVersion};

fn read(args: &[&str]) -> Result<Cli, EarlyExit> {
    Cli::read(["karmada-metrics-adapter"].iter().chain(args))
}

fn config(args: &[&str]) -> Config {
    read(args).unwrap_or_else(|error| panic!("{args:?}: {error}")).try_into().unwrap()
}

/// The error line for invalid arguments, without the program's name.
fn refusal(args: &[&str]) -> String {
    let line = match read(args) {
        Ok(cli) => Config::try_from(cli).map(drop).map_err(EarlyExit::from).unwrap_err().to_string(),
        Err(EarlyExit::Text(text)) => panic!("{args:?} printed a text: {text}"),
        Err(error) => error.to_string(),
    };
    assert!(!line.contains('\n'), "more than one line: {line}");
    line.strip_prefix("karmada-metrics-adapter: ").expect("begins with the program's name").to_owned()
}

/// The text that is printed for arguments such as `--help`.
fn printed(args: &[&str]) -> String {
    match read(args) {
        Err(EarlyExit::Text(text)) => text,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn defaults_are_those_of_the_built_in_adapter() {
    let config = config(&[]);
    assert_eq!(config.serving.bind_address.to_string(), "0.0.0.0");
    assert_eq!(config.serving.port, 443);
    assert_eq!(config.serving.tls.certificate, None);
    assert_eq!(
        config.serving.tls.cert_dir.as_deref(),
        Some(Path::new("apiserver.local.config/certificates"))
    );
    assert_eq!(config.serving.tls.min_version, TlsVersion::Tls12);
    assert!(config.serving.tls.cipher_suites.is_empty());
    assert!(config.serving.http2);
    assert_eq!(config.metrics.bind.unwrap().to_string(), "0.0.0.0:8080");
    assert_eq!(config.control_plane.rate, None);
    assert_eq!(config.authentication.request_header, None);
    assert_eq!(config.authentication.token_cache_ttl, Duration::from_secs(10));
    assert_eq!(config.authorization.always_allow_paths, ["/healthz", "/readyz", "/livez"]);
    assert_eq!(config.members.rate, None);
    assert_eq!((config.logging.format, config.logging.verbosity), (LogFormat::Text, 0));
}

#[test]
fn own_flags_have_documented_defaults() {
    let config = config(&[]);
    assert_eq!(config.serving.request_timeout, Duration::from_secs(30));
    let expected = RequestLimits {
        client_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(90),
        connections: 1024,
        streams: 250,
        requests: 400,
    };
    assert_eq!(config.serving.limits, expected);
    assert_eq!(config.serving.reload_interval, Duration::from_secs(10));
    assert_eq!(config.control_plane.watch_timeout, Duration::from_secs(60));
    assert_eq!(config.members.timeout, Duration::from_secs(5));
    assert_eq!(config.members.connections, 8);
    assert_eq!(config.members.body_bytes, 64 << 20);
    assert_eq!(config.members.inflight_bytes, 256 << 20);
    assert_eq!(config.members.discovery_interval, Duration::from_secs(60));
    assert_eq!(config.merging.cluster_label.as_deref(), Some("resource.karmada.io/query-from-cluster"));
    assert_eq!(config.merging.same_name_pods, SameNamePods::Sum);
    assert!(config.merging.external.is_empty());
}

#[test]
fn value_follows_equals_sign_or_is_the_next_argument() {
    assert_eq!(config(&["--secure-port=6443"]).serving.port, 6443);
    assert_eq!(config(&["--secure-port", "6443"]).serving.port, 6443);
    let dashed = config(&["--kubeconfig", "--odd-name"]).control_plane.kubeconfig;
    assert_eq!(dashed, Some(PathBuf::from("--odd-name")));
}

#[test]
fn boolean_flag_takes_value_only_after_equals_sign() {
    let skip = |arg: &str| config(&[arg]).authentication.skip_lookup;
    assert!(skip("--authentication-skip-lookup"));
    for on in ["1", "t", "T", "TRUE", "true", "True"] {
        assert!(skip(&format!("--authentication-skip-lookup={on}")), "{on}");
    }
    for off in ["0", "f", "F", "FALSE", "false", "False"] {
        assert!(!skip(&format!("--authentication-skip-lookup={off}")), "{off}");
    }
    assert_eq!(
        refusal(&["--authentication-skip-lookup", "false"]),
        r#"unexpected argument "false": subcommands come before flags; write booleans as --flag=false"#
    );
    assert!(!config(&["--disable-http2-serving"]).serving.http2);
}

#[test]
fn verbosity_accepts_every_spelling() {
    for args in [&["-v=4"][..], &["-v", "4"], &["-v4"], &["--v=4"], &["--v", "4"], &["-v=0x4"]] {
        assert_eq!(config(args).logging.verbosity, 4, "{args:?}");
    }
}

#[test]
fn last_value_of_repeated_flag_wins() {
    assert_eq!(config(&["--secure-port=1", "--secure-port=2"]).serving.port, 2);
    assert_eq!(config(&["-v=4", "--v=2"]).logging.verbosity, 2);
    let off = config(&["--authentication-skip-lookup", "--authentication-skip-lookup=false"]);
    assert!(!off.authentication.skip_lookup);
}

#[test]
fn repeated_list_flag_appends_and_replaces_the_default() {
    let paths = |args| config(args).authorization.always_allow_paths;
    assert_eq!(paths(&["--authorization-always-allow-paths=/a,/b/*"]), ["/a", "/b/*"]);
    let twice = ["--authorization-always-allow-paths=/a,/b", "--authorization-always-allow-paths", "/c"];
    assert_eq!(paths(&twice), ["/a", "/b", "/c"]);
    assert!(paths(&["--authorization-always-allow-paths="]).is_empty());
}

#[test]
fn list_is_a_csv_record() {
    let names = |text: &str| values::list(text).map(Vec::from);
    assert_eq!(names(r#"a,"b,c","say ""so""""#).unwrap(), ["a", "b,c", r#"say "so""#]);
    assert_eq!(names("a,,b,").unwrap(), ["a", "", "b", ""]);
    assert_eq!(names("a,b\n").unwrap(), ["a", "b"]);
    for broken in [r#"a"b"#, r#""a"#, r#""a"b,c"#] {
        assert!(names(broken).is_err(), "{broken}");
    }
}

#[test]
fn underscores_mean_dashes_in_flag_names_only() {
    let config = config(&["--cert_dir=my_dir", "--tls_cert-file", "a_b", "--tls_private_key_file=c_d"]);
    assert_eq!(config.serving.tls.cert_dir, Some(PathBuf::from("my_dir")));
    assert_eq!(config.serving.tls.certificate, Some(("a_b".into(), "c_d".into())));
}

#[test]
fn integers_accept_go_prefixes() {
    for (text, number) in
        [("443", 443), ("+443", 443), ("0x1bb", 443), ("0o673", 443), ("0673", 443), ("0b11", 3)]
    {
        assert_eq!(values::int(text), Ok(number), "{text}");
    }
    for (text, number) in
        [("1_000", 1000), ("-5", -5), ("0", 0), ("0_7", 7), ("-0x8000000000000000", i64::MIN)]
    {
        assert_eq!(values::int(text), Ok(number), "{text}");
    }
    for text in ["", "_1", "1_", "1__0", "0x", "--1", "+-1", "08", "1.0", " 1", "9223372036854775808"] {
        assert!(values::int(text).is_err(), "{text}");
    }
    assert!(values::uint("+1").is_err() && values::uint("-0").is_err());
}

#[test]
fn durations_are_parsed_as_in_go() {
    assert_eq!(config(&["--member-timeout=1m30.5s"]).members.timeout, Duration::from_millis(90_500));
    assert_eq!(config(&["--member-timeout=300ms"]).members.timeout, Duration::from_millis(300));
    let uncached = config(&["--authorization-webhook-cache-unauthorized-ttl=0"]);
    assert_eq!(uncached.authorization.denied_ttl, Duration::ZERO);
}

#[test]
fn sizes_accept_binary_suffixes() {
    assert_eq!(config(&["--inflight-bytes=1048576"]).members.inflight_bytes, 1 << 20);
    assert_eq!(config(&["--member-body-bytes=512Ki"]).members.body_bytes, 512 << 10);
    assert_eq!(config(&["--inflight-bytes=2Gi"]).members.inflight_bytes, 2 << 30);
    for wrong in ["0", "-1", "+1", "1k", "1.5Mi", "Mi", "99999999999Gi", "18446744073709551616"] {
        assert!(values::bytes(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn rate_limit_is_off_unless_set() {
    let rate = |args| config(args).members.rate;
    assert_eq!(
        rate(&["--cluster-api-qps=12.5", "--cluster-api-burst=20"]),
        Some(RateLimit { qps: 12.5, burst: 20 })
    );
    assert_eq!(rate(&["--cluster-api-qps=12.5"]), Some(RateLimit { qps: 12.5, burst: 60 }));
    assert_eq!(rate(&["--cluster-api-burst=100"]), Some(RateLimit { qps: 40.0, burst: 100 }));
    assert_eq!(rate(&["--cluster-api-qps=0", "--cluster-api-burst=100"]), None);
    assert_eq!(config(&["--kube-api-qps=5"]).control_plane.rate, Some(RateLimit { qps: 5.0, burst: 60 }));
}

#[test]
fn last_rule_of_external_metric_wins() {
    let rules = |args: &[&str]| Vec::from_iter(config(args).merging.external);
    let rule = |metric: &str, rule| (metric.to_owned(), rule);
    assert_eq!(
        rules(&["--external-merge=queue_depth=max,orders=sum", "--external-merge", "orders=avg"]),
        [rule("orders", ExternalMerge::Average), rule("queue_depth", ExternalMerge::Max)]
    );
    assert_eq!(
        rules(&["--external-merge=a=min,a=each,\"b,c=sum\""]),
        [rule("a", ExternalMerge::Each), rule("b,c", ExternalMerge::Sum)]
    );
    assert!(rules(&["--external-merge="]).is_empty());
    for wrong in ["queue_depth", "=sum", "queue_depth=", "queue_depth=most", "a=sum,", "a=SUM", "\"a=sum"] {
        let expected = "is not a list of METRIC=sum|max|min|avg|each (such as queue_depth=max,orders=sum)";
        assert_eq!(refusal(&["--external-merge", wrong]), format!("--external-merge: {wrong:?} {expected}"));
    }
}

#[test]
fn metrics_address_may_have_no_host_or_be_disabled() {
    let bind =
        |text: &str| config(&["--metrics-bind-address", text]).metrics.bind.map(|bind| bind.to_string());
    assert_eq!(bind(":9090").as_deref(), Some("0.0.0.0:9090"));
    assert_eq!(bind("127.0.0.1:0").as_deref(), Some("127.0.0.1:0"));
    assert_eq!(bind("localhost:8080").as_deref(), Some("127.0.0.1:8080"));
    assert_eq!(bind("[::1]:8080").as_deref(), Some("[::1]:8080"));
    assert_eq!(bind("0"), None);
    assert_eq!(bind(""), None);
    for wrong in ["8080", "::1:8080", "[::1:8080", "example.com:80", ":port", ":"] {
        assert!(values::metrics_address(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn header_flags_apply_only_with_front_proxy_ca() {
    let unset = ["--requestheader-username-headers=x-user"];
    assert_eq!(config(&unset).authentication.request_header, None);
    let set =
        ["--requestheader-client-ca-file=ca.crt", "--requestheader-username-headers=X-User,x-remote-user"];
    let header = config(&set).authentication.request_header.unwrap();
    assert_eq!(header.ca_file, Path::new("ca.crt"));
    assert_eq!(header.username_headers, ["x-user", "x-remote-user"]);
    assert_eq!(header.group_headers, ["x-remote-group"]);
    assert_eq!(header.extra_prefixes, ["x-remote-extra-"]);
    assert!(header.allowed_names.is_empty() && header.uid_headers.is_empty());
}

#[test]
fn empty_text_unsets_optional_flags() {
    let config = config(&[
        "--kubeconfig=",
        "--cert-dir=",
        "--cluster-label=",
        "--tls-cert-file",
        "",
        "--tls-min-version=",
    ]);
    assert_eq!(config.control_plane.kubeconfig, None);
    assert_eq!(config.serving.tls.cert_dir, None);
    assert_eq!(config.merging.cluster_label, None);
    assert_eq!(config.serving.tls.certificate, None);
    assert_eq!(config.serving.tls.min_version, TlsVersion::Tls12);
}

#[test]
fn old_tls_versions_mean_tls_1_2() {
    let version = |text: &str| config(&["--tls-min-version", text]).serving.tls.min_version;
    for old in ["VersionTLS10", "VersionTLS11", "VersionTLS12"] {
        assert_eq!(version(old), TlsVersion::Tls12);
    }
    assert_eq!(version("VersionTLS13"), TlsVersion::Tls13);
}

#[test]
fn arguments_of_karmadas_deployment_are_accepted() {
    let args = [
        "--kubeconfig=/etc/kubeconfig",
        "--authentication-kubeconfig=/etc/kubeconfig",
        "--authorization-kubeconfig=/etc/kubeconfig",
        "--client-ca-file=/etc/karmada/pki/ca.crt",
        "--tls-cert-file=/etc/karmada/pki/karmada.crt",
        "--tls-private-key-file=/etc/karmada/pki/karmada.key",
        "--audit-log-path=-",
        "--audit-log-maxage=0",
        "--audit-log-maxbackup=0",
        "--tls-min-version=VersionTLS13",
        "--bind-address=::",
    ];
    let cli = read(&args).unwrap();
    let ignored = Vec::from_iter(cli.ignored().names());
    assert_eq!(ignored, ["audit-log-maxage", "audit-log-maxbackup", "audit-log-path"]);
    assert_eq!(cli.ignored().warnings().next(), None, "their values are harmless");
    let config = config(&args);
    assert_eq!(config.authentication.client_ca_file, Some(PathBuf::from("/etc/karmada/pki/ca.crt")));
    assert_eq!(config.authorization.kubeconfig, Some(PathBuf::from("/etc/kubeconfig")));
    assert_eq!(config.serving.bind_address, Ipv6Addr::UNSPECIFIED);
}

#[test]
fn invalid_value_error_names_flag_and_expected_value() {
    let duration = "is not a duration of zero or more (such as 500ms, 5s or 1m30s)";
    let span = "is not a duration above zero (such as 500ms, 5s or 1m30s)";
    let size = "is not a size above zero in bytes (such as 1048576, 512Ki, 64Mi or 1Gi)";
    let csv = "is not a list (separate values by commas; quote a value that contains a comma or a quote)";
    for (flag, value, complaint) in [
        ("secure-port", "abc", "is not a port (0 to 65535)"),
        ("secure-port", "65536", "is not a port (0 to 65535)"),
        ("secure-port", "-1", "is not a port (0 to 65535)"),
        ("bind-address", "nowhere", "is not an IP address"),
        (
            "metrics-bind-address",
            "8080",
            "is not an address to listen on (such as :8080 or 127.0.0.1:8080; 0 disables it)",
        ),
        ("tls-min-version", "1.2", "is not one of VersionTLS12, VersionTLS13"),
        ("tls-cipher-suites", "\"A", csv),
        ("disable-http2-serving", "yes", "is not true or false"),
        ("authentication-token-webhook-cache-ttl", "10", duration),
        ("authorization-webhook-cache-authorized-ttl", "-1s", duration),
        (
            "authorization-always-allow-paths",
            "/a*b",
            "contains a path with a * that is not its last character",
        ),
        (
            "requestheader-group-headers",
            "x group",
            "is not a list of HTTP header names (such as x-remote-user)",
        ),
        ("request-timeout", "0s", span),
        ("member-timeout", "five", span),
        ("discovery-interval", "-1m", span),
        ("member-connections", "0", "is not a whole number above zero"),
        ("member-body-bytes", "64MB", size),
        ("inflight-bytes", "0", size),
        ("cluster-api-qps", "many", "is not a number"),
        ("cluster-api-qps", "NaN", "is not a number"),
        ("cluster-api-burst", "1.5", "is not a whole number"),
        ("same-name-pods", "max", "is not one of sum, average, separate"),
        ("logging-format", "xml", "is not one of text, json"),
        ("v", "all", "is not a log level (0 to 10)"),
        ("audit-log-maxage", "old", "is not a whole number"),
        ("audit-webhook-batch-max-wait", "1", "is not a duration (such as 500ms, 5s or 1m30s)"),
    ] {
        assert_eq!(refusal(&[&format!("--{flag}={value}")]), format!("--{flag}: {value:?} {complaint}"));
    }
    for wrong in ["a=b", "a,b", "!a", " a", "-a", "a/b/c", "exämple.com/a"] {
        let complaint = "is not a label key (such as example.com/cluster; empty disables the label)";
        assert_eq!(refusal(&["--cluster-label", wrong]), format!("--cluster-label: {wrong:?} {complaint}"));
    }
}

#[test]
fn missing_value_and_unknown_flag_are_one_line_errors() {
    assert_eq!(refusal(&["--kubeconfig"]), "--kubeconfig: a value is missing (--flag=value or --flag value)");
    assert_eq!(
        refusal(&["--logging-format"]),
        "--logging-format: a value is missing (--flag=value or --flag value)"
    );
    assert_eq!(refusal(&["-v"]), "--v: a value is missing (--flag=value or --flag value)");
    assert_eq!(refusal(&["--secure-prt=443"]), "--secure-prt: unknown flag; did you mean --secure-port?");
    assert_eq!(refusal(&["--zzz\n"]), r"--zzz\n: unknown flag (see --help)");
    assert_eq!(refusal(&["-x"]), "-x: unknown flag (see --help)");
}

#[test]
fn certificate_requires_its_key() {
    let remedy = "set both, or neither for a self-signed certificate";
    assert_eq!(
        refusal(&["--tls-cert-file=tls.crt"]),
        format!("--tls-cert-file without --tls-private-key-file: {remedy}")
    );
    assert_eq!(
        refusal(&["--tls-private-key-file=tls.key"]),
        format!("--tls-private-key-file without --tls-cert-file: {remedy}")
    );
}

#[test]
fn help_groups_effective_flags_and_version_names_the_program() {
    let help = printed(&["--help"]);
    let groups = [
        "Serving",
        "Metrics",
        "Control plane",
        "Authentication",
        "Authorization",
        "Members",
        "Merging",
        "Logging",
    ];
    for group in groups {
        assert!(help.contains(&format!("\n{group}:\n")), "{group}");
    }
    assert!(help.contains("--member-timeout <DURATION>") && !help.contains("audit-log"));
    let version = format!("karmada-metrics-adapter {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed(&["--version"]), version);
}

#[test]
fn exit_code_is_0_for_texts_and_2_for_errors() {
    assert_eq!(EarlyExit::Text(String::new()).report(), ExitCode::SUCCESS);
    assert_eq!(read(&["--zzz"]).unwrap_err().report(), ExitCode::from(2));
    assert_eq!(EarlyExit::from(ConflictingFlags::KeyWithoutCertificate).report(), ExitCode::from(2));
}
