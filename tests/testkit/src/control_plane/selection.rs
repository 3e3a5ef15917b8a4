//! Which objects a list or watch is about: namespace, label selector, field selector.

use serde_json::Value;

use super::go_url::Query;

/// A request's choice of objects.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// None means all.
    namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
}

/// What is asked of one label or field.
#[derive(Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    /// Whether the value must be one of `values` or none of them.
    wanted: bool,
    /// Empty: whether the key is there at all.
    values: Vec<String>,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; the error is a 400's message.
    pub(super) fn parse(namespace: Option<&str>, query: &Query) -> Result<Self, String> {
        let labels = requirements(&query.value("labelSelector").unwrap_or_default())?;
        let fields = requirements(&query.value("fieldSelector").unwrap_or_default())?;
        match fields.iter().find(|field| pointer(&field.key).is_none()) {
            Some(unknown) => Err(format!("field label not supported: {}", unknown.key)),
            None => Ok(Self { namespace: namespace.map(str::to_owned), labels, fields }),
        }
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        let field = |key: &str| object.pointer(pointer(key)?).and_then(Value::as_str);
        self.namespace.as_ref().is_none_or(|namespace| object["metadata"]["namespace"] == namespace.as_str())
            && self.labels.iter().all(|requirement| requirement.allows(label(&requirement.key)))
            && self.fields.iter().all(|requirement| requirement.allows(field(&requirement.key)))
    }

    /// Whether objects are left out for more than their namespace.
    pub(super) fn is_selective(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    /// The one name that `fieldSelector=metadata.name=…` leaves; authorization counts it as the request's.
    pub(super) fn name(&self) -> Option<&str> {
        let names = self.fields.iter().find(|field| field.key == "metadata.name" && field.wanted)?;
        names.values.first().map(String::as_str)
    }
}

impl Requirement {
    fn allows(&self, value: Option<&str>) -> bool {
        match value {
            Some(_) if self.values.is_empty() => self.wanted,
            Some(value) => self.values.iter().any(|listed| listed == value) == self.wanted,
            None => !self.wanted,
        }
    }
}

/// Where a selectable field stands.
fn pointer(field: &str) -> Option<&'static str> {
    match field {
        "metadata.name" => Some("/metadata/name"),
        "metadata.namespace" => Some("/metadata/namespace"),
        "type" => Some("/type"),
        _ => None,
    }
}

fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut depth = 0_i32;
    let parts = text.split(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        letter == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).map(requirement).collect()
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let one =
        |key: &str, wanted, values: Vec<String>| Requirement { key: key.trim().to_owned(), wanted, values };
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(one(key, false, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Ok(one(key, true, vec![value.trim().to_owned()]));
    }
    if let Some((head, values)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        return match *head.split_whitespace().collect::<Vec<_>>() {
            [key, "in"] => Ok(one(key, true, values)),
            [key, "notin"] => Ok(one(key, false, values)),
            _ => Err(format!("unable to parse requirement: {text}")),
        };
    }
    if text.contains(char::is_whitespace) || text.contains(['(', ')']) {
        return Err(format!("unable to parse requirement: {text}"));
    }
    Ok(match text.strip_prefix('!') {
        Some(key) => one(key, false, Vec::new()),
        None => one(text, true, Vec::new()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_choose_by_label_and_field() {
        let object =
            json!({"metadata": {"name": "a", "namespace": "n", "labels": {"app": "web", "tier": "front"}}});
        for (query, matches) in [
            ("", true),
            ("labelSelector=app%3Dweb", true),
            ("labelSelector=app%3D%3Dweb,tier!%3Dback", true),
            ("labelSelector=app+in+(web,api),tier+notin+(back)", true),
            ("labelSelector=app,!gone", true),
            ("labelSelector=gone", false),
            ("labelSelector=gone+notin+(x)", true),
            ("labelSelector=app%3Dapi", false),
            ("fieldSelector=metadata.name%3Da", true),
            ("fieldSelector=metadata.name!%3Da", false),
        ] {
            let selection = Selection::parse(Some("n"), &Query::parse(query)).unwrap();
            assert_eq!(selection.matches(&object), matches, "{query}");
        }
        assert!(!Selection::parse(Some("other"), &Query::default()).unwrap().matches(&object));
        let unknown = Selection::parse(None, &Query::parse("fieldSelector=spec.x%3D1")).unwrap_err();
        assert_eq!(unknown, "field label not supported: spec.x");
        assert!(Selection::parse(None, &Query::parse("labelSelector=a+of+b")).is_err());
    }
}
