//! Field selectors for `metadata.name` and `metadata.namespace` (`metadata.name=a,metadata.namespace!=b`).
//!
//! This module follows `fields.ParseSelector` and `runtime.DefaultMetaV1FieldSelectorConversion` of apimachinery.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// Requirements, joined by AND. Without requirements, every object matches. The text of [`Display`] parses to the same
/// selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FieldRequirement {
    field: SelectableField,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum SelectableField {
    Name,
    Namespace,
}

/// Why a text is not a field selector. The texts are those of Go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A requirement has no operator.
    #[error("invalid selector: '{0}'; can't understand '{1}'")]
    Syntax(String, String),
    /// A backslash escapes an invalid character. Valid are a backslash, a comma and an equals sign.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A value has an equals sign without a backslash before it. Go prints the character as its code, 61.
    #[error("invalid field selector: unescaped character in value: 61")]
    Unescaped,
    /// The field cannot be used in a selector.
    #[error("{0:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    Field(String),
}

impl FieldSelector {
    /// The approximate memory of the requirements in bytes.
    pub fn memory(&self) -> usize {
        self.requirements
            .iter()
            .map(|requirement| size_of::<FieldRequirement>() + requirement.value.len() + 16)
            .sum()
    }

    /// Whether the selector has no requirements, so that every object matches.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with this name and namespace matches.
    pub fn matches(&self, name: &str, namespace: &str) -> bool {
        self.requirements.iter().all(|FieldRequirement { field, value, equal }| {
            let actual = match field {
                SelectableField::Name => name,
                SelectableField::Namespace => namespace,
            };
            (actual == value) == *equal
        })
    }

    /// The only name that can match, if a requirement has the form `metadata.name=NAME`.
    pub fn name(&self) -> Option<&str> {
        let mut names = self.requirements.iter().filter(|r| r.field == SelectableField::Name && r.equal);
        names.next().map(|requirement| requirement.value.as_str())
    }
}

impl Display for FieldSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, FieldRequirement { field, value, equal }) in self.requirements.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let field = match field {
                SelectableField::Name => "metadata.name",
                SelectableField::Namespace => "metadata.namespace",
            };
            let value = value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
            write!(f, "{separator}{field}{}{value}", if *equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

impl FromStr for FieldSelector {
    type Err = FieldSelectorError;

    fn from_str(text: &str) -> Result<Self, FieldSelectorError> {
        let terms = terms(text).into_iter().filter(|term| !term.is_empty());
        let requirements = terms.map(|term| FieldRequirement::parse(term, text)).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }
}

impl FieldRequirement {
    fn parse(term: &str, whole: &str) -> Result<Self, FieldSelectorError> {
        let syntax = || FieldSelectorError::Syntax(whole.to_owned(), term.to_owned());
        // Each operator has an equals sign and a field name has none, so the field name ends at the first operator.
        let (field, value) = term.split_once('=').ok_or_else(syntax)?;
        let (equal, field, value) = match field.strip_suffix('!') {
            Some(field) => (false, field, value),
            None => (true, field, value.strip_prefix('=').unwrap_or(value)),
        };
        let value = unescaped(value)?;
        let field = match field {
            "metadata.name" => SelectableField::Name,
            "metadata.namespace" => SelectableField::Namespace,
            other => return Err(FieldSelectorError::Field(other.to_owned())),
        };
        Ok(Self { field, value, equal })
    }
}

/// Splits at commas that have no backslash before them.
fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        if character == ',' && !escaped {
            terms.push(&text[start..at]);
            start = at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    terms.push(&text[start..]);
    terms
}

/// Go's `fields.UnescapeValue`. An equals sign must be escaped, too.
fn unescaped(value: &str) -> Result<String, FieldSelectorError> {
    let (mut plain, mut characters) = (String::with_capacity(value.len()), value.chars());
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next() {
                Some(next @ ('\\' | ',' | '=')) => next,
                other => {
                    let sequence = ['\\'].into_iter().chain(other).collect();
                    return Err(FieldSelectorError::Escape(sequence));
                }
            },
            '=' => return Err(FieldSelectorError::Unescaped),
            other => other,
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(text: &str) -> FieldSelector {
        text.parse().expect("a valid selector")
    }

    #[test]
    fn names_and_namespaces_match() {
        let table = [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,metadata.namespace=b", true),
            ("metadata.name!=a", false),
            ("metadata.namespace!=c,", true),
            ("metadata.name=a,metadata.name=c", false),
            ("metadata.name=", false),
        ];
        for (text, expected) in table {
            assert_eq!(selector(text).matches("a", "b"), expected, "{text}");
        }
        let escaped = selector(r"metadata.name==x\,y\=z\\,metadata.namespace!=n");
        assert!(escaped.matches(r"x,y=z\", ""));
        assert_eq!(escaped.to_string(), r"metadata.name=x\,y\=z\\,metadata.namespace!=n");
        assert_eq!(selector(&escaped.to_string()), escaped);
        assert_eq!(selector("metadata.namespace=b,metadata.name=a").name(), Some("a"));
        assert_eq!(selector("metadata.name!=a").name(), None);
    }

    #[test]
    fn invalid_selectors_are_rejected() {
        let error = |text: &str| text.parse::<FieldSelector>().expect_err("an invalid selector").to_string();
        assert_eq!(
            error("metadata.name"),
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'"
        );
        assert_eq!(
            error("metadata.name!a"),
            "invalid selector: 'metadata.name!a'; can't understand 'metadata.name!a'"
        );
        assert_eq!(
            error("spec.nodeName=n"),
            r#""spec.nodeName" is not a known field selector: only "metadata.name", "metadata.namespace""#
        );
        assert_eq!(
            error("a!b=c"),
            r#""a!b" is not a known field selector: only "metadata.name", "metadata.namespace""#
        );
        let unescaped = "invalid field selector: unescaped character in value: 61";
        assert_eq!(error("metadata.name=a=b"), unescaped);
        let escape = r"invalid field selector: invalid escape sequence: \";
        assert_eq!(error(r"metadata.name=a\b"), format!("{escape}b"));
        assert_eq!(error(r"metadata.name=a\"), escape);
    }
}
