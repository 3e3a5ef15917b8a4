//! Reads `Accept` headers.

use std::cmp::Reverse;

/// One clause of an `Accept` header: a media type, or several if it has a `*`.
#[derive(Clone, Debug)]
pub struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    /// Quality in thousandths (`q=0.5` is 500).
    quality: u32,
}

/// Calls `offer` for each clause of the `Accept` headers and returns its first result. Clauses with a higher quality are first;
/// of two clauses with the same quality, the more specific clause is first. Returns `default` if the headers have no readable
/// clause: the client then accepts all media types. This follows `goautoneg.ParseAccept`, but clauses with a quality of 0 are
/// dropped; Go keeps them.
pub fn best_match<'a, T>(
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
            // HTTP allows three digits. A value out of range becomes the nearest bound.
            clause.quality = (quality.clamp(0.0, 1.0) * 1000.0) as u32;
        }
        Some(clause)
    }

    /// Whether the clause accepts a media type.
    pub fn accepts(&self, kind: &str, subtype: &str) -> bool {
        let specific = self.kind == kind && (self.subtype == subtype || self.subtype == "*");
        specific || (self.kind, self.subtype) == ("*", "*")
    }

    /// The value of the parameter `name`; empty if it is missing.
    pub fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}
