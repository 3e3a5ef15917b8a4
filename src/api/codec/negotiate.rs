//! Which encoding and which representation a client's Accept header asks for.
//!
//! Follows `negotiation.NegotiateMediaTypeOptions` of `k8s.io/apiserver`: the best clause that can be served wins. A clause
//! for metadata of the wrong kind (of a list for one object) is passed over, where Go refuses the request.

use super::accept::{Clause, choose};
use super::{Encode, EncodeList, json, yaml};
use crate::api::memory::{Reserve, Stopped};

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json` on one line.
    #[default]
    Json,
    /// `application/json` for people to read.
    PrettyJson,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What is shown of the objects of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Representation {
    /// The objects themselves.
    #[default]
    Whole,
    /// A `Table` for people to read; never in protobuf.
    Table(MetaVersion),
    /// Their metadata only, as `PartialObjectMetadata` or a list of them.
    Metadata(MetaVersion),
}

/// A version of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    /// `meta.k8s.io/v1`.
    V1,
    /// `meta.k8s.io/v1beta1`.
    V1Beta1,
}

/// What a path can answer with beside the objects themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Nothing.
    Whole,
    /// Tables, and metadata, of one object.
    Object,
    /// Tables, and metadata, of a list.
    List,
}

/// Nothing that is accepted can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAcceptable {
    /// None of the media types is served at all.
    #[error(
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf, application/json;stream=watch, \
         application/vnd.kubernetes.protobuf;stream=watch"
    )]
    MediaType,
    /// The media types are served, though not with these parameters.
    #[error(
        "only the following media types are accepted: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf"
    )]
    Parameters,
}

/// What is served, the default first.
const SERVED: [(&str, Encoding); 3] =
    [("json", Encoding::Json), ("yaml", Encoding::Yaml), ("vnd.kubernetes.protobuf", Encoding::Protobuf)];

/// What to answer with; `accept` are the values of a request's Accept headers.
///
/// # Errors
/// If the client accepts nothing that is on offer.
pub fn negotiate<'a>(
    accept: impl IntoIterator<Item = &'a str>,
    offer: Offer,
) -> Result<(Encoding, Representation), NotAcceptable> {
    let mut known = false;
    let chosen = choose(accept, Default::default(), |clause| {
        SERVED.into_iter().filter(|(subtype, _)| clause.takes("application", subtype)).find_map(
            |(_, encoding)| {
                known = true;
                let representation = representation(clause, encoding, offer)?;
                let pretty = clause.parameter("pretty") == "1";
                Some((if pretty { encoding.pretty() } else { encoding }, representation))
            },
        )
    });
    chosen.ok_or(if known { NotAcceptable::Parameters } else { NotAcceptable::MediaType })
}

impl Encoding {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::PrettyJson => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The same, for people to read where that makes a difference.
    #[must_use]
    pub fn pretty(self) -> Self {
        if self == Self::Json { Self::PrettyJson } else { self }
    }

    /// An object's body.
    pub fn body(self, object: &impl Encode) -> Vec<u8> {
        match self {
            Self::Protobuf => object.to_protobuf(),
            _ => self.text(object.to_json(), &mut |_| Ok(())).expect("nothing stops it"),
        }
    }

    /// The body of a list.
    ///
    /// # Errors
    /// If `reserve` stops it.
    pub fn list(self, list: &impl EncodeList, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        match self {
            Self::Protobuf => list.to_protobuf(reserve),
            _ => self.text(list.to_json(reserve)?, reserve),
        }
    }

    /// What is JSON, in this encoding; JSON for protobuf, which is not made of it.
    ///
    /// # Errors
    /// If `reserve` stops it.
    pub fn text(self, json: Vec<u8>, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        match self {
            Self::Json | Self::Protobuf => Ok(json),
            Self::PrettyJson => json::indented(&json, reserve),
            Self::Yaml => yaml::from_json(&json, reserve),
        }
    }
}

impl MetaVersion {
    /// Group and version, as they stand in `apiVersion`.
    pub fn group_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What the clause wants to see; `None` if that is not on offer.
fn representation(clause: &Clause<'_>, encoding: Encoding, offer: Offer) -> Option<Representation> {
    if !clause.parameter("stream").is_empty() {
        return None;
    }
    let kind = clause.parameter("as");
    if kind.is_empty() {
        return Some(Representation::Whole);
    }
    let metadata = match offer {
        Offer::Whole => return None,
        Offer::Object => "PartialObjectMetadata",
        Offer::List => "PartialObjectMetadataList",
    };
    let version = match (clause.parameter("g"), clause.parameter("v")) {
        ("meta.k8s.io", "v1") => MetaVersion::V1,
        ("meta.k8s.io", "v1beta1") => MetaVersion::V1Beta1,
        _ => return None,
    };
    match kind {
        "Table" if encoding != Encoding::Protobuf => Some(Representation::Table(version)),
        kind if kind == metadata => Some(Representation::Metadata(version)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(accept: &str) -> Result<Encoding, NotAcceptable> {
        negotiate([accept], Offer::Whole).map(|(encoding, _)| encoding)
    }

    #[test]
    fn the_best_clause_that_is_served_wins() {
        let table = [
            ("", Encoding::Json),
            ("*/*", Encoding::Json),
            ("text/html, *;q=0.5", Encoding::Json),
            ("application/*", Encoding::Json),
            ("application/vnd.kubernetes.protobuf, */*", Encoding::Protobuf),
            ("application/json, */*", Encoding::Json),
            ("*/*, application/yaml", Encoding::Yaml),
            ("text/html, application/yaml;q=0.1, application/json;q=0.2", Encoding::Json),
            ("application/json;q=0, */*;q=0.1", Encoding::Json),
            ("application/json;stream=watch, application/yaml", Encoding::Yaml),
            ("application/json;pretty=1", Encoding::PrettyJson),
            ("application/yaml;q=2", Encoding::Yaml),
        ];
        for (accept, expected) in table {
            assert_eq!(encoding(accept), Ok(expected), "{accept}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused() {
        for accept in ["text/html", "application/xml;q=1", "application/json;q=0", "text/*"] {
            assert_eq!(encoding(accept), Err(NotAcceptable::MediaType), "{accept}");
        }
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(encoding(table), Err(NotAcceptable::Parameters));
        for accept in [
            "application/json;as=Table;v=v2;g=meta.k8s.io",
            "application/json;as=Table;v=v1;g=example.org",
            "application/json;as=Chair;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
        ] {
            assert_eq!(negotiate([accept], Offer::List), Err(NotAcceptable::Parameters), "{accept}");
        }
    }

    #[test]
    fn kubectl_gets_its_table_and_a_metadata_client_its_metadata() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                       application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let expected = (Encoding::Json, Representation::Table(MetaVersion::V1));
        assert_eq!(negotiate([kubectl], Offer::List), Ok(expected));
        assert_eq!(encoding(kubectl), Ok(Encoding::Json));
        let metadata =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1beta1";
        let expected = (Encoding::Protobuf, Representation::Metadata(MetaVersion::V1Beta1));
        assert_eq!(negotiate(["application/json;q=0.5", metadata], Offer::List), Ok(expected));
    }
}
