//! Proxies from the environment variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in upper or lower case. They are parsed
//! as in Go (`golang.org/x/net/http/httpproxy`).

use std::env;
use std::net::IpAddr;
use std::sync::LazyLock;

use http::Uri;
use http::uri::Scheme;

use super::credentials::{Credentials, CredentialsError, Proxy, host, port};

/// The proxy settings of the environment.
#[derive(Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    no_proxy: Vec<NoProxyEntry>,
    /// Invalid values, with the reason.
    ignored: Vec<String>,
}

/// One element of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NoProxyEntry {
    All,
    Network(IpAddr, u32),
    Address(IpAddr, Option<String>),
    /// `example.com`: this name and its subdomains. `.example.com` and `*.example.com`: only the subdomains.
    Domain {
        suffix: String,
        includes_itself: bool,
        port: Option<String>,
    },
}

impl Proxies {
    /// The proxies of this process' environment, which is read once.
    pub fn from_environment() -> &'static Self {
        static PROXIES: LazyLock<Proxies> = LazyLock::new(|| {
            let variable = |upper: &str| {
                // A value that is not UTF-8 is not a URL either: `new` reports it.
                let read = |name: &str| Some(env::var_os(name)?.to_string_lossy().into_owned());
                let read = |name: &str| read(name).filter(|value| !value.is_empty());
                read(upper).or_else(|| read(&upper.to_ascii_lowercase())).unwrap_or_default()
            };
            Proxies::new(&variable("HTTP_PROXY"), &variable("HTTPS_PROXY"), &variable("NO_PROXY"))
        });
        &PROXIES
    }

    /// Parses the values of the three variables. An invalid value is ignored with a warning.
    fn new(http: &str, https: &str, no_proxy: &str) -> Self {
        let mut proxies = Self::default();
        proxies.http = proxies.proxy("HTTP_PROXY", http);
        proxies.https = proxies.proxy("HTTPS_PROXY", https);
        for element in no_proxy.split(',').map(|element| element.trim().to_ascii_lowercase()) {
            match NoProxyEntry::parse(&element) {
                Some(entry) => proxies.no_proxy.push(entry),
                None if element.is_empty() => {}
                None => {
                    proxies.ignore(format!("NO_PROXY: {element:?} is not a name, an address or a network"));
                }
            }
        }
        proxies
    }

    fn proxy(&mut self, variable: &str, value: &str) -> Option<Proxy> {
        if value.is_empty() {
            return None;
        }
        parse(value).inspect_err(|error| self.ignore(format!("{variable}: {error}"))).ok()
    }

    fn ignore(&mut self, problem: String) {
        tracing::warn!(error = problem, "a proxy environment variable is invalid and is ignored");
        self.ignored.push(problem);
    }

    /// The ignored values, with the reason. Commands that have no log print them.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The proxy for this target. `None` means a direct connection. Loopback addresses never have a proxy.
    pub fn for_target(&self, target: &Uri) -> Option<&Proxy> {
        let is_https = target.scheme() == Some(&Scheme::HTTPS);
        let proxy = if is_https { &self.https } else { &self.http }.as_ref()?;
        let host = host(target)?.to_ascii_lowercase();
        self.applies_to(&host, &port(target).to_string()).then_some(proxy)
    }

    fn applies_to(&self, host: &str, port: &str) -> bool {
        let address = host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return false;
        }
        !self.no_proxy.iter().any(|entry| entry.covers(host, address, port))
    }
}

/// The proxy for an API server: the proxy of its credentials, otherwise the proxy of the environment.
pub fn proxy_of(credentials: &Credentials) -> Option<&Proxy> {
    let from_environment = || Proxies::from_environment().for_target(&credentials.endpoint.uri("/").ok()?);
    credentials.proxy.as_ref().or_else(from_environment)
}

impl NoProxyEntry {
    fn parse(element: &str) -> Option<Self> {
        if element == "*" {
            return Some(Self::All);
        }
        if let Some((address, length)) = element.split_once('/') {
            let (address, length) = (address.parse::<IpAddr>().ok()?, length.parse().ok()?);
            let max_length = if address.is_ipv4() { 32 } else { 128 };
            return (length <= max_length).then_some(Self::Network(address, length));
        }
        let (host, port) = split_port(element);
        let port = port.map(str::to_owned);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical(), port));
        }
        let name = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*'));
        if name.is_empty() || !is_name {
            return None;
        }
        let includes_itself = !name.starts_with('.');
        let suffix = if includes_itself { format!(".{name}") } else { name.to_owned() };
        Some(Self::Domain { suffix, includes_itself, port })
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, port: &str) -> bool {
        let is_port = |only: &Option<String>| only.as_ref().is_none_or(|only| only == port);
        match self {
            Self::All => true,
            Self::Network(network, length) => {
                address.is_some_and(|address| is_within(address, *network, *length))
            }
            Self::Address(only, of_port) => address == Some(*only) && is_port(of_port),
            Self::Domain { suffix, includes_itself, port: of_port } => {
                let is_match = host.ends_with(suffix) || (*includes_itself && *host == suffix[1..]);
                address.is_none() && is_match && is_port(of_port)
            }
        }
    }
}

/// Parses a URL, or a host and port, which mean `http` (`parseProxy` in Go).
fn parse(value: &str) -> Result<Proxy, CredentialsError> {
    if value.contains("://") { Proxy::parse(value, []) } else { Proxy::parse(&format!("http://{value}"), []) }
}

/// Splits an element into host and port. An IPv6 address with a port has brackets.
fn split_port(element: &str) -> (&str, Option<&str>) {
    if let Some((host, port)) = element.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return (host, Some(port));
    }
    match element.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (element, None),
    }
}

/// Whether the address is in the network. `length` is the number of bits of the network's prefix.
fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.leading_zeros() >= length
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let differing = address.to_bits() ^ network.to_bits();
            differing.leading_zeros() >= length
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy_of(http: &str, https: &str, no_proxy: &str, target: &str) -> String {
        let proxies = Proxies::new(http, https, no_proxy);
        let target = target.parse().expect("a URI");
        proxies.for_target(&target).map_or_else(|| "none".to_owned(), |proxy| proxy.url.to_string())
    }

    /// `proxyForURLTests` of Go's `httpproxy`, without the international names, which `http::Uri` does not accept.
    #[test]
    fn proxy_is_selected_as_in_go() {
        let http = "http://example.com";
        for (http_proxy, https_proxy, no_proxy, target, expected) in [
            ("127.0.0.1:8080", "", "", http, "http://127.0.0.1:8080/"),
            ("cache.corp.example.com:1234", "", "", http, "http://cache.corp.example.com:1234/"),
            ("cache.corp.example.com", "", "", http, "http://cache.corp.example.com/"),
            ("localhost", "", "", http, "http://localhost/"),
            ("https://cache.corp.example.com", "", "", http, "https://cache.corp.example.com/"),
            ("https://127.0.0.1:8080", "", "", http, "https://127.0.0.1:8080/"),
            ("socks5://127.0.0.1", "", "", http, "socks5://127.0.0.1/"),
            ("http.proxy.tld", "secure.proxy.tld", "", "http://insecure.tld/", "http://http.proxy.tld/"),
            ("http.proxy.tld", "secure.proxy.tld", "", "https://secure.tld/", "http://secure.proxy.tld/"),
            ("", "https://secure.proxy.tld", "", "https://secure.tld/", "https://secure.proxy.tld/"),
            ("http.proxy.tld", "", "", "https://secure.tld/", "none"),
            ("", "", "", http, "none"),
            ("proxy", "", "example.com", http, "none"),
            ("proxy", "", ".example.com", http, "http://proxy/"),
            ("proxy", "", "ample.com", http, "http://proxy/"),
            ("proxy", "", "example.com", "http://foo.example.com/", "none"),
            ("proxy", "", ".foo.com", http, "http://proxy/"),
            // `p` is a host, not a scheme.
            ("", "p:3128", "", "https://secure.tld/", "http://p:3128/"),
            // Invalid values are ignored. The other values stay in effect.
            ("", "p:99999", "", "https://secure.tld/", "none"),
            ("", "ftp://p", "", "https://secure.tld/", "none"),
            ("", "p", ".svc,,:80, [x],a b,10.0.0.0/64,secure.tld", "https://secure.tld/", "none"),
            ("", "p", ".svc,", "https://secure.tld/", "http://p/"),
        ] {
            let proxy = proxy_of(http_proxy, https_proxy, no_proxy, target);
            assert_eq!(proxy, expected, "{http_proxy:?} {https_proxy:?} {no_proxy:?} {target}");
        }
    }

    /// `UseProxyTests` of Go's `httpproxy`.
    #[test]
    fn no_proxy_is_parsed_as_in_go() {
        let no_proxy = "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, \
            10.0.0.0/30, 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64";
        for (host, is_proxied) in [
            ("localhost", false),
            ("127.0.0.1", false),
            ("127.0.0.2", false),
            ("[::1]", false),
            ("[::2]", true),
            ("192.168.1.1", false),
            ("192.168.1.2", true),
            ("192.168.1.3", false),
            ("192.168.1.4", true),
            ("10.0.0.2", false),
            ("[2001:db8::52:0:1]", false),
            ("[2001:db8::52:0:2]", true),
            ("[2001:db8::52:0:3]", false),
            ("[2002:db8:a::123]", false),
            ("[fe80::424b:c8be:1643:a1b6]", true),
            ("barbaz.net", true),
            ("www.barbaz.net", false),
            ("foobar.com", false),
            ("www.foobar.com", false),
            ("foofoobar.com", true),
            ("baz.com", true),
            ("localhost.net", true),
            ("local.localhost", true),
            ("barbarbaz.net", true),
            ("wildcard.io", true),
            ("nested.wildcard.io", false),
            ("awildcard.io", true),
        ] {
            let target = format!("http://{host}:80/");
            assert_eq!(proxy_of("p", "", no_proxy, &target) != "none", is_proxied, "{host}");
            assert_eq!(proxy_of("p", "", "*", &target), "none", "{host}");
        }
        assert_eq!(proxy_of("p", "", ":1", "http://example.com:80"), "http://p/");
    }
}
