//! Scripted responses to exact requests, to replay recorded traffic.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::wire::{self, Format};
use crate::go_url::{Query, decode_path};

/// A response that is sent unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptedAnswer {
    /// The status.
    pub status: StatusCode,
    /// The `Content-Type`.
    pub content_type: String,
    /// The body's bytes.
    pub body: Bytes,
}

/// One row of `tests/contract/real/members.json`.
#[derive(Clone, Debug)]
pub struct RecordedAnswer {
    /// The name of the row. Rows with the same name differ in `accept`.
    pub name: String,
    /// The path and query of the request. `POD` is a placeholder for the name of a pod.
    pub path: String,
    /// The request's `Accept`.
    pub accept: String,
    /// The response of a real member. `None` if the member did not respond within 40 s.
    pub answer: Option<ScriptedAnswer>,
}

/// The scripted responses of a member.
#[derive(Debug, Default)]
pub(super) struct Script {
    answers: Mutex<HashMap<String, ScriptedAnswer>>,
    /// Lists by decoded path: the same list for every query, in each format.
    lists: Mutex<HashMap<Vec<u8>, List>>,
}

#[derive(Debug)]
struct List {
    json: ScriptedAnswer,
    protobuf: ScriptedAnswer,
}

#[derive(Deserialize)]
struct Rows {
    answers: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Row {
    name: String,
    path: String,
    accept: String,
    status: u16,
    headers: HashMap<String, String>,
    body: String,
}

impl ScriptedAnswer {
    /// An object as JSON.
    pub fn json(status: StatusCode, object: &serde_json::Value) -> Self {
        let body = format!("{object}\n").into();
        Self { status, content_type: Format::Json.media_type().to_owned(), body }
    }

    /// A response of one of the three metrics APIs, given as JSON, in either format.
    ///
    /// # Errors
    /// If the object is not such a response.
    pub fn metrics(object: &serde_json::Value, format: Format) -> anyhow::Result<Self> {
        let body = wire::reencode(object, format)?.into();
        Ok(Self { status: StatusCode::OK, content_type: format.media_type().to_owned(), body })
    }
}

impl Script {
    pub(super) fn set(&self, path_and_query: &str, answer: ScriptedAnswer) {
        self.answers.lock().expect("not poisoned").insert(key(path_and_query), answer);
    }

    pub(super) fn set_list(&self, path: &str, encode: impl Fn(Format) -> Vec<u8>) {
        let answer = |format: Format| ScriptedAnswer {
            status: StatusCode::OK,
            content_type: format.media_type().to_owned(),
            body: encode(format).into(),
        };
        let list = List { json: answer(Format::Json), protobuf: answer(Format::Protobuf) };
        self.lists.lock().expect("not poisoned").insert(path.as_bytes().to_vec(), list);
    }

    pub(super) fn clear(&self) {
        self.answers.lock().expect("not poisoned").clear();
        self.lists.lock().expect("not poisoned").clear();
    }

    pub(super) fn answer(&self, path_and_query: &str, format: Format) -> Option<ScriptedAnswer> {
        let answers = self.answers.lock().expect("not poisoned");
        let answer = if answers.is_empty() { None } else { answers.get(&key(path_and_query)).cloned() };
        answer.or_else(|| self.list(path_and_query, format))
    }

    fn list(&self, path_and_query: &str, format: Format) -> Option<ScriptedAnswer> {
        let lists = self.lists.lock().expect("not poisoned");
        if lists.is_empty() {
            return None;
        }
        let path = path_and_query.split('?').next()?;
        let list = lists.get(&decode_path(path)?)?;
        Some(match format {
            Format::Json => list.json.clone(),
            Format::Protobuf => list.protobuf.clone(),
        })
    }
}

/// The directory `tests/contract` with the recordings.
pub fn contract_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../contract")
}

/// The recorded responses of a real member: the rows of `real/members.json`.
///
/// # Errors
/// If the file cannot be read or a row is malformed.
pub fn recorded_answers() -> anyhow::Result<Vec<RecordedAnswer>> {
    let path = contract_directory().join("real/members.json");
    let rows = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let rows: Rows = serde_json::from_slice(&rows)?;
    rows.answers.into_iter().map(Row::into_recorded).collect()
}

impl Row {
    fn into_recorded(self) -> anyhow::Result<RecordedAnswer> {
        let answer = if self.status == 0 { None } else { Some(self.answer()?) };
        Ok(RecordedAnswer { name: self.name, path: self.path, accept: self.accept, answer })
    }

    fn answer(&self) -> anyhow::Result<ScriptedAnswer> {
        let body = match self.body.strip_prefix("base64:") {
            Some(text) => BASE64_STANDARD
                .decode(text)
                .with_context(|| format!("{}: malformed base64", self.name))?
                .into(),
            None => self.body.clone().into(),
        };
        let content_type = self.headers.get("content-type").cloned().unwrap_or_default();
        Ok(ScriptedAnswer { status: StatusCode::from_u16(self.status)?, content_type, body })
    }
}

/// Path and query, decoded, without `timeout`, with sorted parameters.
fn key(path_and_query: &str) -> String {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let path = decode_path(path).unwrap_or_else(|| path.into());
    let mut query = Query::parse(query);
    query.remove("timeout");
    format!("{}?{}", String::from_utf8_lossy(&path), query.encode())
}

impl fmt::Display for RecordedAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name, self.accept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_compared_decoded_and_without_timeout() {
        assert_eq!(key("/a/%2A/m?timeout=32s&b=%3D&a=x+y"), key("/a/*/m?a=x%20y&b==&timeout=5s"));
        assert_eq!(key("/a?timeout=32s"), key("/a"));
        assert_ne!(key("/a?b=1"), key("/a"));
    }
}
