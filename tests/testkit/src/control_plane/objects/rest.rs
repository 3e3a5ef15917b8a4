//! Reading and writing stored objects over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::resources::Resource;
use super::selection::Selection;
use super::store::{Key, Mode, Snapshot, WriteError};
use super::{table, watching};
use crate::control_plane::Plane;
use crate::control_plane::reply::{Failure, details, json_response};
use crate::control_plane::request::ResourceAttributes;
use crate::go_url::Query;
use crate::https::{Body, response};

/// Duration of a watch without a timeout parameter.
const WATCH_DURATION: Duration = Duration::from_secs(1800);

/// An authorized request for stored objects.
pub(crate) struct Call<'a> {
    pub(crate) verb: &'a str,
    pub(crate) resource: &'static Resource,
    pub(crate) requested: &'a ResourceAttributes,
    pub(crate) query: &'a Query,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

pub(crate) fn answer(plane: &Arc<Plane>, call: &Call<'_>) -> Result<Response<Body>, Failure> {
    match call.verb {
        "list" => list(plane, call),
        "watch" => watch(plane, call),
        "get" => {
            let object = plane.store.object(call.resource, &call.requested.namespace, &call.requested.name);
            let object = object.ok_or_else(|| call.not_found())?;
            Ok(call.document(&object, std::slice::from_ref(&object)))
        }
        "create" => write(plane, call, call.object()?, Mode::Create),
        "update" => write(plane, call, call.object()?, Mode::Update),
        "patch" => patch(plane, call),
        "delete" => {
            let deleted = plane.store.delete(call.resource, &call.requested.namespace, &call.requested.name);
            let deleted = deleted.ok_or_else(|| call.not_found())?;
            let mut details = json!(details(call.resource.plural, call.resource.group, &call.requested.name));
            details["uid"] = deleted["metadata"]["uid"].clone();
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            Ok(json_response(StatusCode::OK, &status))
        }
        _ => Err(Failure::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )),
    }
}

/// Follows the validation of `ListOptions`, then etcd's reads at a revision and paging.
fn list(plane: &Arc<Plane>, call: &Call<'_>) -> Result<Response<Body>, Failure> {
    let query = call.query;
    let rule = query.value("resourceVersionMatch");
    let mut asked = revision(query)?;
    if rule.is_some() && !query.has("resourceVersion") {
        let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        return Err(Failure::forbidden_option("resourceVersionMatch", detail));
    }
    if query.has("sendInitialEvents") {
        let detail = "sendInitialEvents is forbidden for list";
        return Err(Failure::forbidden_option("sendInitialEvents", detail));
    }
    let selection = call.selection()?;
    let mut start = None;
    if let Some(token) = query.value("continue") {
        let (revision, key) = read_continue(call.resource, &token).ok_or_else(|| {
            Failure::bad_request("continue key is not valid: it was not issued by this server")
        })?;
        (asked, start) = (Some(revision), Some(key));
    }
    // Without an exact match or a continuation, the newest state is valid for every revision that is not newer.
    let newest = plane.store.position().borrow().revision;
    let at =
        asked.filter(|&revision| rule.as_deref() == Some("Exact") || start.is_some() || revision > newest);
    let Snapshot { revision, objects } = plane
        .store
        .snapshot(call.resource, at)
        .map_err(|error| Failure::revision(at.unwrap_or(newest), &error))?;
    let objects = if plane.lists_are_empty() { BTreeMap::new() } else { objects };
    let matching = objects
        .into_iter()
        .filter(|(key, object)| start.as_ref().is_none_or(|start| key >= start) && selection.matches(object));
    let mut matching: Vec<(Key, Arc<Value>)> = matching.collect();
    let limit = query.value("limit").and_then(|limit| limit.parse().ok()).filter(|&limit| limit > 0);
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some(limit) = limit.filter(|&limit: &usize| limit < matching.len()) {
        let rest = matching.split_off(limit);
        metadata["continue"] = json!(write_continue(revision, &rest[0].0));
        if !selection.is_selective() {
            metadata["remainingItemCount"] = json!(rest.len());
        }
    }
    let objects: Vec<Arc<Value>> = matching.into_iter().map(|(_, object)| object).collect();
    let list = json!({
        "kind": format!("{}List", call.resource.kind),
        "apiVersion": call.resource.api_version(),
        "metadata": metadata,
        "items": objects.iter().map(|object| without_type(object)).collect::<Vec<_>>(),
    });
    Ok(call.document(&list, &objects))
}

/// Follows the validation of `ListOptions` without the WatchList feature: an initial list in the stream is rejected.
fn watch(plane: &Arc<Plane>, call: &Call<'_>) -> Result<Response<Body>, Failure> {
    let query = call.query;
    if query.has("sendInitialEvents") {
        let detail = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return Err(Failure::forbidden_option("sendInitialEvents", detail));
    }
    if query.has("resourceVersionMatch") {
        let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        return Err(Failure::forbidden_option("resourceVersionMatch", detail));
    }
    let after = revision(query)?;
    if let Some(after) = after.filter(|_| plane.watches.refuses_gone()) {
        plane.store.changes_after(after).map_err(|error| Failure::revision(after, &error))?;
    }
    let timeout = query.value("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
    let options = watching::Options {
        resource: call.resource,
        selection: call.selection()?,
        after,
        bookmarks: query.flag("allowWatchBookmarks"),
        timeout: timeout.filter(|&seconds| seconds > 0).map_or(WATCH_DURATION, Duration::from_secs),
        begin_empty: plane.lists_are_empty(),
    };
    Ok(response(StatusCode::OK, "application/json", watching::begin(plane.clone(), options)))
}

/// A JSON merge patch (RFC 7386). A strategic merge patch is handled in the same way, which is equal for flat objects.
fn patch(plane: &Arc<Plane>, call: &Call<'_>) -> Result<Response<Body>, Failure> {
    let content_type =
        call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.contains("merge-patch+json") {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/merge-patch+json, application/strategic-merge-patch+json";
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message));
    }
    let before = plane.store.object(call.resource, &call.requested.namespace, &call.requested.name);
    let mut object = Value::clone(&*before.ok_or_else(|| call.not_found())?);
    merge(&mut object, call.object()?);
    write(plane, call, object, Mode::Update)
}

fn write(plane: &Plane, call: &Call<'_>, mut object: Value, mode: Mode) -> Result<Response<Body>, Failure> {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.ok_or_else(|| Failure::bad_request("the object has no metadata"))?;
    if call.resource.namespaced {
        metadata.insert("namespace".to_owned(), json!(call.requested.namespace));
    }
    if mode == Mode::Update {
        metadata.insert("name".to_owned(), json!(call.requested.name));
    }
    let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let written = plane.store.write(call.resource, encode_string_data(object), mode).map_err(|error| {
        let (plural, group) = (call.resource.plural, call.resource.group);
        let conflict = |reason, message| {
            Failure::new(StatusCode::CONFLICT, reason, message).with_details(details(plural, group, &name))
        };
        let qualified = call.resource.qualified();
        match error {
            WriteError::Nameless => {
                Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "metadata.name: Required value")
            }
            WriteError::NotFound => Failure::not_found(plural, group, &name),
            WriteError::AlreadyExists => {
                conflict("AlreadyExists", format!("{qualified} \"{name}\" already exists"))
            }
            WriteError::Conflict => conflict(
                "Conflict",
                format!("Operation cannot be fulfilled on {qualified} \"{name}\": {error}"),
            ),
        }
    })?;
    let code = if mode == Mode::Create { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json_response(code, &written))
}

impl Call<'_> {
    fn selection(&self) -> Result<Selection, Failure> {
        let namespace = Some(self.requested.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        Selection::parse(namespace, self.query).map_err(Failure::bad_request)
    }

    fn object(&self) -> Result<Value, Failure> {
        let object: Value = serde_json::from_slice(self.body)
            .map_err(|error| Failure::bad_request(format!("the object provided is not JSON: {error}")))?;
        if object.is_object() { Ok(object) } else { Err(Failure::bad_request("the JSON is not an object")) }
    }

    fn not_found(&self) -> Failure {
        Failure::not_found(self.resource.plural, self.resource.group, &self.requested.name)
    }

    /// The document itself, or a table of its objects for kubectl.
    fn document(&self, document: &Value, objects: &[Arc<Value>]) -> Response<Body> {
        let accept = self.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if accept.contains("as=Table") && accept.contains("v=v1;") {
            json_response(StatusCode::OK, &table::of(self.resource, document, objects))
        } else {
            json_response(StatusCode::OK, document)
        }
    }
}

/// The parameter `resourceVersion`. Absent, empty and 0 set no bound.
fn revision(query: &Query) -> Result<Option<u64>, Failure> {
    let Some(text) = query.value("resourceVersion") else { return Ok(None) };
    let parsed: u64 = text.parse().map_err(|_| {
        Failure::bad_request(format!("resourceVersion: Invalid value: \"{text}\": must be a number"))
    })?;
    Ok(Some(parsed).filter(|&revision| revision > 0))
}

fn write_continue(revision: u64, (_, namespace, name): &Key) -> String {
    BASE64_STANDARD.encode(format!("{revision}/{namespace}/{name}").as_bytes())
}

fn read_continue(resource: &Resource, token: &str) -> Option<(u64, Key)> {
    let token = String::from_utf8(BASE64_STANDARD.decode(token).ok()?).ok()?;
    let mut parts = token.splitn(3, '/');
    let revision = parts.next()?.parse().ok()?;
    Some((revision, (resource.plural, parts.next()?.to_owned(), parts.next()?.to_owned())))
}

/// Items of a list have no `apiVersion` and `kind`.
fn without_type(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    object
}

fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (field, value) in patch {
        if value.is_null() {
            target.remove(&field);
        } else {
            merge(target.entry(field).or_insert(Value::Null), value);
        }
    }
}

/// Converts a Secret's `stringData` to `data`, as the API server stores it.
fn encode_string_data(mut object: Value) -> Value {
    if let Some(Value::Object(texts)) = object.as_object_mut().and_then(|fields| fields.remove("stringData"))
    {
        for (key, text) in texts {
            let encoded = json!(BASE64_STANDARD.encode(text.as_str().unwrap_or_default().as_bytes()));
            match object.get_mut("data").and_then(Value::as_object_mut) {
                Some(data) => drop(data.insert(key, encoded)),
                None => object["data"] = json!({ key: encoded }),
            }
        }
    }
    object
}
