//! The objects of a list or watch: namespace, label selector, field selector.

use serde_json::Value;

use crate::go_url::Query;
use crate::selector::{Operator, Selector};

/// The selected objects of a request.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// `None` means all.
    namespace: Option<String>,
    labels: Selector,
    fields: Selector,
}

impl Selection {
    /// Parses `labelSelector` and `fieldSelector`. The error is the message of a 400.
    pub(crate) fn parse(namespace: Option<&str>, query: &Query) -> Result<Self, String> {
        let labels = Selector::parse(&query.value("labelSelector").unwrap_or_default())?;
        let fields = Selector::parse(&query.value("fieldSelector").unwrap_or_default())?;
        match fields.requirements().iter().find(|field| pointer(&field.key).is_none()) {
            Some(unknown) => Err(format!("field label not supported: {}", unknown.key)),
            None => Ok(Self { namespace: namespace.map(str::to_owned), labels, fields }),
        }
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        let field = |key: &str| object.pointer(pointer(key)?).and_then(Value::as_str);
        self.namespace.as_ref().is_none_or(|namespace| object["metadata"]["namespace"] == namespace.as_str())
            && self.labels.matches(label)
            && self.fields.matches(field)
    }

    /// Whether labels or fields restrict the objects, in addition to the namespace.
    pub(crate) fn is_selective(&self) -> bool {
        !self.labels.requirements().is_empty() || !self.fields.requirements().is_empty()
    }

    /// The name in `fieldSelector=metadata.name=…`. Authorization treats it as the name in the request.
    pub(crate) fn name(&self) -> Option<&str> {
        let mut names = self.fields.requirements().iter().filter(|field| field.key == "metadata.name");
        let name = names.find(|field| field.operator == Operator::Equals)?;
        name.values.first().map(String::as_str)
    }
}

/// The JSON pointer of a selectable field.
fn pointer(field: &str) -> Option<&'static str> {
    match field {
        "metadata.name" => Some("/metadata/name"),
        "metadata.namespace" => Some("/metadata/namespace"),
        "type" => Some("/type"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_match_labels_and_fields() {
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
