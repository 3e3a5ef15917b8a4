//! Front proxy authentication: an API server sends the user in request headers
//! (`k8s.io/apiserver/pkg/authentication/request/headerrequest`).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::certificate::{ClientCa, ClientCertificateError, ClientChain};
use super::user::User;

/// The accepted front proxies, and the headers that they send. Prefixes are lower case.
pub struct FrontProxy {
    /// The CA of their client certificates.
    pub ca: Arc<ClientCa>,
    /// The allowed common names; empty for any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name; the first non-empty one is used.
    pub username_headers: Vec<HeaderName>,
    /// Headers with the user's uid; the first non-empty one is used.
    pub uid_headers: Vec<HeaderName>,
    /// Headers with groups; all are used.
    pub group_headers: Vec<HeaderName>,
    /// Prefixes of the headers with extra information.
    pub extra_prefixes: Vec<String>,
}

impl FrontProxy {
    /// The user in the headers, if the certificate is a front proxy's; `None` if the headers have no user name.
    ///
    /// # Errors
    /// If the certificate is not one of an accepted front proxy.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        client_chain: &ClientChain,
    ) -> Result<Option<User>, ClientCertificateError> {
        let subject = client_chain.verify(&self.ca)?;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&subject.common_name) {
            return Err(ClientCertificateError::NameNotAllowed(subject.common_name));
        }
        let Some(name) = first_value(headers, &self.username_headers) else { return Ok(None) };
        let groups = self.group_headers.iter().flat_map(|header| headers.get_all(header));
        Ok(Some(User {
            name,
            uid: first_value(headers, &self.uid_headers).unwrap_or_default(),
            groups: groups.filter_map(text).filter(|group| !group.is_empty()).map(str::to_owned).collect(),
            extra: self.extra(headers),
        }))
    }

    /// Extra information. Keys are percent-decoded, since they may have characters that are not allowed in header names.
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

fn first_value(headers: &HeaderMap, names: &[HeaderName]) -> Option<String> {
    let values = names.iter().filter_map(|name| text(headers.get(name)?));
    values.map(str::to_owned).find(|value| !value.is_empty())
}

/// A header value as UTF-8: user names may have characters that are not ASCII.
fn text(value: &HeaderValue) -> Option<&str> {
    str::from_utf8(value.as_bytes()).ok()
}
