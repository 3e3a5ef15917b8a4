//! The objects, one revision counter over all of them, and the bounded history from which watches are served.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::resources::Resource;
use crate::timestamp;

/// How many changes are remembered; whoever is further behind starts over.
const HISTORY: usize = 4096;

/// What an object is found by: the resource's plural, the namespace (empty if it has none), the name.
pub(crate) type Key = (&'static str, String, String);

/// Objects as etcd and kube-apiserver's watch cache keep them together.
pub(crate) struct Store {
    state: Mutex<State>,
    position: watch::Sender<Position>,
}

/// Where the store stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// The newest `resourceVersion`.
    pub(crate) revision: u64,
    /// How often the history was thrown away; a running watch that sees it grow has expired.
    pub(crate) compactions: u64,
}

/// One object's change.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// The object as it was; none if it is new.
    pub(crate) before: Option<Arc<Value>>,
    /// The object as it is; none if it was deleted.
    pub(crate) after: Option<Arc<Value>>,
}

/// The objects of one resource at one revision, ordered by namespace and name.
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) objects: BTreeMap<Key, Arc<Value>>,
}

/// How an object is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It must not exist.
    Create,
    /// It must exist, at the `resourceVersion` that it names, if it names one.
    Update,
    /// Either.
    Apply,
}

/// Why an object was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// No object, or no name in it.
    #[error("an object needs metadata with a name: give it one")]
    Nameless,
    /// Created twice.
    #[error("already exists")]
    AlreadyExists,
    /// Updated what is not there.
    #[error("not found")]
    NotFound,
    /// Updated from an old state.
    #[error("the object has been modified; please apply your changes to the latest version and try again")]
    Conflict,
}

/// Why a revision cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RevisionError {
    /// Its history is gone.
    Expired {
        /// The oldest revision that can be read.
        oldest: u64,
    },
    /// It has not happened yet.
    Future {
        /// The newest revision.
        newest: u64,
    },
}

struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// The newest revision whose change is no longer in the history.
    forgotten: u64,
    position: Position,
}

impl Store {
    pub(crate) fn new() -> Self {
        let position = Position { revision: 1, compactions: 0 };
        let state = State { objects: BTreeMap::new(), history: VecDeque::new(), forgotten: 1, position };
        Self { state: Mutex::new(state), position: watch::Sender::new(position) }
    }

    /// Where the store stands, now and from now on.
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

    /// Writes an object, whatever is in it besides its name; what changes nothing makes no revision.
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

    /// Deletes an object and returns it as it was.
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

    /// A resource's objects, now or at an older revision, which is rolled back to from the history.
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

    /// Throws the history away.
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
        self.state.lock().expect("no holder panics")
    }
}

/// Fills in what a server owns: type, uid, creation, generation, and for the comparison the old revision.
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
