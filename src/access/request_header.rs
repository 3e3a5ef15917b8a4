//! The front proxy: an API server that says in headers who asks
//! (`k8s.io/apiserver/pkg/authentication/request/headerrequest`).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::certificate::{ClientCa, ClientCertificateError, ClientChain};
use super::user::User;

/// Whom to believe as a front proxy, and which headers it sends. Prefixes are lower case.
pub struct FrontProxy {
    /// Who signs its certificate.
    pub authority: Arc<ClientCa>,
    /// The common names it may have; empty for any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first that has one counts.
    pub username_headers: Vec<HeaderName>,
    /// Headers with the user's uid; the first that has one counts.
    pub uid_headers: Vec<HeaderName>,
    /// Headers with groups; all count.
    pub group_headers: Vec<HeaderName>,
    /// What the headers with extra information begin with.
    pub extra_prefixes: Vec<String>,
}

impl FrontProxy {
    /// Whom the headers name, if the certificate is a front proxy's; `None` if they name nobody.
    ///
    /// # Errors
    /// If the certificate is not a front proxy's.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        presented: &ClientChain,
    ) -> Result<Option<User>, ClientCertificateError> {
        let subject = presented.verify(&self.authority)?;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&subject.common_name) {
            return Err(ClientCertificateError::NameNotAllowed(subject.common_name));
        }
        let Some(name) = first(headers, &self.username_headers) else { return Ok(None) };
        let groups = self.group_headers.iter().flat_map(|header| headers.get_all(header));
        Ok(Some(User {
            name,
            uid: first(headers, &self.uid_headers).unwrap_or_default(),
            groups: groups.filter_map(text).filter(|group| !group.is_empty()).map(str::to_owned).collect(),
            extra: self.extra(headers),
        }))
    }

    /// Keys are percent-decoded, since they may hold characters that no header name has.
    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for prefix in &self.extra_prefixes {
            for (name, value) in headers {
                let Some(key) = name.as_str().strip_prefix(prefix.as_str()) else { continue };
                let Some(value) = text(value) else { continue };
                let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        extra
    }
}

fn first(headers: &HeaderMap, names: &[HeaderName]) -> Option<String> {
    let values = names.iter().filter_map(|name| text(headers.get(name)?));
    values.map(str::to_owned).find(|value| !value.is_empty())
}

/// Names may hold any letters; only ASCII would turn their owners away.
fn text(value: &HeaderValue) -> Option<&str> {
    str::from_utf8(value.as_bytes()).ok()
}
