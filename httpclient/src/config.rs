//! Plain settings of a client: what the parts of `http_config` say once they are read.
//!
//! Files are only named here; they are read when they are needed, so that they can rotate. What contradicts itself is
//! refused by [`ClientConfig::check`].

use std::fmt;
use std::path::PathBuf;

/// How to speak HTTP to another server.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientConfig {
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// The `Authorization` header.
    pub authorization: Option<Authorization>,
    /// A token server that gives the credentials.
    pub oauth2: Option<OAuth2Config>,
    /// Further request headers.
    pub headers: Vec<HttpHeader>,
    /// TLS.
    pub tls: TlsConfig,
    /// Proxies.
    pub proxy: ProxyConfig,
    /// Follow redirects, ten requests at most.
    pub follow_redirects: bool,
    /// Whether HTTP/2 may be negotiated over TLS.
    pub enable_http2: bool,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            basic_auth: None,
            authorization: None,
            oauth2: None,
            headers: Vec::new(),
            tls: TlsConfig::default(),
            proxy: ProxyConfig::default(),
            follow_redirects: true,
            enable_http2: true,
        }
    }
}

impl ClientConfig {
    /// Refuses what contradicts itself; opens no file.
    ///
    /// # Errors
    /// What is wrong, on one line.
    pub fn check(&self) -> Result<(), String> {
        let ways = [self.basic_auth.is_some(), self.authorization.is_some(), self.oauth2.is_some()];
        if ways.iter().filter(|w| **w).count() > 1 {
            return Err("at most one of basic_auth, oauth2 & authorization must be configured".into());
        }
        self.tls.check()
    }
}

/// A text in the configuration or in a file that is read when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In the configuration itself.
    Inline(Secret),
    /// In a file; blanks around it do not count. Read again for each request, so that it can rotate.
    File(PathBuf),
}

impl SecretSource {
    /// A text that is known already.
    #[must_use]
    pub fn inline(text: impl Into<String>) -> Self {
        Self::Inline(Secret::new(text))
    }

    /// What messages call it.
    pub(crate) fn description(&self) -> String {
        match self {
            Self::Inline(_) => "inline".into(),
            Self::File(path) => format!("file {}", path.display()),
        }
    }

    /// The text now.
    ///
    /// # Errors
    /// Why the file cannot be read.
    pub async fn read(&self) -> Result<String, String> {
        match self {
            Self::Inline(s) => Ok(s.expose().to_owned()),
            Self::File(path) => match tokio::fs::read(path).await {
                Ok(bytes) => String::from_utf8(bytes)
                    .map(|s| s.trim().to_owned())
                    .map_err(|_| format!("unable to read file {}: it is not UTF-8", path.display())),
                Err(e) => {
                    let path = path.display();
                    Err(format!("unable to read file {path}: open {path}: {}", crate::error::os_text(&e)))
                }
            },
        }
    }
}

/// User name and password; what is absent is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// User name, from the configuration or a file.
    pub username: SecretSource,
    /// Password; absent means empty.
    pub password: Option<SecretSource>,
}

/// `Authorization: TYPE CREDENTIALS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// `Bearer` by default.
    pub kind: String,
    /// The credentials.
    pub credentials: Option<SecretSource>,
}

/// A header that is sent with every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHeader {
    /// Its name.
    pub name: String,
    /// Its values, in order.
    pub values: Vec<SecretSource>,
}

/// A version of TLS that can be spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// TLS towards a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates to trust, PEM; absent: those of the system.
    pub ca: Option<SecretSource>,
    /// Client certificate, PEM.
    pub cert: Option<SecretSource>,
    /// Key of the client certificate, PEM.
    pub key: Option<SecretSource>,
    /// Name that the certificate must have; empty: the host of the URL.
    pub server_name: String,
    /// Trust any certificate.
    pub insecure_skip_verify: bool,
    /// Oldest version spoken.
    pub min_version: Option<TlsVersion>,
    /// Newest version spoken.
    pub max_version: Option<TlsVersion>,
}

impl TlsConfig {
    fn check(&self) -> Result<(), String> {
        match (&self.cert, &self.key) {
            (Some(_), None) => {
                Err("exactly one of key or key_file must be configured when a client certificate is configured".into())
            }
            (None, Some(_)) => {
                Err("exactly one of cert or cert_file must be configured when a client key is configured".into())
            }
            _ => match (self.min_version, self.max_version) {
                (Some(min), Some(max)) if max < min => {
                    Err("tls_config.max_version must be greater than or equal to tls_config.min_version if both are \
                         specified"
                        .into())
                }
                _ => Ok(()),
            },
        }
    }
}

/// Which requests go through which proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// The proxy: `http`, `https`, `socks5` or `socks5h`.
    pub url: Option<String>,
    /// Hosts, domains, addresses and networks that are reached without it, separated by commas.
    pub no_proxy: String,
    /// Take `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or their lower-case forms, instead.
    pub from_environment: bool,
    /// Headers of `CONNECT` requests.
    pub connect_headers: Vec<(String, Vec<Secret>)>,
}

/// How a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantType {
    /// RFC 6749, section 4.4, with the client's secret.
    ClientCredentials {
        /// The secret; absent means empty.
        secret: Option<SecretSource>,
    },
    /// RFC 7523, section 2.1: a signed assertion.
    JwtBearer {
        /// The RSA key that signs, PEM.
        key: Option<SecretSource>,
        /// `kid` of the assertion; empty for none.
        key_id: String,
        /// How it is signed.
        algorithm: SignatureAlgorithm,
        /// `iss`; empty for the client's id.
        issuer: String,
        /// `aud`; empty for the token's URL.
        audience: String,
        /// Further claims, which win over those that are made here.
        claims: serde_json::Map<String, serde_json::Value>,
    },
}

/// Signatures of assertions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSA PKCS#1 with SHA-256.
    #[default]
    Rs256,
    /// RSA PKCS#1 with SHA-384.
    Rs384,
    /// RSA PKCS#1 with SHA-512.
    Rs512,
}

/// A token server.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2Config {
    /// Id of the client.
    pub client_id: String,
    /// How to ask.
    pub grant: GrantType,
    /// Where to ask.
    pub token_url: String,
    /// Scopes to ask for.
    pub scopes: Vec<String>,
    /// Further parameters of the request.
    pub endpoint_params: Vec<(String, String)>,
    /// TLS towards the token server.
    pub tls: TlsConfig,
    /// Proxies on the way to the token server.
    pub proxy: ProxyConfig,
}

/// A text that never shows in logs, errors or answers.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}
