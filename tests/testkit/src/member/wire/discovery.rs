//! `APIResourceList`, `APIGroup` and `APIGroupList`.

use serde::Serialize;

use super::{json, typed_json};
use crate::protobuf::Message;

/// The resources of a group version.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiResourceList {
    kind: &'static str,
    api_version: &'static str,
    group_version: String,
    resources: Vec<ApiResource>,
}

/// A resource, or a metric in the form of a subresource.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ApiResource {
    pub name: String,
    pub singular_name: &'static str,
    pub namespaced: bool,
    pub kind: &'static str,
    pub verbs: &'static [&'static str],
}

/// An API group with its versions, the preferred version first.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiGroup {
    name: &'static str,
    versions: Vec<GroupVersion>,
    preferred_version: GroupVersion,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupList<'a> {
    kind: &'static str,
    api_version: &'static str,
    groups: &'a [ApiGroup],
}

impl ApiResourceList {
    /// The resources of `group_version`.
    pub fn new(group_version: String, resources: Vec<ApiResource>) -> Self {
        Self { kind: "APIResourceList", api_version: "v1", group_version, resources }
    }

    pub(super) fn to_protobuf(&self) -> Vec<u8> {
        Message::new()
            .string(1, &self.group_version)
            .repeated(2, self.resources.iter().map(resource))
            .into_envelope(self.api_version, self.kind)
    }
}

impl ApiGroup {
    /// A group with its versions. `None` without versions.
    pub fn new(name: &'static str, versions: &[&'static str]) -> Option<Self> {
        let version =
            |version: &&'static str| GroupVersion { group_version: format!("{name}/{version}"), version };
        let versions: Vec<_> = versions.iter().map(version).collect();
        Some(Self { name, preferred_version: versions.first()?.clone(), versions })
    }

    /// The group's name.
    pub fn name(&self) -> &str {
        self.name
    }
}

pub(super) fn group_json(group: &ApiGroup) -> Vec<u8> {
    typed_json("v1", "APIGroup", group)
}

pub(super) fn groups_json(groups: &[ApiGroup]) -> Vec<u8> {
    json(&GroupList { kind: "APIGroupList", api_version: "v1", groups })
}

pub(super) fn group_protobuf(group: &ApiGroup) -> Vec<u8> {
    group_message(group).into_envelope("v1", "APIGroup")
}

pub(super) fn groups_protobuf(groups: &[ApiGroup]) -> Vec<u8> {
    Message::new().repeated(1, groups.iter().map(group_message)).into_envelope("v1", "APIGroupList")
}

fn group_message(group: &ApiGroup) -> Message {
    Message::new()
        .string(1, group.name)
        .repeated(2, group.versions.iter().map(version_message))
        .message(3, &version_message(&group.preferred_version))
}

fn version_message(version: &GroupVersion) -> Message {
    Message::new().string(1, &version.group_version).string(2, version.version)
}

fn resource(resource: &ApiResource) -> Message {
    let verbs = resource.verbs.iter().fold(Message::new(), |verbs, verb| verbs.string(1, verb));
    Message::new()
        .string(1, &resource.name)
        .boolean(2, resource.namespaced)
        .string(3, resource.kind)
        .message(4, &verbs)
        .string(6, resource.singular_name)
        .string(8, "")
        .string(9, "")
        .string(10, "")
}
