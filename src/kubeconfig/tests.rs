use super::*;

/// Reads a file with one context, which has this cluster and this user.
fn read(cluster: &str, user: &str) -> Result<Context, ContextError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {cluster}}}]\nusers: [{{name: u, user: {user}}}]\n"
    );
    fs::write(&path, text).expect("written");
    fs::write(directory.path().join("token"), "from-a-file\n").expect("written");
    current_context(&Kubeconfig::read_from(&path).expect("a kubeconfig"))
}

#[test]
fn token_has_priority_over_token_file_and_plugin() {
    let cluster =
        "{server: 'https://127.0.0.1:6443', tls-server-name: api.example, proxy-url: 'socks5://p:1'}";
    let exec = "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login}";
    for (user, token, plugin) in [
        (format!("{{token: inline, tokenFile: token, {exec}}}"), Some("inline"), false),
        (format!("{{tokenFile: token, {exec}}}"), Some("from-a-file"), false),
        (format!("{{{exec}}}"), None, true),
        ("{}".to_owned(), None, false),
    ] {
        let Context { credentials, plugin: found, .. } = read(cluster, &user).expect("the context is valid");
        let token = token.map(|token| BearerToken::parse(token.as_bytes()).expect("a token"));
        assert_eq!((credentials.user.token, found.is_some()), (token, plugin), "{user}");
        assert_eq!(credentials.server_name, Some("api.example".try_into().expect("a name")));
        assert!(credentials.proxy.is_some() && credentials.verification == ServerVerification::System);
    }
}

#[test]
fn impersonation_is_read() {
    let user = "{token: t, as: alice, as-groups: [staff], as-user-extra: {team: [a, b]}}";
    let found = read("{server: x}", user).expect("the context is valid").impersonation.expect("it is set");
    assert_eq!((found.user.as_deref(), found.uid.as_deref()), (Some("alice"), None));
    assert_eq!(found.groups, Some(vec!["staff".to_owned()]));
    assert_eq!(found.extra.expect("it is set")["team"], ["a", "b"]);
    assert_eq!(read("{server: x}", "{token: t}").expect("the context is valid").impersonation, None);
}

#[test]
fn context_errors_contain_no_secrets() {
    let server = "{server: 'https://127.0.0.1:6443'}";
    for (cluster, user, expected) in [
        (
            server,
            "{username: admin, password: s3cr3t}",
            "API servers no longer accept user name and password",
        ),
        (server, "{auth-provider: {name: gcp}}", "the auth provider \"gcp\" is not supported"),
        (server, "{tokenFile: nowhere}", "nowhere cannot be read: No such file"),
        (server, "{client-certificate-data: s3cr3t}", "client-certificate-data is not valid base64"),
        (server, "{client-key-data: czNjcjN0}", "a key without a certificate"),
        (
            server,
            "{client-certificate-data: czNjcjN0, client-key-data: czNjcjN0}",
            "the client certificate is invalid: it is not a PEM certificate",
        ),
        (server, "{exec: {apiVersion: client.authentication.k8s.io/v1}}", "its exec plugin has no command"),
        ("{}", "{token: s3cr3t}", "its cluster has no server"),
        ("{server: 'ftp://x'}", "{token: s3cr3t}", "is not the URL of an API server"),
        ("{server: x, proxy-url: 'ftp://s3cr3t@x'}", "{}", "the proxy \"…@x\" is not a URL with http"),
        ("{server: x, tls-server-name: 'a b'}", "{}", "the TLS server name \"a b\""),
        ("{server: x, certificate-authority-data: '*'}", "{}", "certificate-authority-data is not valid"),
    ] {
        let error = read(cluster, user).expect_err("the context is invalid").to_string();
        assert!(error.contains(expected) && !error.contains("s3cr3t"), "{error}");
    }
}

#[test]
fn missing_entries_are_named() {
    let error_of = |text: &str| {
        let file = Kubeconfig::from_yaml(text).expect("a kubeconfig");
        current_context(&file).expect_err("the context is invalid").to_string()
    };
    let rest = "clusters: [{name: c, cluster: {server: x}}]\nusers: [{name: u, user: {token: t}}]\n\
                contexts:\n- {name: a, context: {cluster: nowhere, user: u}}\n\
                - {name: b, context: {cluster: c, user: missing}}\n";
    for (current_context, expected) in [
        ("", "it has no current-context"),
        ("current-context: z\n", "it has no context \"z\""),
        ("current-context: a\n", "its cluster is not in the file"),
        ("current-context: b\n", "its user \"missing\" is not in the file"),
    ] {
        assert_eq!(error_of(&format!("{current_context}{rest}")), expected);
    }
}
