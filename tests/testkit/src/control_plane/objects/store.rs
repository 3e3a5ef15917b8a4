//! The objects, one revision counter for all of them, and the bounded history that serves watches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::resources::Resource;
use crate::timestamp;

/// Maximum of changes in the history. A watch from an older revision expires.
const HISTORY: usize = 4096;

/// Key of an object: the resource's plural, the namespace (empty if cluster-scoped), the name.
pub(crate) type Key = (&'static str, String, String);

/// Objects, as stored by etcd and kube-apiserver's watch cache together.
pub(crate) struct Store {
    state: Mutex<State>,
    position: watch::Sender<Position>,
}

/// The state of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The newest `resourceVersion`.
    pub(crate) revision: u64,
    /// How often the history was discarded. A running watch that sees a higher number has expired.
    pub(crate) compactions: u64,
}

/// A change of one object.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// The object before the change. `None` if it is new.
    pub(crate) before: Option<Arc<Value>>,
    /// The object after the change. `None` if it was deleted.
    pub(crate) after: Option<Arc<Value>>,
}

/// The objects of one resource at one revision, sorted by namespace and name.
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) objects: BTreeMap<Key, Arc<Value>>,
}

/// Precondition of a write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The object must not exist.
    Create,
    /// The object must exist. If the new object has a `resourceVersion`, it must be the current one.
    Update,
    /// No precondition.
    Apply,
}

/// Error of a write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The value is not an object or has no name.
    #[error("an object needs metadata with a name: give it one")]
    Nameless,
    /// A created object already exists.
    #[error("already exists")]
    AlreadyExists,
    /// An updated object does not exist.
    #[error("not found")]
    NotFound,
    /// An update has an old `resourceVersion`.
    #[error("the object has been modified; please apply your changes to the latest version and try again")]
    Conflict,
}

/// Error of a read at a revision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RevisionError {
    /// The revision is no longer in the history.
    Expired {
        /// The oldest readable revision.
        oldest: u64,
    },
    /// The revision does not exist yet.
    Future {
        /// The newest revision.
        newest: u64,
    },
}

struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// The newest revision that is no longer in the history.
    forgotten: u64,
    position: Position,
}

impl Store {
    pub(crate) fn new() -> Self {
        let position = Position { revision: 1, compactions: 0 };
        let state = State { objects: BTreeMap::new(), history: VecDeque::new(), forgotten: 1, position };
        Self { state: Mutex::new(state), position: watch::Sender::new(position) }
    }

    /// The current state of the store and its changes.
    pub(crate) fn position(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    pub(crate) fn object(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let key = (resource.plural, namespace.to_owned(), name.to_owned());
        self.state().objects.get(&key).cloned()
    }

    /// Writes an object. Only its name is checked. A write without a change makes no revision.
    pub(crate) fn write(
        &self,
        resource: &'static Resource,
        mut object: Value,
        mode: Mode,
    ) -> Result<Arc<Value>, WriteError> {
        let metadata =
            object.get_mut("metadata").and_then(Value::as_object_mut).ok_or(WriteError::Nameless)?;
        let name = text(metadata, "name").ok_or(WriteError::Nameless)?;
        let namespace = if resource.namespaced {
            let namespace = text(metadata, "namespace").unwrap_or_else(|| "default".to_owned());
            metadata.insert("namespace".to_owned(), json!(namespace));
            namespace
        } else {
            String::new()
        };
        let expected = text(metadata, "resourceVersion");
        let mut state = self.state();
        let key = (resource.plural, namespace, name);
        let before = state.objects.get(&key).cloned();
        match (&before, mode) {
            (Some(_), Mode::Create) => return Err(WriteError::AlreadyExists),
            (None, Mode::Update) => return Err(WriteError::NotFound),
            (Some(before), Mode::Update)
                if expected
                    .is_some_and(|expected| before["metadata"]["resourceVersion"] != expected.as_str()) =>
            {
                return Err(WriteError::Conflict);
            }
            _ => {}
        }
        complete(&mut object, resource, before.as_deref());
        if let Some(before) = before.as_ref().filter(|before| ***before == object) {
            return Ok(before.clone());
        }
        let revision = state.position.revision + 1;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let after = Arc::new(object);
        state.objects.insert(key.clone(), after.clone());
        self.record(&mut state, Change { revision, key, before, after: Some(after.clone()) });
        Ok(after)
    }

    /// Deletes an object and returns its last state.
    pub(crate) fn delete(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let mut state = self.state();
        let key = (resource.plural, namespace.to_owned(), name.to_owned());
        let before = state.objects.remove(&key)?;
        let revision = state.position.revision + 1;
        self.record(&mut state, Change { revision, key, before: Some(before.clone()), after: None });
        Some(before)
    }

    /// The objects of a resource, now or at an older revision. The history is used to roll back.
    pub(crate) fn snapshot(
        &self,
        resource: &'static Resource,
        at: Option<u64>,
    ) -> Result<Snapshot, RevisionError> {
        let state = self.state();
        let newest = state.position.revision;
        let revision = at.unwrap_or(newest);
        if revision > newest {
            return Err(RevisionError::Future { newest });
        }
        if revision < state.forgotten {
            return Err(RevisionError::Expired { oldest: state.forgotten });
        }
        let of_resource = state.objects.iter().filter(|(key, _)| key.0 == resource.plural);
        let mut objects: BTreeMap<_, _> =
            of_resource.map(|(key, object)| (key.clone(), object.clone())).collect();
        for change in state.history.iter().rev().take_while(|change| change.revision > revision) {
            match &change.before {
                _ if change.key.0 != resource.plural => {}
                Some(before) => drop(objects.insert(change.key.clone(), before.clone())),
                None => drop(objects.remove(&change.key)),
            }
        }
        Ok(Snapshot { revision, objects })
    }

    /// All changes after a revision, oldest first.
    pub(crate) fn changes_after(&self, revision: u64) -> Result<Vec<Change>, RevisionError> {
        let state = self.state();
        if revision < state.forgotten {
            return Err(RevisionError::Expired { oldest: state.forgotten });
        }
        Ok(state.history.iter().filter(|change| change.revision > revision).cloned().collect())
    }

    /// Discards the history.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.history.clear();
        state.forgotten = state.position.revision;
        state.position.compactions += 1;
        self.position.send_replace(state.position);
    }

    fn record(&self, state: &mut State, change: Change) {
        state.position.revision = change.revision;
        state.history.push_back(change);
        if state.history.len() > HISTORY
            && let Some(oldest) = state.history.pop_front()
        {
            state.forgotten = oldest.revision;
        }
        self.position.send_replace(state.position);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

/// Sets the fields that a server owns: type, uid, creation time and generation. The old revision is kept for the comparison.
fn complete(object: &mut Value, resource: &Resource, before: Option<&Value>) {
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
    let generation = before.map_or(1, |before| {
        let generation = before["metadata"]["generation"].as_u64().unwrap_or(1);
        if before.get("spec") == object.get("spec") { generation } else { generation + 1 }
    });
    let has_spec = object.get("spec").is_some();
    let metadata = &mut object["metadata"];
    if has_spec {
        metadata["generation"] = json!(generation);
    }
    for (field, fresh) in [
        ("uid", uuid::Uuid::new_v4().to_string()),
        ("creationTimestamp", timestamp::format(timestamp::now())),
    ] {
        if metadata.get(field).is_none_or(Value::is_null) {
            metadata[field] = before.map_or_else(|| json!(fresh), |before| before["metadata"][field].clone());
        }
    }
    if let Some(before) = before {
        metadata["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    }
}

fn text(metadata: &Map<String, Value>, field: &str) -> Option<String> {
    metadata.get(field).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}
