//! Subcommands that only print a text.

use super::*;

#[test]
fn version_is_one_line_or_kubernetes_version_info() {
    assert_eq!(printed(&["version"]), printed(&["--version"]));
    for args in [&["version", "-o", "json"][..], &["version", "--output=json"]] {
        let info: serde_json::Value = serde_json::from_str(&printed(args)).unwrap();
        assert_eq!(info["gitVersion"], concat!("v", env!("CARGO_PKG_VERSION")));
        assert!(info["platform"].as_str().is_some_and(|platform| platform.contains('/')));
    }
    assert_eq!(refusal(&["version", "-o", "xml"]), r#"--output: "xml" is not one of json"#);
}

#[test]
fn completions_contain_only_effective_flags() {
    for shell in ["bash", "fish", "powershell", "zsh"] {
        let script = printed(&["completion", shell]);
        for word in ["member-timeout", "version", "last-known"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert!(!script.contains("audit-log-path"), "{shell}");
    }
    assert_eq!(refusal(&["completion"]), "<SHELL> is missing (see --help)");
    assert_eq!(
        refusal(&["completion", "csh"]),
        r#"<SHELL>: "csh" is not one of bash, elvish, fish, powershell, zsh"#
    );
}

#[test]
fn subcommand_comes_before_flags() {
    let hint = "subcommands come before flags; write booleans as --flag=false";
    for flag in ["--secure-port=1", "--authentication-skip-lookup", "--audit-log-compress", "-v4"] {
        assert_eq!(refusal(&[flag, "version"]), format!(r#"unexpected argument "version": {hint}"#));
    }
    let unknown = "--secure-port: unknown flag (see --help)";
    assert_eq!(refusal(&["version", "--secure-port=1"]), unknown);
    assert_eq!(refusal(&["version", "now"]), r#"unexpected argument "now" (see --help)"#);
    assert_eq!(refusal(&["--", "version"]), r#"unexpected argument "version" (see --help)"#);
}

#[test]
fn unknown_subcommand_is_a_one_line_error() {
    assert_eq!(refusal(&["verson"]), r#""verson": unknown subcommand; did you mean version?"#);
    for wrong in ["serve", "serve\n", ""] {
        assert_eq!(refusal(&[wrong]), format!("{wrong:?}: unknown subcommand (see --help)"));
    }
    let kubeconfig = config(&["--kubeconfig", "version"]).control_plane.kubeconfig;
    assert_eq!(kubeconfig, Some(PathBuf::from("version")));
}
