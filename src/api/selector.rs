//! Label selectors as text (`app=a,tier in (x,y),!old`).
//!
//! Follows k8s.io/apimachinery/pkg/labels: what is accepted, how it is sorted and printed, what it matches,
//! and which words an error has.

mod parse;
#[cfg(test)]
mod tests;
mod validate;

use std::fmt::{self, Display, Formatter};

/// Requirements that must all hold; none match everything. Sorted by key.
///
/// [`Display`] gives the canonical text, which is what other servers are to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// What one label must be like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, each once.
    values: Vec<String>,
}

/// How a requirement relates a label to its values.
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
    /// `key!=value`; holds without the label too
    NotEquals,
    /// `key in (one,two)`
    In,
    /// `key notin (one,two)`; holds without the label too
    NotIn,
    /// `key>1`, as integers
    GreaterThan,
    /// `key<1`, as integers
    LessThan,
}

/// Why a text is no selector, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Something stands where something else is needed; at the end of the text `found` is empty.
    #[error("found '{found}', expected: {expected}")]
    Unexpected {
        /// What stands there.
        found: String,
        /// What is needed.
        expected: &'static str,
    },
    /// `in` or `notin` without a list.
    #[error("found '{found}' expected: '('")]
    NoList {
        /// What stands there.
        found: String,
    },
    /// A key or value that no label can have; the text names each fault.
    #[error("{0}")]
    Invalid(String),
    /// One of the above, inside a requirement.
    #[error("unable to parse requirement: {0}")]
    Requirement(#[source] Box<SelectorError>),
}

impl Selector {
    /// The requirements, sorted by key.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether there are no requirements, so that everything matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels match, of which `label` gives the value by key.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches_label(label(&requirement.key)))
    }

    /// Takes out the requirements on the label `key`: those, and a selector of all others.
    #[must_use]
    pub fn split_off(self, key: &str) -> (Vec<Requirement>, Self) {
        let (taken, requirements) =
            self.requirements.into_iter().partition(|requirement| requirement.key == key);
        (taken, Self { requirements })
    }
}

impl Requirement {
    /// The label.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How the label relates to the values.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, sorted: none for `Exists` and `DoesNotExist`, at least one for `In` and `NotIn`, else one.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether it holds for something whose label `key` has this value, or that lacks the label.
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

    /// The label and its bound, if both are integers.
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
