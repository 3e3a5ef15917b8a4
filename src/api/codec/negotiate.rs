//! Selects the encoding and the representation of a response from the client's `Accept` headers.
//!
//! This module follows `negotiation.NegotiateMediaTypeOptions` of `k8s.io/apiserver`: the best clause that the server supports
//! is used. A clause for metadata of the wrong kind (such as a list instead of one object) is ignored; Go rejects the request.

use super::accept::{Clause, best_match};
use super::{Encode, EncodeList, json, yaml};
use crate::api::memory::{Reserve, Stopped};

/// The encoding of a response body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `application/json`, one line.
    #[default]
    Json,
    /// `application/json`, indented for humans.
    PrettyJson,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// The part of the objects that a response contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Representation {
    /// The complete objects.
    #[default]
    Full,
    /// A `Table` for humans; not available in protobuf.
    Table(MetaVersion),
    /// Only the metadata of the objects: `PartialObjectMetadata` or `PartialObjectMetadataList`.
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

/// The representations that a path supports, in addition to the complete objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// No other representation.
    FullOnly,
    /// `Table` and `PartialObjectMetadata`, for one object.
    Object,
    /// `Table` and `PartialObjectMetadataList`, for a list.
    List,
}

/// The server supports nothing that the client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAcceptable {
    /// The server supports none of the media types.
    #[error(
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf, application/json;stream=watch, \
         application/vnd.kubernetes.protobuf;stream=watch"
    )]
    MediaType,
    /// The server supports the media types, but not their parameters.
    #[error(
        "only the following media types are accepted: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf"
    )]
    Parameters,
}

/// The media types that the server supports, the default first.
const SUPPORTED: [(&str, Encoding); 3] =
    [("json", Encoding::Json), ("yaml", Encoding::Yaml), ("vnd.kubernetes.protobuf", Encoding::Protobuf)];

/// Selects encoding and representation of a response. `accept` contains the values of the request's `Accept` headers.
///
/// # Errors
/// If the server supports nothing that the client accepts.
pub fn negotiate<'a>(
    accept: impl IntoIterator<Item = &'a str>,
    offer: Offer,
) -> Result<(Encoding, Representation), NotAcceptable> {
    let mut known = false;
    let selected = best_match(accept, Default::default(), |clause| {
        SUPPORTED.into_iter().filter(|(subtype, _)| clause.accepts("application", subtype)).find_map(
            |(_, encoding)| {
                known = true;
                let representation = representation(clause, encoding, offer)?;
                let pretty = clause.parameter("pretty") == "1";
                Some((if pretty { encoding.pretty() } else { encoding }, representation))
            },
        )
    });
    selected.ok_or(if known { NotAcceptable::Parameters } else { NotAcceptable::MediaType })
}

impl Encoding {
    /// The media type, for the header `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::PrettyJson => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The variant for humans: `PrettyJson` instead of `Json`; other encodings do not change.
    #[must_use]
    pub fn pretty(self) -> Self {
        if self == Self::Json { Self::PrettyJson } else { self }
    }

    /// Encodes an object as a response body.
    pub fn body(self, object: &impl Encode) -> Vec<u8> {
        match self {
            Self::Protobuf => object.to_protobuf(),
            _ => self.encode_json(object.to_json(), &mut |_| Ok(())).expect("`reserve` returns no error"),
        }
    }

    /// Encodes a list as a response body.
    ///
    /// # Errors
    /// If `reserve` returns an error.
    pub fn list(self, list: &impl EncodeList, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        match self {
            Self::Protobuf => list.to_protobuf(reserve),
            _ => self.encode_json(list.to_json(reserve)?, reserve),
        }
    }

    /// Converts JSON into this encoding. For protobuf the JSON is unchanged: protobuf is not made from JSON.
    ///
    /// # Errors
    /// If `reserve` returns an error.
    pub fn encode_json(self, json: Vec<u8>, reserve: &mut Reserve<'_>) -> Result<Vec<u8>, Stopped> {
        match self {
            Self::Json | Self::Protobuf => Ok(json),
            Self::PrettyJson => json::indented(&json, reserve),
            Self::Yaml => yaml::from_json(&json, reserve),
        }
    }
}

impl MetaVersion {
    /// Group and version, as in `apiVersion`.
    pub fn group_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The representation that a clause asks for; `None` if the path does not support it.
fn representation(clause: &Clause<'_>, encoding: Encoding, offer: Offer) -> Option<Representation> {
    if !clause.parameter("stream").is_empty() {
        return None;
    }
    let kind = clause.parameter("as");
    if kind.is_empty() {
        return Some(Representation::Full);
    }
    let metadata = match offer {
        Offer::FullOnly => return None,
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
        negotiate([accept], Offer::FullOnly).map(|(encoding, _)| encoding)
    }

    #[test]
    fn best_supported_clause_is_used() {
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
    fn unsupported_media_types_are_rejected() {
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
    fn kubectl_gets_a_table_and_metadata_clients_get_metadata() {
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
