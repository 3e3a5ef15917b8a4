//! Address and credentials of a member for a client.

use std::fmt;

use crate::api_client::{ApiClient, Credentials};

/// How to reach a member.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// The cluster's name.
    pub name: String,
    /// `https://127.0.0.1:port`, with the path prefix if there is one.
    pub endpoint: String,
    /// The CA of the serving certificate.
    pub ca_pem: String,
    /// The bearer token.
    pub token: String,
}

impl Access {
    /// A client that presents the token.
    pub fn client(&self) -> ApiClient {
        let credentials = Credentials::Token(&self.token);
        ApiClient::new(&self.endpoint, &self.ca_pem, credentials).expect("the kit's certificates are valid")
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Access")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
