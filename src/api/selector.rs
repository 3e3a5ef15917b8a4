//! Label selectors as text (`app=a,tier in (x,y),!old`).
//!
//! This module follows k8s.io/apimachinery/pkg/labels. Accepted texts, sorting, printing, matching and error texts are the
//! same.

mod parse;
#[cfg(test)]
mod tests;
mod validate;

use std::fmt::{self, Display, Formatter};

/// Requirements, joined by AND and sorted by key. Without requirements, every object matches.
///
/// [`Display`] gives the canonical text. Send this text to other servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without duplicates.
    values: Vec<String>,
}

/// How a requirement compares a label with its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key=value`
    Equals,
    /// `key==value`
    DoubleEquals,
    /// `key!=value`; also matches if the label is missing
    NotEquals,
    /// `key in (one,two)`
    In,
    /// `key notin (one,two)`; also matches if the label is missing
    NotIn,
    /// `key>1`, as integers
    GreaterThan,
    /// `key<1`, as integers
    LessThan,
}

/// Why a text is not a selector, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// A token is not valid at its position. At the end of the text `found` is empty.
    #[error("found '{found}', expected: {expected}")]
    Unexpected {
        /// The token.
        found: String,
        /// The tokens that would be valid.
        expected: &'static str,
    },
    /// `in` or `notin` has no list.
    #[error("found '{found}' expected: '('")]
    NoList {
        /// The token instead of the list.
        found: String,
    },
    /// A key or value is not valid for a label. The text names each problem.
    #[error("{0}")]
    Invalid(String),
    /// A requirement has one of the errors above.
    #[error("unable to parse requirement: {0}")]
    Requirement(#[source] Box<SelectorError>),
}

impl Selector {
    /// The requirements, sorted by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The approximate memory of the requirements in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        // Each text is a separate allocation, with an overhead of about 16 bytes.
        let text = |text: &String| size_of::<String>() + text.len() + 16;
        let requirements = self.requirements.iter();
        requirements
            .map(|Requirement { key, values, .. }| {
                size_of::<Requirement>() + text(key) + values.iter().map(text).sum::<usize>()
            })
            .sum()
    }

    /// Whether the selector has no requirements, so that every object matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object matches. `label` returns the value of a label by key.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches_label(label(&requirement.key)))
    }

    /// Splits off the requirements on the label `key`. Returns them and a selector with all other requirements.
    #[must_use]
    pub fn split_off(self, key: &str) -> (Vec<Requirement>, Self) {
        let (taken, requirements) =
            self.requirements.into_iter().partition(|requirement| requirement.key == key);
        (taken, Self { requirements })
    }
}

impl Requirement {
    /// The key of the label.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the label is compared with the values.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The sorted values. `Exists` and `DoesNotExist` have none, `In` and `NotIn` at least one, the others exactly one.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether the requirement matches a label with this value; `None` means that the object does not have the label.
    #[must_use]
    pub fn matches_label(&self, value: Option<&str>) -> bool {
        let is_listed = |value: &str| self.values.iter().any(|listed| listed == value);
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(is_listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(is_listed),
            Operator::GreaterThan => self.integers(value).is_some_and(|(label, bound)| label > bound),
            Operator::LessThan => self.integers(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    /// The label's value and the bound, if both are integers.
    fn integers(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl Display for Selector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{requirement}")?;
        }
        Ok(())
    }
}

impl Display for Requirement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (before, between, after) = match self.operator {
            Operator::Exists => ("", "", ""),
            Operator::DoesNotExist => ("!", "", ""),
            Operator::Equals => ("", "=", ""),
            Operator::DoubleEquals => ("", "==", ""),
            Operator::NotEquals => ("", "!=", ""),
            Operator::In => ("", " in (", ")"),
            Operator::NotIn => ("", " notin (", ")"),
            Operator::GreaterThan => ("", ">", ""),
            Operator::LessThan => ("", "<", ""),
        };
        write!(f, "{before}{}{between}", self.key)?;
        for (index, value) in self.values.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{value}")?;
        }
        f.write_str(after)
    }
}
