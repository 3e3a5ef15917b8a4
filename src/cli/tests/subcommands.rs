//! What is answered instead of serving.

use super::*;

#[test]
fn the_version_is_a_line_or_kubernetes_version_info() {
    assert_eq!(answer(&["version"]), answer(&["--version"]));
    for args in [&["version", "-o", "json"][..], &["version", "--output=json"]] {
        let info: serde_json::Value = serde_json::from_str(&answer(args)).unwrap();
        assert_eq!(info["gitVersion"], concat!("v", env!("CARGO_PKG_VERSION")));
        assert!(info["platform"].as_str().is_some_and(|platform| platform.contains('/')));
    }
    assert_eq!(refusal(&["version", "-o", "xml"]), r#"--output: "xml" is not one of json"#);
}

#[test]
fn completions_offer_what_means_something_to_the_shell_that_is_named() {
    for shell in ["bash", "fish", "powershell", "zsh"] {
        let script = answer(&["completion", shell]);
        for word in ["member-timeout", "version", "last-known"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("audit-log-path"), "{shell}");
    }
    assert_eq!(refusal(&["completion"]), "<SHELL> is missing (--help says more)");
    assert_eq!(
        refusal(&["completion", "csh"]),
        r#"<SHELL>: "csh" is not one of bash, elvish, fish, powershell, zsh"#
    );
}

#[test]
fn a_subcommand_comes_before_any_flag() {
    let stray = "is no flag, and nothing else is expected behind flags; on or off is said as --flag=false";
    for flag in ["--secure-port=1", "--authentication-skip-lookup", "--audit-log-compress", "-v4"] {
        assert_eq!(refusal(&[flag, "version"]), format!(r#""version" {stray}"#));
    }
    let unknown = "--secure-port: there is no such flag (--help lists all)";
    assert_eq!(refusal(&["version", "--secure-port=1"]), unknown);
    assert_eq!(refusal(&["version", "now"]), r#""now" is no flag, and nothing else is expected"#);
    assert_eq!(refusal(&["--", "version"]), r#""version" is no flag, and nothing else is expected"#);
}

#[test]
fn what_is_no_subcommand_is_refused_in_a_line_and_a_flags_value_is_left_alone() {
    assert_eq!(refusal(&["verson"]), r#""verson": there is no such subcommand; was version meant?"#);
    for wrong in ["serve", "serve\n", ""] {
        assert_eq!(refusal(&[wrong]), format!("{wrong:?}: there is no such subcommand (--help lists all)"));
    }
    let kubeconfig = config(&["--kubeconfig", "version"]).control_plane.kubeconfig;
    assert_eq!(kubeconfig, Some(PathBuf::from("version")));
}
