//! HTTP client settings, which many sections carry inline.
//!
//! Serde's `flatten` would lose positions and the refusal of unknown keys, so [`http_section!`] writes the fields into
//! each section instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::scalar::{Secret, Url, url_if_any};

/// `basic_auth`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_ref: Option<String>,
}

/// `authorization`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_ref: Option<String>,
}

/// `oauth2`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuth2 {
    pub client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_key_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature_algorithm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    pub token_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_params: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<Tls>,
    #[serde(deserialize_with = "url_if_any", skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<Url>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_from_environment: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_connect_header: Option<BTreeMap<String, Vec<Secret>>>,
}

/// `tls_config`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_version: Option<String>,
}

/// One of `http_headers`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Header {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<PathBuf>,
}

/// The settings of one section, gathered.
pub struct HttpClient<'a> {
    pub basic_auth: &'a mut Option<BasicAuth>,
    pub authorization: &'a mut Option<Authorization>,
    pub oauth2: &'a mut Option<OAuth2>,
    pub bearer_token: &'a mut Option<Secret>,
    pub bearer_token_file: &'a mut Option<PathBuf>,
    pub tls_config: &'a mut Option<Tls>,
    pub follow_redirects: &'a mut Option<bool>,
    pub enable_http2: &'a mut Option<bool>,
    pub http_headers: &'a mut Option<BTreeMap<String, Header>>,
    pub proxy_url: &'a mut Option<Url>,
    pub no_proxy: &'a mut Option<String>,
    pub proxy_from_environment: &'a mut Option<bool>,
    pub proxy_connect_header: &'a mut Option<BTreeMap<String, Vec<Secret>>>,
}

/// Declares a section with the HTTP client's fields after its own.
macro_rules! http_section {
    ($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($body)*
            #[serde(skip_serializing_if = "Option::is_none")]
            pub basic_auth: Option<$crate::config::http::BasicAuth>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub authorization: Option<$crate::config::http::Authorization>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub oauth2: Option<$crate::config::http::OAuth2>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub bearer_token: Option<$crate::config::scalar::Secret>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub bearer_token_file: Option<std::path::PathBuf>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tls_config: Option<$crate::config::http::Tls>,
            #[serde(deserialize_with = "crate::config::scalar::present", skip_serializing_if = "Option::is_none")]
            pub follow_redirects: Option<bool>,
            #[serde(deserialize_with = "crate::config::scalar::present", skip_serializing_if = "Option::is_none")]
            pub enable_http2: Option<bool>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub http_headers: Option<std::collections::BTreeMap<String, $crate::config::http::Header>>,
            #[serde(deserialize_with = "crate::config::scalar::url_if_any", skip_serializing_if = "Option::is_none")]
            pub proxy_url: Option<$crate::config::scalar::Url>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub no_proxy: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub proxy_from_environment: Option<bool>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub proxy_connect_header: Option<std::collections::BTreeMap<String, Vec<$crate::config::scalar::Secret>>>,
        }

        impl $name {
            /// The HTTP client's settings of this section.
            pub fn http(&mut self) -> $crate::config::http::HttpClient<'_> {
                $crate::config::http::HttpClient {
                    basic_auth: &mut self.basic_auth,
                    authorization: &mut self.authorization,
                    oauth2: &mut self.oauth2,
                    bearer_token: &mut self.bearer_token,
                    bearer_token_file: &mut self.bearer_token_file,
                    tls_config: &mut self.tls_config,
                    follow_redirects: &mut self.follow_redirects,
                    enable_http2: &mut self.enable_http2,
                    http_headers: &mut self.http_headers,
                    proxy_url: &mut self.proxy_url,
                    no_proxy: &mut self.no_proxy,
                    proxy_from_environment: &mut self.proxy_from_environment,
                    proxy_connect_header: &mut self.proxy_connect_header,
                }
            }
        }
    };
}
pub(crate) use http_section;

http_section! {
    /// A file of its own, for tools: `--http.config.file`.
    pub struct HttpFile {}
}

impl HttpClient<'_> {
    /// Whether anything is set: discovery by in-cluster credentials must not be mixed with own settings.
    pub fn is_default(&self) -> bool {
        self.basic_auth.is_none()
            && self.authorization.is_none()
            && self.oauth2.is_none()
            && self.bearer_token.is_none()
            && self.bearer_token_file.is_none()
            && self.tls_config.is_none()
            && self.follow_redirects.unwrap_or(true)
            && self.enable_http2.unwrap_or(true)
            && self.http_headers.is_none()
            && self.proxy_url.is_none()
            && self.no_proxy.is_none()
            && self.proxy_from_environment.is_none()
            && self.proxy_connect_header.is_none()
    }

    /// Checks what excludes what, folds `bearer_token` into `authorization`, fills defaults, and makes file names
    /// relative to `dir`.
    ///
    /// # Errors
    /// The first contradiction, in Prometheus's words.
    pub fn finish(self, dir: &Path, http2_default: bool) -> Result<(), String> {
        if let Some(t) = self.tls_config {
            t.finish(dir)?;
        }
        let (token, token_file) = (set(self.bearer_token), set_path(self.bearer_token_file));
        if token && token_file {
            return Err("at most one of bearer_token & bearer_token_file must be configured".into());
        }
        let bearer = token || token_file;
        if bearer && (self.basic_auth.is_some() || self.oauth2.is_some()) {
            return Err(
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured"
                    .into(),
            );
        }
        if let Some(b) = self.basic_auth {
            b.finish(dir)?;
        }
        if bearer && self.authorization.is_some() {
            return Err("authorization is not compatible with bearer_token & bearer_token_file".into());
        }
        if bearer {
            *self.authorization = Some(Authorization {
                kind: None,
                credentials: self.bearer_token.take(),
                credentials_file: self.bearer_token_file.take(),
                credentials_ref: None,
            });
        }
        if let Some(a) = self.authorization {
            a.finish(dir)?;
            if self.basic_auth.is_some() || self.oauth2.is_some() {
                return Err("at most one of basic_auth, oauth2 & authorization must be configured".into());
            }
        }
        if let Some(o) = self.oauth2 {
            if self.basic_auth.is_some() {
                return Err("at most one of basic_auth, oauth2 & authorization must be configured".into());
            }
            o.finish(dir)?;
        }
        check_proxy(
            self.proxy_url.as_ref(),
            self.no_proxy.as_deref(),
            self.proxy_from_environment.unwrap_or(false),
            self.proxy_connect_header.as_ref(),
        )?;
        for (name, header) in self.http_headers.iter_mut().flatten() {
            if RESERVED_HTTP_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(format!("setting header {:?} is not allowed", canonical_header(name)));
            }
            header.files.iter_mut().for_each(|f| *f = dir.join(&*f));
        }
        self.follow_redirects.get_or_insert(true);
        self.enable_http2.get_or_insert(http2_default);
        Ok(())
    }
}

impl BasicAuth {
    fn finish(&mut self, dir: &Path) -> Result<(), String> {
        exclusive(
            "basic_auth username, username_file & username_ref",
            &[set_text(&self.username), set_path(&self.username_file), set_text(&self.username_ref)],
        )?;
        exclusive(
            "basic_auth password, password_file & password_ref",
            &[set(&self.password), set_path(&self.password_file), set_text(&self.password_ref)],
        )?;
        join(dir, &mut self.username_file);
        join(dir, &mut self.password_file);
        Ok(())
    }
}

impl Authorization {
    fn finish(&mut self, dir: &Path) -> Result<(), String> {
        exclusive(
            "authorization credentials & credentials_file",
            &[set(&self.credentials), set_path(&self.credentials_file), set_text(&self.credentials_ref)],
        )?;
        let kind = self.kind.get_or_insert_default();
        *kind = kind.trim().to_owned();
        if kind.is_empty() {
            *kind = "Bearer".into();
        }
        if kind.eq_ignore_ascii_case("basic") {
            return Err("authorization type cannot be set to \"basic\", use \"basic_auth\" instead".into());
        }
        join(dir, &mut self.credentials_file);
        Ok(())
    }
}

/// `grant_type` of signed assertions.
pub const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

impl OAuth2 {
    fn finish(&mut self, dir: &Path) -> Result<(), String> {
        if let Some(t) = &mut self.tls_config {
            t.finish(dir)?;
        }
        check_proxy(
            self.proxy_url.as_ref(),
            self.no_proxy.as_deref(),
            self.proxy_from_environment.unwrap_or(false),
            self.proxy_connect_header.as_ref(),
        )?;
        if self.client_id.is_empty() {
            return Err("oauth2 client_id must be configured".into());
        }
        if self.token_url.is_empty() {
            return Err("oauth2 token_url must be configured".into());
        }
        if self.grant_type.as_deref() == Some(GRANT_JWT_BEARER) {
            let keys = [
                set(&self.client_certificate_key),
                set_path(&self.client_certificate_key_file),
                set_text(&self.client_certificate_key_ref),
            ];
            if keys.iter().filter(|k| **k).count() > 1 {
                return Err(format!(
                    "at most one of oauth2 client_certificate_key, client_certificate_key_file & \
                     client_certificate_key_ref must be configured using grant-type={GRANT_JWT_BEARER}"
                ));
            }
            if !matches!(self.signature_algorithm.as_deref(), None | Some("" | "RS256" | "RS384" | "RS512")) {
                return Err("valid signature algorithms are RS256, RS384 and RS512".into());
            }
        } else {
            let secrets = [
                set(&self.client_secret),
                set_path(&self.client_secret_file),
                set_text(&self.client_secret_ref),
            ];
            if secrets.iter().filter(|s| **s).count() > 1 {
                return Err(
                    "at most one of oauth2 client_secret, client_secret_file & client_secret_ref must be \
                            configured using grant-type=client_credentials"
                        .into(),
                );
            }
        }
        // `client_certificate_key_file` stays relative to the working directory, as Prometheus has it.
        join(dir, &mut self.client_secret_file);
        Ok(())
    }
}

impl Tls {
    /// Checks what excludes what, and makes file names relative to `dir`.
    ///
    /// # Errors
    /// The first contradiction, in Prometheus's words.
    pub fn finish(&mut self, dir: &Path) -> Result<(), String> {
        exclusive(
            "ca, ca_file & ca_ref",
            &[set_text(&self.ca), set_path(&self.ca_file), set_text(&self.ca_ref)],
        )?;
        exclusive(
            "cert, cert_file & cert_ref",
            &[set_text(&self.cert), set_path(&self.cert_file), set_text(&self.cert_ref)],
        )?;
        exclusive("key and key_file", &[set(&self.key), set_path(&self.key_file), set_text(&self.key_ref)])?;
        let has_cert = set_text(&self.cert) || set_path(&self.cert_file) || set_text(&self.cert_ref);
        let has_key = set(&self.key) || set_path(&self.key_file) || set_text(&self.key_ref);
        if has_cert && !has_key {
            return Err(
                "exactly one of key or key_file must be configured when a client certificate is configured"
                    .into(),
            );
        }
        if has_key && !has_cert {
            return Err(
                "exactly one of cert or cert_file must be configured when a client key is configured".into(),
            );
        }
        for v in [&self.min_version, &self.max_version].into_iter().flatten() {
            if !["TLS10", "TLS11", "TLS12", "TLS13"].contains(&v.as_str()) {
                return Err(format!("unknown TLS version: {v}"));
            }
        }
        join(dir, &mut self.ca_file);
        join(dir, &mut self.cert_file);
        join(dir, &mut self.key_file);
        Ok(())
    }
}

fn check_proxy(
    url: Option<&Url>,
    no_proxy: Option<&str>,
    from_environment: bool,
    connect_header: Option<&BTreeMap<String, Vec<Secret>>>,
) -> Result<(), String> {
    let no_proxy = no_proxy.is_some_and(|n| !n.is_empty());
    let refuse = |text: &str| Err(text.to_owned());
    if connect_header.is_some_and(|h| !h.is_empty()) && !from_environment && url.is_none() {
        return refuse(
            "if proxy_connect_header is configured, proxy_url or proxy_from_environment must also be configured",
        );
    }
    if from_environment && url.is_some() {
        return refuse("if proxy_from_environment is configured, proxy_url must not be configured");
    }
    if from_environment && no_proxy {
        return refuse("if proxy_from_environment is configured, no_proxy must not be configured");
    }
    if url.is_none() && no_proxy {
        return refuse("if no_proxy is configured, proxy_url must also be configured");
    }
    Ok(())
}

/// An empty text counts as not given.
fn set_text(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|t| !t.is_empty())
}

fn set(secret: &Option<Secret>) -> bool {
    secret.as_ref().is_some_and(|s| !s.0.is_empty())
}

fn set_path(path: &Option<PathBuf>) -> bool {
    path.as_ref().is_some_and(|p| !p.as_os_str().is_empty())
}

fn exclusive(what: &str, set: &[bool]) -> Result<(), String> {
    if set.iter().filter(|s| **s).count() > 1 {
        return Err(format!("at most one of {what} must be configured"));
    }
    Ok(())
}

impl HttpClient<'_> {
    /// Whether a secret is named that a secret manager would have to give.
    pub fn has_references(&self) -> bool {
        let basic = self.basic_auth.as_ref();
        let basic = basic.is_some_and(|b| set_text(&b.username_ref) || set_text(&b.password_ref));
        let authorization = self.authorization.as_ref().is_some_and(|a| set_text(&a.credentials_ref));
        let oauth2 = self.oauth2.as_ref().is_some_and(|o| {
            set_text(&o.client_secret_ref)
                || set_text(&o.client_certificate_key_ref)
                || o.tls_config.as_ref().is_some_and(Tls::has_references)
        });
        basic || authorization || oauth2 || self.tls_config.as_ref().is_some_and(Tls::has_references)
    }
}

impl Tls {
    /// Whether a secret is named that a secret manager would have to give.
    pub fn has_references(&self) -> bool {
        set_text(&self.ca_ref) || set_text(&self.cert_ref) || set_text(&self.key_ref)
    }
}

/// A header's name as HTTP/1 writes it: `X-Some-Name`.
pub fn canonical_header(name: &str) -> String {
    let mut start = true;
    let letter = |c: char| {
        let out = if start { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        start = c == '-';
        out
    };
    name.chars().map(letter).collect()
}

/// Headers that `http_headers` may not set.
const RESERVED_HTTP_HEADERS: [&str; 18] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// Makes a file name relative to the folder of the file that names it.
pub fn join(dir: &Path, file: &mut Option<PathBuf>) {
    if let Some(f) = file
        && !f.as_os_str().is_empty()
    {
        *f = dir.join(&*f);
    }
}

/// Headers that the protocol sets itself.
pub const RESERVED_HEADERS: [&str; 13] = [
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
];
