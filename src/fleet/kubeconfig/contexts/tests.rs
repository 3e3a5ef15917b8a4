use std::fs;

use super::*;
use crate::api::selector::Selector;

fn read_text(text: &str) -> Result<FleetContexts, FleetFileError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config");
    fs::write(&path, text).expect("written");
    read(&path)
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
fn a_context_that_cannot_be_used_is_named_and_stops_no_other() {
    let text = "contexts:\n- {name: a, context: {cluster: nowhere, user: u}}\n\
                - {name: b, context: {cluster: c, user: root}}\n- {name: c, context: {cluster: c, user: u}}\n\
                clusters: [{name: c, cluster: {server: x}}]\n\
                users: [{name: u, user: {token: t}}, {name: root, user: {token: s3cr3t, as: root}}]\n";
    let contexts = read_text(text).expect("a file that can be used");
    let wrong = |tag: &str| contexts[tag].clone().expect_err("it cannot be used");
    assert_eq!(wrong("a"), "the context \"a\": its cluster is not in the file");
    assert_eq!(
        wrong("b"),
        "the context \"b\": impersonation (as, as-uid, as-groups, as-user-extra) is not supported"
    );
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
        assert!(matches!(read_text(text), Err(FleetFileError::NoContexts)), "{text:?}");
    }
    let error =
        read_text("users:\n- name: s3cr3t\n  user: {token: \"s3cr3t\n").expect_err("no YAML").to_string();
    assert!(error.contains("is not valid YAML") && !error.contains("s3cr3t"), "{error}");
}
