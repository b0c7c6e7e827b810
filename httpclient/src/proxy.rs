//! Which requests go through which proxy: `proxy_url`, `no_proxy`, and the environment's variables.
//!
//! With a proxy and no exceptions everything goes through it. As soon as exceptions are named, and always when the
//! proxy is from the environment, `localhost` and loopback addresses are reached directly too, as Go's `httpproxy` does.

use std::net::IpAddr;

use url::Url;

use crate::config::ProxyConfig;

/// The proxies of one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    /// `None`: no exceptions, not even for this machine.
    exceptions: Option<Exceptions>,
}

#[derive(Clone, Debug, Default)]
struct Exceptions {
    all: bool,
    networks: Vec<(IpAddr, u8)>,
    addresses: Vec<(IpAddr, Option<u16>)>,
    domains: Vec<Domain>,
}

#[derive(Clone, Debug)]
struct Domain {
    /// With its leading dot.
    suffix: String,
    port: Option<u16>,
    itself: bool,
}

impl Proxies {
    /// # Errors
    /// When the proxy's URL is none.
    pub(crate) fn new(config: &ProxyConfig) -> Result<Self, String> {
        if config.from_environment {
            return Ok(Self::from_environment(&|name| std::env::var(name).ok()));
        }
        let Some(text) = config.url.as_deref().filter(|u| !u.is_empty()) else { return Ok(Self::default()) };
        let url = parse(text).ok_or_else(|| format!("invalid proxy address {text:?}"))?;
        let exceptions = (!config.no_proxy.is_empty()).then(|| Exceptions::parse(&config.no_proxy));
        Ok(Self { http: Some(url.clone()), https: Some(url), exceptions })
    }

    fn from_environment(get: &dyn Fn(&str) -> Option<String>) -> Self {
        let any = |names: [&str; 2]| {
            names.into_iter().find_map(|n| get(n).filter(|v| !v.is_empty())).unwrap_or_default()
        };
        Self {
            http: parse(&any(["HTTP_PROXY", "http_proxy"])),
            https: parse(&any(["HTTPS_PROXY", "https_proxy"])),
            exceptions: Some(Exceptions::parse(&any(["NO_PROXY", "no_proxy"]))),
        }
    }

    /// The proxy for a request, if it goes through one.
    pub(crate) fn of(&self, https: bool, host: &str, port: u16) -> Option<&Url> {
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        match &self.exceptions {
            Some(exceptions) if exceptions.hold(host, port) => None,
            _ => Some(proxy),
        }
    }
}

/// A URL, or `host:port` of an HTTP proxy.
fn parse(text: &str) -> Option<Url> {
    if text.is_empty() {
        return None;
    }
    match Url::parse(text) {
        Ok(url) if url.has_host() => Some(url),
        _ => Url::parse(&format!("http://{text}")).ok(),
    }
}

impl Exceptions {
    fn parse(list: &str) -> Self {
        let mut out = Self::default();
        for entry in list.split(',').map(|e| e.trim().to_lowercase()).filter(|e| !e.is_empty()) {
            if entry == "*" {
                return Self { all: true, ..Self::default() };
            }
            out.add(&entry);
        }
        out
    }

    fn add(&mut self, entry: &str) {
        if let Some((address, bits)) = entry.split_once('/')
            && let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>())
            && bits <= if address.is_ipv4() { 32 } else { 128 }
        {
            self.networks.push((address, bits));
            return;
        }
        let (host, port) = split_port(entry);
        if host.is_empty() {
            return;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            self.addresses.push((address, port));
            return;
        }
        let host = host.strip_prefix('*').filter(|h| h.starts_with('.')).unwrap_or(host);
        let itself = !host.starts_with('.');
        let suffix = if itself { format!(".{host}") } else { host.to_owned() };
        self.domains.push(Domain { suffix, port, itself });
    }

    fn hold(&self, host: &str, port: u16) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_lowercase();
        if host == "localhost" || self.all {
            return true;
        }
        let fits = |p: Option<u16>| p.is_none_or(|p| p == port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return address.is_loopback()
                || self.networks.iter().any(|(network, bits)| contains(*network, *bits, address))
                || self.addresses.iter().any(|(a, p)| *a == address && fits(*p));
        }
        self.domains
            .iter()
            .any(|d| (host.ends_with(&d.suffix) || d.itself && host == d.suffix[1..]) && fits(d.port))
    }
}

fn split_port(entry: &str) -> (&str, Option<u16>) {
    if let Some(rest) = entry.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, tail.strip_prefix(':').and_then(|p| p.parse().ok()));
    }
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, port.parse().ok()),
        _ => (entry, None),
    }
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let shifted = |wide: u128, width: u8| wide.checked_shr(u32::from(width - bits)).unwrap_or(0);
    match (network, address) {
        (IpAddr::V4(n), IpAddr::V4(a)) => {
            shifted(u128::from(u32::from(n)), 32) == shifted(u128::from(u32::from(a)), 32)
        }
        (IpAddr::V6(n), IpAddr::V6(a)) => shifted(n.into(), 128) == shifted(a.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(no_proxy: &str) -> Proxies {
        let config = ProxyConfig {
            url: Some("http://proxy:3128".into()),
            no_proxy: no_proxy.into(),
            ..ProxyConfig::default()
        };
        Proxies::new(&config).expect("valid")
    }

    #[test]
    fn without_exceptions_everything_goes_through_the_proxy() {
        for host in ["localhost", "127.0.0.1", "a.b"] {
            assert!(proxies("").of(false, host, 80).is_some(), "{host}");
        }
    }

    #[test]
    fn exceptions_name_hosts_domains_addresses_and_networks() {
        let p = proxies(
            "a.example, .b.example,*.c.example,10.0.0.0/8,192.168.0.1:81,[::2]:82,fd00::/8,d.example:83",
        );
        let direct = |host: &str, port: u16| p.of(true, host, port).is_none();
        for (host, port) in [
            ("a.example", 1),
            ("x.a.example", 1),
            ("x.b.example", 1),
            ("x.c.example", 1),
            ("10.9.8.7", 1),
            ("192.168.0.1", 81),
            ("[::2]", 82),
            ("[fd12::1]", 1),
            ("d.example", 83),
            ("localhost", 1),
            ("127.1.2.3", 1),
            ("[::1]", 1),
        ] {
            assert!(direct(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("b.example", 1),
            ("c.example", 1),
            ("xa.example", 1),
            ("192.168.0.1", 80),
            ("11.0.0.1", 1),
            ("d.example", 1),
        ] {
            assert!(!direct(host, port), "{host}:{port}");
        }
        assert!(proxies("*").of(false, "any", 1).is_none());
    }

    #[test]
    fn the_environment_has_a_proxy_for_each_scheme() {
        let env = |name: &str| match name {
            "HTTP_PROXY" => Some("plain:1".to_owned()),
            "https_proxy" => Some("socks5://secure:2".to_owned()),
            "no_proxy" => Some("x".to_owned()),
            _ => None,
        };
        let p = Proxies::from_environment(&env);
        assert_eq!(p.of(false, "h", 80).map(Url::as_str), Some("http://plain:1/"));
        assert_eq!(p.of(true, "h", 80).map(Url::as_str), Some("socks5://secure:2"));
        assert!(p.of(true, "x", 80).is_none() && p.of(true, "localhost", 80).is_none());
    }
}
