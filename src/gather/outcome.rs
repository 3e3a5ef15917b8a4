//! What one member made of a query.

use bytes::Bytes;
use http::StatusCode;

use crate::api::custom_metrics::Version;
use crate::api::page::{Format, Page};
use crate::api::status::MemberStatus;
use crate::member::transport::Reply;
use crate::member::{Failure, Member};

use super::query::Query;

/// How many characters of a member's message are passed on.
const MESSAGE: usize = 200;

/// What came of asking one member.
#[derive(Debug)]
pub enum Outcome {
    /// It has the metric.
    Page(Page),
    /// It has it not.
    NotFound,
    /// It could not be asked, or gave no usable answer.
    Failure(Failure),
}

impl Outcome {
    /// One word for metrics.
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Page(_) => "Found",
            Self::NotFound => "NotFound",
            Self::Failure(failure) => failure.reason(),
        }
    }
}

/// Asks a member, in the version that it has.
pub(super) async fn ask(member: &Member, query: &Query) -> Outcome {
    let version = member.discovered().map(|discovered| discovered.version);
    let reply = match version {
        Some(Some(version)) => member.get(&query.path(version)).await,
        // Discovery found no such API; only discovery, which goes on, finds it again.
        Some(None) => return Outcome::NotFound,
        None => match member.get(&query.path(Version::V1Beta2)).await {
            Ok(reply) if lacks_version(&reply) => member.get(&query.path(Version::V1Beta1)).await,
            other => other,
        },
    };
    match reply {
        Ok(reply) => judge(member, query, reply),
        Err(failure) => Outcome::Failure(failure),
    }
}

/// A 404 that is no `Status` comes from an API server that has no such API; one that is comes from the API.
fn lacks_version(reply: &Reply) -> bool {
    reply.status == StatusCode::NOT_FOUND && read_status(reply).is_none()
}

fn judge(member: &Member, query: &Query, reply: Reply) -> Outcome {
    match reply.status {
        StatusCode::OK => read_page(&reply.content_type, reply.body),
        StatusCode::NOT_FOUND => Outcome::NotFound,
        status if status.is_server_error() && knows_others_only(member, query) => Outcome::NotFound,
        status => {
            let message = read_status(&reply).map_or_else(|| plain_text(&reply), |status| status.message);
            Outcome::Failure(Failure::Status { status, message: shortened(&message) })
        }
    }
}

fn read_page(content_type: &str, body: Bytes) -> Outcome {
    let format = match content_type {
        "application/vnd.kubernetes.protobuf" => Format::Protobuf,
        _ => Format::Json,
    };
    match Page::read(format, body) {
        Ok(page) if page.is_empty() => Outcome::NotFound,
        Ok(page) => Outcome::Page(page),
        Err(error) => Outcome::Failure(error.into()),
    }
}

/// prometheus-adapter answers 500 for a kind of object that its cluster lacks; its discovery tells the two apart.
fn knows_others_only(member: &Member, query: &Query) -> bool {
    member.discovered().is_some_and(|discovered| {
        !discovered.catalog.is_empty() && !discovered.catalog.contains(query.resource(), &query.metric)
    })
}

fn read_status(reply: &Reply) -> Option<MemberStatus> {
    match reply.content_type.as_str() {
        "application/vnd.kubernetes.protobuf" => MemberStatus::from_protobuf(&reply.body),
        "application/json" => MemberStatus::from_json(&reply.body),
        _ => None,
    }
}

fn plain_text(reply: &Reply) -> String {
    if reply.content_type != "text/plain" {
        return String::new();
    }
    String::from_utf8_lossy(&reply.body[..reply.body.len().min(4 * MESSAGE)]).into_owned()
}

/// One line that fits into a header and a log.
fn shortened(message: &str) -> String {
    let mut line: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MESSAGE) {
        line.truncate(end);
        line.push('…');
    }
    line
}
