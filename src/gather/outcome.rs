//! What one member made of a query.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::api::cause::Cause;
use crate::api::custom_metrics::Version;
use crate::api::discovery::Catalog;
use crate::api::page::{Format, Page};
use crate::api::status::MemberStatus;
use crate::api::text::shortened;
use crate::member::client::Reply;
use crate::member::{Failure, Member};
use crate::process::budget::{Claim, Share};
use crate::process::work;
use crate::transport::Progress;

use super::query::{CustomQuery, Query, Question};

/// What came of asking one member.
#[derive(Debug)]
pub enum Outcome {
    /// It has what was asked for.
    Page(Arc<Page>),
    /// Its metrics API failed, and its last reply to the same query stands in.
    StoodIn {
        /// The last reply.
        page: Arc<Page>,
        /// How old that is.
        age: Duration,
        /// Why it has to stand in.
        failure: Failure,
    },
    /// It has it not.
    NotFound,
    /// It could not be asked, or gave no usable answer.
    Failure(Failure),
}

impl Outcome {
    /// All that [`Outcome::name`] may say.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        ["Found", "NotFound"].into_iter().chain(Cause::ALL.iter().map(|cause| cause.name()))
    }

    /// `Found`, `NotFound`, or the cause of a failure.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Page(_) => "Found",
            Self::NotFound => "NotFound",
            Self::StoodIn { failure, .. } | Self::Failure(failure) => failure.cause().name(),
        }
    }

    /// Why the member itself gave no answer; `None` if it did.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Page(_) | Self::NotFound => None,
            Self::StoodIn { failure, .. } | Self::Failure(failure) => Some(failure),
        }
    }
}

/// An outcome, and what its page takes of the room for members' answers.
pub(super) type Asked = (Outcome, Option<Share>);

/// Asks a member, in the version that it has. `progress` says how far that has come.
pub(super) async fn ask(
    member: Arc<Member>,
    query: Arc<Query>,
    claim: Claim,
    progress: Arc<Progress>,
) -> Asked {
    let get = async |version| member.get(query.group(), query.path(version), claim, &progress).await;
    let undiscovered = matches!(query.question(), Question::Custom(_)) && member.discovered().is_none();
    // Where discovery found no such API it may have come since: a query is not gated on discovery.
    let reply = match get(member.version()).await {
        Ok(reply) if undiscovered && lacks_version(&reply) => get(Version::V1Beta1).await,
        other => other,
    };
    match reply {
        Ok(reply) => (judge(&member, &query, &reply).await, Some(reply.room)),
        Err(failure) => (Outcome::Failure(failure), None),
    }
}

/// A 404 that is no `Status` comes from an API server that has no such API; one that is comes from the API.
fn lacks_version(reply: &Reply) -> bool {
    reply.status == StatusCode::NOT_FOUND && read_status(reply).is_none()
}

async fn judge(member: &Member, query: &Query, reply: &Reply) -> Outcome {
    match reply.status {
        StatusCode::OK => read_page(query, &reply.content_type, reply.body.clone()).await,
        StatusCode::NOT_FOUND => Outcome::NotFound,
        status if status.is_server_error() && knows_others_only(member, query) => Outcome::NotFound,
        status => {
            let message = read_status(reply).map_or_else(|| plain_text(reply), |status| status.message);
            Outcome::Failure(Failure::Status { status, message: shortened(&message) })
        }
    }
}

async fn read_page(query: &Query, content_type: &str, body: Bytes) -> Outcome {
    let format = match content_type {
        "application/vnd.kubernetes.protobuf" => Format::Protobuf,
        _ => Format::Json,
    };
    let expected = query.expected();
    match work::run(body.len(), move || Page::read(expected, format, body)).await {
        Ok(page) if page.is_empty() => Outcome::NotFound,
        Ok(page) => Outcome::Page(Arc::new(page)),
        Err(error) => Outcome::Failure(Failure::malformed(&error)),
    }
}

/// prometheus-adapter answers 500 for a kind of object that its cluster lacks; its discovery tells the two apart.
/// That holds for custom metrics alone: KEDA's discovery of external ones lists a placeholder.
fn knows_others_only(member: &Member, query: &Query) -> bool {
    let Question::Custom(query) = query.question() else { return false };
    let lacks = |query: &CustomQuery, catalog: &Catalog| {
        !catalog.is_empty() && !catalog.contains(query.resource(), &query.metric)
    };
    member.discovered().is_some_and(|discovered| lacks(query, &discovered.catalog))
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
    String::from_utf8_lossy(&reply.body).into_owned()
}
