use proptest::prelude::*;
use serde_json::Value;

use super::{Operator, Selector, SelectorError};

fn vectors() -> Value {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/vectors/selectors.json"));
    serde_json::from_str(text).unwrap()
}

fn parse(text: &str) -> Selector {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<Selector>().unwrap_err().to_string()
}

#[test]
fn texts_parse_print_and_match_as_in_go() {
    let vectors = vectors();
    let label_sets = vectors["labelSets"].as_array().unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    for case in cases {
        let text = case["in"].as_str().unwrap();
        match text.parse::<Selector>() {
            Err(error) => assert_eq!(case["error"], error.to_string(), "{text:?}"),
            Ok(selector) => {
                assert_eq!(case["canonical"], selector.to_string(), "{text:?}");
                let matches: Vec<bool> =
                    label_sets.iter().map(|labels| selector.matches(|key| labels[key].as_str())).collect();
                assert_eq!(case["matches"], Value::from(matches), "{text:?}");
            }
        }
    }
    assert_eq!(cases.len(), 481);
}

#[test]
fn requirements_on_one_label_are_split_off() {
    let (clusters, rest) = parse("verb=GET,cluster in (b,a),!old,cluster!=c").split_off("cluster");
    assert_eq!(rest.to_string(), "!old,verb=GET");
    let chosen = |cluster| clusters.iter().all(|requirement| requirement.matches_label(Some(cluster)));
    assert!(chosen("a") && chosen("b") && !chosen("c") && !chosen("d"));
    assert_eq!(clusters[0].key(), "cluster");
    assert_eq!(clusters[0].operator(), Operator::In);
    assert_eq!(clusters[0].values(), ["a", "b"]);

    let (clusters, rest) = parse("verb=GET").split_off("cluster");
    assert!(clusters.is_empty());
    assert_eq!(rest.to_string(), "verb=GET");
}

#[test]
fn errors_inside_requirements_have_their_own_variant() {
    assert!(matches!("a b".parse::<Selector>(), Err(SelectorError::Requirement(_))));
    assert!(matches!("a=b c".parse::<Selector>(), Err(SelectorError::Unexpected { .. })));
}

#[test]
fn prefix_must_be_a_dns_name() {
    let rule = "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
        characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
        regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    for prefix in ["Example.com", "a..b", "-a", "a-.b", ".", "a_b"] {
        let expected = format!("unable to parse requirement: <nil>: Invalid value: \"{prefix}/x\": {rule}");
        assert_eq!(error(&format!("{prefix}/x")), expected);
    }
    let long = "a".repeat(254);
    let expected = format!(
        "unable to parse requirement: <nil>: Invalid value: \"{long}/x\": \
        prefix part must be no more than 253 bytes"
    );
    assert_eq!(error(&format!("{long}/x")), expected);
    parse(&format!("{}.{}/x", "a".repeat(200), "b".repeat(52)));
}

#[test]
fn invalid_value_is_quoted_as_in_go() {
    for (value, quoted) in [
        ("\u{1}\u{7f}\u{b}", r#""\x01\x7f\v""#),
        ("\\\"", r#""\\\"""#),
        ("日e\u{301}", "\"日e\u{301}\""),
        ("\u{a0}\u{200b}\u{e0001}", r#""\u00a0\u200b\U000e0001""#),
    ] {
        let message = error(&format!("a={value}"));
        let start =
            format!("unable to parse requirement: values[0][a]: Invalid value: {quoted}: a valid label");
        assert!(message.starts_with(&start), "{message}");
    }
}

#[test]
fn nul_ends_a_token_or_the_text() {
    assert_eq!(parse("a\0=\0b").to_string(), "a=b");
    assert_eq!(parse("a=b \0,=").to_string(), "a=b");
    assert_eq!(
        error("a\0b"),
        "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"
    );
}

#[test]
fn commas_are_empty_values_as_in_go() {
    for (list, canonical) in
        [("(,a)", "(,a)"), ("(a,,b)", "(,a,b)"), ("(a,)", "(,a)"), ("(,,a)", "(,a)"), ("()", "()")]
    {
        assert_eq!(parse(&format!("k in {list}")).to_string(), format!("k in {canonical}"));
    }
    for list in ["(a,,)", "(,,)"] {
        let expected = "unable to parse requirement: found ')', expected: ',', or identifier";
        assert_eq!(error(&format!("k in {list}")), expected);
    }
}

#[test]
fn integers_are_compared_as_integers() {
    let holds = |text: &str, value| parse(text).requirements()[0].matches_label(value);
    assert!(holds("a>9", Some("10")) && holds("a<10", Some("-9")) && holds("a>9", Some("+10")));
    assert!(!holds("a>9", Some("9")) && !holds("a>9", Some("x")) && !holds("a>9", None));
    assert!(error("a>9223372036854775808").contains("the value must be an integer"));
}

proptest! {
    #[test]
    fn printed_text_is_stable(
        requirements in proptest::collection::vec(
            "!?[a-z]{1,3}(/[a-z])?|[a-z]{1,2}(=|==|!=) ?[a-zA-Z0-9]{0,3}\
            |[a-z]{1,2} (in|notin) \\([a-c,]{0,6}\\)|[a-z] ?[<>] ?-?[0-9]{1,3}",
            0..5,
        )
    ) {
        // A few of these texts are not valid selectors, such as a bound with a sign.
        if let Ok(selector) = requirements.join(",").parse::<Selector>() {
            let printed = selector.to_string();
            let again = parse(&printed);
            prop_assert_eq!(&again, &selector);
            prop_assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn no_input_panics(text in any::<String>(), symbols in "(a|in|notin|[ !=<>(),\0é/.-]){0,20}") {
        for text in [text, symbols] {
            match text.parse::<Selector>() {
                Ok(selector) => { selector.matches(|_| Some("a")); }
                Err(error) => { let _ = error.to_string(); }
            }
        }
    }
}
