//! An Accept header, clause by clause.

use std::cmp::Reverse;

/// One media type that a client takes, or several by a `*`.
#[derive(Clone, Debug)]
pub struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// In thousandths.
    quality: u32,
}

/// The first thing that `offer` has for a clause of a request's Accept headers: those come first that the client likes best
/// and that are most specific. `default` if there is no clause to be read, so that all is taken. As `goautoneg.ParseAccept`,
/// which however keeps what a quality of 0 rules out.
pub fn choose<'a, T>(
    headers: impl IntoIterator<Item = &'a str>,
    default: T,
    offer: impl FnMut(&Clause<'a>) -> Option<T>,
) -> Option<T> {
    let texts = headers.into_iter().flat_map(|value| value.split(','));
    let mut clauses: Vec<Clause<'_>> = texts.filter_map(Clause::read).collect();
    if clauses.is_empty() {
        return Some(default);
    }
    clauses.retain(|clause| clause.quality > 0);
    clauses.sort_by_key(|clause| (Reverse(clause.quality), clause.kind == "*", clause.subtype == "*"));
    clauses.iter().find_map(offer)
}

impl<'a> Clause<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next()?;
        let (kind, subtype) = if media_type == "*" { ("*", "*") } else { media_type.split_once('/')? };
        let parameters: Vec<(&str, &str)> = parts
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        let mut clause = Self { kind, subtype, parameters, quality: 1000 };
        if let Ok(quality) = clause.parameter("q").parse::<f64>() {
            // HTTP allows three digits; what is out of range is taken for the nearest bound.
            clause.quality = (quality.clamp(0.0, 1.0) * 1000.0) as u32;
        }
        Some(clause)
    }

    /// Whether it takes a media type.
    pub fn takes(&self, kind: &str, subtype: &str) -> bool {
        let specific = self.kind == kind && (self.subtype == subtype || self.subtype == "*");
        specific || (self.kind, self.subtype) == ("*", "*")
    }

    /// What stands behind `name=`; empty if nothing does.
    pub fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}
