//! Label selectors as `k8s.io/apimachinery/pkg/labels` parses them, but without the validation of keys and values. Field
//! selectors use a subset of the same grammar and are parsed here too.

use std::collections::{BTreeSet, VecDeque};

/// A parsed selector. All its requirements must match.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    requirements: Vec<Requirement>,
}

/// The requirement for one label.
#[derive(Clone, Debug)]
pub(crate) struct Requirement {
    pub(crate) key: String,
    pub(crate) operator: Operator,
    pub(crate) values: BTreeSet<String>,
}

/// How the label is compared with the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// The tokens of a selector, for the grammar and for error texts: a symbol, a word, or an empty string at the end.
struct Tokens(VecDeque<String>);

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// The message of Go's parser.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Tokens::new(text);
        let mut requirements = Vec::new();
        if tokens.peek().is_empty() {
            return Ok(Self::default());
        }
        if !starts_requirement(tokens.peek()) {
            return Err(format!("found '{}', expected: !, identifier, or 'end of string'", tokens.peek()));
        }
        loop {
            let requirement = requirement(&mut tokens);
            requirements.push(requirement.map_err(|error| format!("unable to parse requirement: {error}"))?);
            match tokens.next().as_str() {
                "" => break,
                "," if starts_requirement(tokens.peek()) => {}
                "," => return Err(format!("found '{}', expected: identifier after ','", tokens.peek())),
                other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
            }
        }
        requirements.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Self { requirements })
    }

    /// Whether an object's labels match all requirements. `label` looks up a value by key.
    pub(crate) fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// The requirements, sorted by key.
    pub(crate) fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    fn matches(&self, label: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|value| number(value));
        match self.operator {
            Operator::Equals | Operator::In => label.is_some_and(|value| self.values.contains(value)),
            Operator::NotEquals | Operator::NotIn => label.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => {
                label.and_then(number).zip(bound()).is_some_and(|(value, bound)| value > bound)
            }
            Operator::LessThan => {
                label.and_then(number).zip(bound()).is_some_and(|(value, bound)| value < bound)
            }
        }
    }
}

fn requirement(tokens: &mut Tokens) -> Result<Requirement, String> {
    let negated = tokens.peek() == "!";
    if negated {
        tokens.next();
    }
    let key = word(tokens)?;
    let exists = matches!(tokens.peek(), "" | ",");
    if negated || exists {
        let operator = if negated { Operator::DoesNotExist } else { Operator::Exists };
        return Ok(Requirement { key, operator, values: BTreeSet::new() });
    }
    let operator = match tokens.next().as_str() {
        "=" | "==" => Operator::Equals,
        "!=" => Operator::NotEquals,
        "in" => Operator::In,
        "notin" => Operator::NotIn,
        ">" => Operator::GreaterThan,
        "<" => Operator::LessThan,
        other => return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt")),
    };
    let values = match operator {
        Operator::In | Operator::NotIn => values(tokens)?,
        _ if matches!(tokens.peek(), "" | ",") => BTreeSet::from([String::new()]),
        _ => BTreeSet::from([word(tokens)?]),
    };
    Ok(Requirement { key, operator, values })
}

/// A list in parentheses. A value between two commas may be missing.
fn values(tokens: &mut Tokens) -> Result<BTreeSet<String>, String> {
    match tokens.next().as_str() {
        "(" => {}
        other => return Err(format!("found '{other}' expected: '('")),
    }
    if tokens.peek() == ")" {
        tokens.next();
        return Ok(BTreeSet::new());
    }
    if tokens.peek() != "," && !is_word(tokens.peek()) {
        return Err(format!("found '{}', expected: ',', ')' or identifier", tokens.peek()));
    }
    let mut values = BTreeSet::new();
    loop {
        let value = if is_word(tokens.peek()) { tokens.next() } else { String::new() };
        values.insert(value);
        match tokens.next().as_str() {
            "," => {}
            ")" => return Ok(values),
            other => return Err(format!("found '{other}', expected: ',' or ')'")),
        }
    }
}

fn word(tokens: &mut Tokens) -> Result<String, String> {
    match tokens.next() {
        word if is_word(&word) => Ok(word),
        other => Err(format!("found '{other}', expected: identifier")),
    }
}

fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(|first| !is_symbol(first))
}

fn is_symbol(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn starts_requirement(token: &str) -> bool {
    token == "!" || is_word(token)
}

impl Tokens {
    fn new(text: &str) -> Self {
        let mut tokens: VecDeque<String> = VecDeque::new();
        let mut joined = false; // whether the last token is directly before this character
        for character in text.chars() {
            let space = matches!(character, ' ' | '\t' | '\r' | '\n');
            let last = tokens.back_mut().filter(|_| joined);
            match last {
                _ if space => {}
                Some(last) if !is_symbol(character) && is_word(last) => last.push(character),
                Some(last) if character == '=' && matches!(last.as_str(), "=" | "!") => last.push(character),
                _ => tokens.push_back(character.to_string()),
            }
            joined = !space;
        }
        Self(tokens)
    }

    fn peek(&self) -> &str {
        self.0.front().map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        self.0.pop_front().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn selectors_match_the_vectors() {
        let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../contract/vectors/selectors.json");
        let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(vectors).unwrap()).unwrap();
        let sets: Vec<BTreeMap<String, String>> =
            serde_json::from_value(vectors["labelSets"].clone()).unwrap();
        let mut checked = 0;
        for case in vectors["cases"].as_array().unwrap() {
            let text = case["in"].as_str().unwrap();
            match (case["error"].as_str(), Selector::parse(text)) {
                // This parser does not validate keys and values.
                (Some(error), _) if error.contains("Invalid value") => continue,
                (Some(error), parsed) => assert_eq!(parsed.unwrap_err(), error, "{text}"),
                (None, parsed) => {
                    let parsed = parsed.unwrap_or_else(|error| panic!("{text}: {error}"));
                    let matches: Vec<bool> = sets
                        .iter()
                        .map(|labels| parsed.matches(|key| labels.get(key).map(String::as_str)))
                        .collect();
                    assert_eq!(serde_json::json!(matches), case["matches"], "{text}");
                }
            }
            checked += 1;
        }
        assert!(checked > 300, "only {checked}");
    }
}
