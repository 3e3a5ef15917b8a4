use num_bigint::BigInt;
use proptest::prelude::*;
use serde_json::Value;

use super::parse::power_of_ten;
use super::{Quantity, QuantityError, QuantityValue};

fn vectors(table: &str) -> Vec<Value> {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/vectors/quantity.json"));
    let mut tables: Value = serde_json::from_str(text).unwrap();
    let Value::Array(rows) = tables[table].take() else { panic!("no table {table}") };
    rows
}

fn parse(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn sum<'a>(summands: impl IntoIterator<Item = &'a Quantity>) -> Quantity {
    summands.into_iter().fold(Quantity::ZERO, |mut sum, summand| {
        sum.add(summand);
        sum
    })
}

#[test]
fn texts_parse_as_in_go() {
    let rows = vectors("parse");
    for row in &rows {
        let text = row["in"].as_str().unwrap();
        match text.parse::<Quantity>() {
            Err(error) => assert_eq!(row["error"], error.to_string(), "{text}"),
            Ok(quantity) => {
                assert_eq!(row["canonical"], quantity.to_string(), "{text}");
                assert_eq!(row["json"], quantity.to_string(), "{text}");
                let format = format!("{:?}", quantity.format).replace("Si", "SI");
                assert_eq!(row["format"], format, "{text}");
            }
        }
    }
    assert_eq!(rows.len(), 1264);
}

#[test]
fn sums_print_as_in_go() {
    let rows = vectors("add");
    for row in &rows {
        let summands: Vec<Quantity> =
            row["in"].as_array().unwrap().iter().map(|text| parse(text.as_str().unwrap())).collect();
        assert_eq!(row["sum"], sum(&summands).to_string(), "{}", row["in"]);
        assert_eq!(sum(&summands), sum(summands.iter().rev()), "{}", row["in"]);
    }
    assert_eq!(rows.len(), 1200);
}

#[test]
fn common_values_and_sums_need_no_heap() {
    for text in ["0", "66m", "700m", "148989m", "1500", "-3", "250n", "1234567u", "128Mi", "913408Ki", "12k"]
    {
        let quantity = parse(text);
        assert!(
            matches!(quantity, Quantity { amount: QuantityValue::Small { .. }, text: None, .. }),
            "{text}"
        );
        let total = sum([&quantity, &quantity, &parse("1m"), &parse("1Ki")]);
        assert!(matches!(total, Quantity { amount: QuantityValue::Small { .. }, text: None, .. }), "{text}");
    }
}

#[test]
fn equality_is_by_value() {
    for (left, right) in [("1", "1000m"), ("1Ki", "1024"), ("1e3", "1k"), ("0", "-0Ki"), ("1E400", "10e399")]
    {
        assert_eq!(parse(left), parse(right));
    }
    for (left, right) in [("1", "1001m"), ("1E400", "1E401"), ("1e1000", "1n"), ("9E", "9000000000000000001")]
    {
        assert_ne!(parse(left), parse(right));
    }
    assert_eq!(parse("12345678901234567890123"), sum([&parse("12345678901234567890122"), &parse("1")]));
}

#[test]
fn sum_has_the_format_of_the_first_nonzero_summand() {
    for (summands, expected) in [
        (["1Ki", "1024", "0"], "2Ki"),
        (["1024", "1Ki", "0"], "2048"),
        (["0", "1Ki", "1024"], "2Ki"),
        (["1Ki", "-1024", "5e3"], "5e3"),
    ] {
        assert_eq!(sum(&summands.map(parse)).to_string(), expected, "{summands:?}");
    }
}

#[test]
fn value_without_a_suffix_has_an_exponent() {
    assert_eq!(parse("1000E").to_string(), "1e21");
    assert_eq!(sum([&parse("500E"), &parse("500E")]).to_string(), "1e21");
    let quarter = parse("4Ei");
    assert_eq!(sum(std::iter::repeat_n(&quarter, 256)).to_string(), "1024Ei");
}

#[test]
fn too_long_text_is_rejected() {
    let of = |length: usize| format!("0.{}", "1".repeat(length - 2)).parse::<Quantity>();
    assert_eq!(of(4096).expect("the maximum length").to_string(), "111111112n");
    assert_eq!(of(4097).unwrap_err(), QuantityError::TooLong);
}

#[test]
fn extreme_exponents_need_no_memory() {
    for text in ["1e1024", "1e2000000000", "0.1e1025", "1e9223372036854775807", "1000000000000000000000e1010"]
    {
        assert_eq!(text.parse::<Quantity>().unwrap_err(), QuantityError::TooLarge, "{text}");
    }
    assert_eq!("1e9223372036854775808".parse::<Quantity>().unwrap_err(), QuantityError::Suffix);
    for text in ["1e-2000000000", "1e-9223372036854775808", "123456789012345678901234567890e-999999"] {
        assert_eq!(parse(text).to_string(), "1e-9", "{text}");
    }
    for text in ["0e2000000000", "0.00000000000000000000e9223372036854775807", "0e-9223372036854775808"] {
        assert_eq!(parse(text).to_string(), "0", "{text}");
    }
}

#[test]
fn thousands_of_digits_are_valid() {
    let nines = "9".repeat(4000);
    assert_eq!(nines.parse::<Quantity>().unwrap_err(), QuantityError::TooLarge);
    assert_eq!(parse(&format!("0.{nines}")).to_string(), "1");
    assert_eq!(parse(&format!("1.{nines}Ki")).to_string(), "2Ki");
    assert_eq!(parse(&format!("{nines}Ki")).to_string(), i64::MAX.to_string());
    assert_eq!(parse(&format!("0.{}1Ei", "0".repeat(4000))).to_string(), "1n");
}

/// Texts like those of real senders, and more extreme texts.
fn quantity_text() -> impl Strategy<Value = String> {
    let suffix = "(|n|u|m|k|M|G|T|P|E|[KMGTPE]i|[eE][-+]?[0-9]{1,2})";
    let pattern = ["[-+]?[0-9]{1,22}(\\.[0-9]{0,22})?", suffix].concat();
    proptest::string::string_regex(&pattern).unwrap()
}

/// Values of one format: the text of their sum does not depend on the order.
fn summands_of_one_format() -> impl Strategy<Value = Vec<String>> {
    let texts =
        |pattern: &str| proptest::collection::vec(proptest::string::string_regex(pattern).unwrap(), 1..8);
    prop_oneof![
        texts("-?[0-9]{1,21}(\\.[0-9]{1,12})?[numkMGTPE]?"),
        texts("-?[0-9]{1,10}(\\.[0-9]{1,12})?[eE]-?[0-9]{1,2}"),
        texts("-?[1-9][0-9]{1,12}(\\.[0-9]{1,12})?[KMGTPE]i"),
    ]
}

proptest! {
    #[test]
    fn printed_text_is_stable(text in quantity_text()) {
        let quantity = parse(&text);
        let printed = quantity.to_string();
        prop_assert_eq!(&parse(&printed), &quantity);
        prop_assert_eq!(parse(&printed).to_string(), printed);
    }

    #[test]
    fn sum_does_not_depend_on_the_order(
        (texts, shuffled) in proptest::collection::vec(quantity_text(), 0..8)
            .prop_flat_map(|texts| (Just(texts.clone()), Just(texts).prop_shuffle()))
    ) {
        let total = |texts: &[String]| sum(&texts.iter().map(|text| parse(text)).collect::<Vec<_>>());
        prop_assert_eq!(total(&texts), total(&shuffled));
    }

    #[test]
    fn sum_text_does_not_depend_on_order_within_one_format(
        (texts, shuffled) in summands_of_one_format()
            .prop_flat_map(|texts| (Just(texts.clone()), Just(texts).prop_shuffle()))
    ) {
        let total = |texts: &[String]| sum(&texts.iter().map(|text| parse(text)).collect::<Vec<_>>());
        prop_assert_eq!(total(&texts).to_string(), total(&shuffled).to_string());
    }

    #[test]
    fn long_fraction_rounds_with_all_digits(
        whole in "[1-9][0-9]{0,2}", fraction in "[0-9]{1,30}0{0,60}[0-9]{0,30}", step in 0_usize..5,
    ) {
        let digits = BigInt::parse_bytes(format!("{whole}{fraction}").as_bytes(), 10).unwrap();
        let nanos = (digits << (10 * (step + 1))) * power_of_ten(9);
        let divisor = power_of_ten(u32::try_from(fraction.len()).unwrap());
        let rounded_up = (nanos + &divisor - 1_u8) / divisor;
        let quantity = parse(&format!("{whole}.{fraction}{}i", ["K", "M", "G", "T", "P"][step]));
        prop_assert_eq!(quantity, parse(&format!("{rounded_up}n")));
    }

    #[test]
    fn kept_and_canonical_text_have_the_same_value(text in quantity_text()) {
        let quantity = parse(&text);
        let canonical = Quantity { text: None, ..quantity.clone() };
        prop_assert_eq!(parse(&canonical.to_string()), quantity);
    }

    #[test]
    fn no_input_panics(text in any::<String>(), number in "[-+.0-9eEinumkKMGTP]{0,40}") {
        for text in [text, number] {
            if let Ok(mut quantity) = text.parse::<Quantity>() {
                quantity.add(&parse("1n"));
                let _ = quantity.to_string();
            }
        }
    }

    #[test]
    fn no_exponent_panics(digits in "[0-9]{1,40}", exponent in any::<i64>()) {
        if let Ok(mut quantity) = format!("{digits}e{exponent}").parse::<Quantity>() {
            quantity.add(&parse("1n"));
            let _ = quantity.to_string();
        }
    }
}
