use super::*;
use crate::api::selector::Selector;

fn read_text(text: &str) -> Result<Contexts, FileError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config");
    fs::write(&path, text).expect("written");
    fs::write(directory.path().join("token"), "from-a-file\n").expect("written");
    read(&path)
}

/// A file with one context, whose cluster and user are given.
fn single(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {cluster}}}]\nusers: [{{name: u, user: {user}}}]\n"
    )
}

fn complaint(cluster: &str, user: &str) -> String {
    let contexts = read_text(&single(cluster, user)).expect("a file that can be used");
    contexts["a"].clone().expect_err("a context that cannot be used")
}

#[test]
fn tags_are_valid_label_values_that_keep_the_end_of_long_names() {
    let arn = "arn:aws:eks:eu-central-1:123456789012:cluster/production-with-a-long-name";
    for (name, expected) in [
        ("member1", "member1"),
        ("kind-Local_1.2", "kind-Local_1.2"),
        ("admin@prod/eu", "admin-prod-eu"),
        ("-- x --", "x"),
        ("größe", "gr--e"),
        ("@@@", ""),
        (arn, "s-eu-central-1-123456789012-cluster-production-with-a-long-name"),
    ] {
        let tag = tag(name);
        assert_eq!(tag, expected, "{name}");
        assert!(format!("cluster={tag}").parse::<Selector>().is_ok(), "{tag}");
    }
}

#[test]
fn each_kind_of_login_is_read_and_a_token_comes_before_its_file_and_a_plugin() {
    let cluster =
        "{server: 'https://127.0.0.1:6443', tls-server-name: api.example, proxy-url: 'socks5://p:1'}";
    let exec = "exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login}";
    for (user, token, plugin) in [
        (format!("{{token: inline, tokenFile: token, {exec}}}"), Some("inline"), false),
        (format!("{{tokenFile: token, {exec}}}"), Some("from-a-file"), false),
        (format!("{{{exec}}}"), None, true),
        ("{}".to_owned(), None, false),
    ] {
        let contexts = read_text(&single(cluster, &user)).expect("a file that can be used");
        let Context { credentials, plugin: found } = contexts["a"].clone().expect("it can be used");
        let token = token.map(|token| Token::parse(token.as_bytes()).expect("a token"));
        assert_eq!((credentials.login.token, found.is_some()), (token, plugin), "{user}");
        assert_eq!(credentials.server_name, Some("api.example".try_into().expect("a name")));
        assert!(credentials.proxy.is_some() && credentials.trust == Trust::System);
    }
}

#[test]
fn what_is_wrong_with_a_context_is_said_with_its_name_and_without_secrets() {
    let server = "{server: 'https://127.0.0.1:6443'}";
    for (cluster, user, expected) in [
        (server, "{username: admin, password: s3cr3t}", "user name and password are not taken"),
        (server, "{auth-provider: {name: gcp}}", "the auth provider \"gcp\" is not supported"),
        (server, "{token: s3cr3t, as: root}", "impersonation"),
        (server, "{tokenFile: nowhere}", "nowhere cannot be read: No such file"),
        (server, "{client-certificate-data: s3cr3t}", "client-certificate-data is not valid base64"),
        (server, "{client-key-data: czNjcjN0}", "a key without a certificate"),
        (
            server,
            "{client-certificate-data: czNjcjN0, client-key-data: czNjcjN0}",
            "the client certificate cannot be used: it is no PEM certificate",
        ),
        (server, "{exec: {apiVersion: client.authentication.k8s.io/v1}}", "its exec plugin has no command"),
        ("{}", "{token: s3cr3t}", "its cluster has no server"),
        ("{server: 'ftp://x'}", "{token: s3cr3t}", "is no URL of an API server"),
        ("{server: x, proxy-url: 'ftp://s3cr3t@x'}", "{}", "the proxy \"…@x\" is no URL with http"),
        ("{server: x, tls-server-name: 'a b'}", "{}", "the TLS server name \"a b\""),
        ("{server: x, certificate-authority-data: '*'}", "{}", "certificate-authority-data is not valid"),
    ] {
        let complaint = complaint(cluster, user);
        assert!(complaint.starts_with("the context \"a\": ") && complaint.contains(expected), "{complaint}");
        assert!(!complaint.contains("s3cr3t"), "{complaint}");
    }
}

#[test]
fn a_context_without_its_cluster_or_user_stops_no_other() {
    let text = "contexts:\n- {name: a, context: {cluster: nowhere, user: u}}\n\
                - {name: b, context: {cluster: c, user: nobody}}\n- {name: c, context: {cluster: c, user: u}}\n\
                clusters: [{name: c, cluster: {server: x}}]\nusers: [{name: u, user: {token: t}}]\n";
    let contexts = read_text(text).expect("a file that can be used");
    let wrong = |tag: &str| contexts[tag].clone().expect_err("it cannot be used");
    assert_eq!(wrong("a"), "the context \"a\": it names no cluster that the file has");
    assert_eq!(wrong("b"), "the context \"b\": it names the user \"nobody\", which the file does not have");
    assert!(contexts["c"].is_ok());
}

#[test]
fn contexts_with_one_tag_are_an_error_that_names_them_all() {
    let text = "contexts: [{name: a/b}, {name: 'a:b'}, {name: '***'}]\n";
    let contexts = read_text(text).expect("a file that can be used");
    let wrong = |tag: &str| contexts[tag].clone().expect_err("it cannot be used");
    assert_eq!(
        wrong("a-b"),
        "the contexts [\"a/b\", \"a:b\"] would all be the cluster a-b: rename all but one"
    );
    assert!(wrong("").contains("\"***\" has no letter or digit"));
}

#[test]
fn a_file_without_contexts_is_no_fleet() {
    for text in ["", "apiVersion: v1\nkind: Config\n"] {
        assert!(matches!(read_text(text), Err(FileError::NoContexts)), "{text:?}");
    }
    let error =
        read_text("users:\n- name: s3cr3t\n  user: {token: \"s3cr3t\n").expect_err("no YAML").to_string();
    assert!(error.contains("no valid YAML") && !error.contains("s3cr3t"), "{error}");
}
