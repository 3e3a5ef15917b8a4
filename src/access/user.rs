//! The user of a request.

use std::collections::BTreeMap;

/// A user, as in Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The user's uid; empty if unknown.
    pub uid: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// Extra information from the authenticator.
    pub extra: BTreeMap<String, Vec<String>>,
}

const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const AUTHENTICATED: &str = "system:authenticated";
const MASTERS: &str = "system:masters";

impl User {
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// Adds the group `system:authenticated`, except to the anonymous user (`group.AuthenticatedGroupAdder`).
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        let has_group = self.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED);
        if self.name != ANONYMOUS && !has_group {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// Whether this is the anonymous user.
    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    /// Whether the user is in `system:masters`, which has all permissions without a review.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }
}
