//! HTTP client settings, which many sections carry inline.
//!
//! Serde's `flatten` would lose positions and the refusal of unknown keys, so [`http_section!`] writes the fields into
//! each section instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::scalar::{Secret, Url};

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
    pub claims: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    pub token_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_params: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<Tls>,
    #[serde(skip_serializing_if = "Option::is_none")]
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
            #[serde(skip_serializing_if = "Option::is_none")]
            pub follow_redirects: Option<bool>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub enable_http2: Option<bool>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pub http_headers: Option<std::collections::BTreeMap<String, $crate::config::http::Header>>,
            #[serde(skip_serializing_if = "Option::is_none")]
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
            && self.follow_redirects.is_none()
            && self.enable_http2.is_none()
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
    /// The first contradiction.
    pub fn finish(self, dir: &Path, http2_default: bool) -> Result<(), String> {
        if self.bearer_token.is_some() && self.bearer_token_file.is_some() {
            return Err("at most one of bearer_token & bearer_token_file must be configured".into());
        }
        let bearer = self.bearer_token.is_some() || self.bearer_token_file.is_some();
        if bearer && (self.basic_auth.is_some() || self.oauth2.is_some()) {
            return Err(
                "at most one of basic_auth, oauth2, bearer_token & bearer_token_file must be configured"
                    .into(),
            );
        }
        if bearer && self.authorization.is_some() {
            return Err("authorization is not compatible with bearer_token & bearer_token_file".into());
        }
        let auths = [self.basic_auth.is_some(), self.authorization.is_some(), self.oauth2.is_some()];
        if auths.iter().filter(|a| **a).count() > 1 {
            return Err("at most one of basic_auth, oauth2 & authorization must be configured".into());
        }
        if let Some(b) = self.basic_auth {
            exclusive(
                "basic_auth username",
                &[b.username.is_some(), b.username_file.is_some(), b.username_ref.is_some()],
            )?;
            exclusive(
                "basic_auth password",
                &[b.password.is_some(), b.password_file.is_some(), b.password_ref.is_some()],
            )?;
            join(dir, &mut b.username_file);
            join(dir, &mut b.password_file);
            refuse_refs(b.username_ref.is_some() || b.password_ref.is_some())?;
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
            exclusive(
                "authorization credentials",
                &[a.credentials.is_some(), a.credentials_file.is_some(), a.credentials_ref.is_some()],
            )?;
            let kind = a.kind.get_or_insert_with(|| "Bearer".into());
            if kind.trim().is_empty() {
                *kind = "Bearer".into();
            }
            if kind.eq_ignore_ascii_case("basic") {
                return Err(
                    "authorization type cannot be set to \"basic\", use \"basic_auth\" instead".into()
                );
            }
            join(dir, &mut a.credentials_file);
            refuse_refs(a.credentials_ref.is_some())?;
        }
        if let Some(o) = self.oauth2 {
            if o.client_id.is_empty() {
                return Err("oauth2 client_id must be configured".into());
            }
            if o.token_url.is_empty() {
                return Err("oauth2 token_url must be configured".into());
            }
            join(dir, &mut o.client_secret_file);
            join(dir, &mut o.client_certificate_key_file);
            if let Some(t) = &mut o.tls_config {
                t.finish(dir)?;
            }
        }
        if let Some(t) = self.tls_config {
            t.finish(dir)?;
        }
        for (name, header) in self.http_headers.iter_mut().flatten() {
            if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(format!("setting header {name:?} is not allowed"));
            }
            header.files.iter_mut().for_each(|f| *f = dir.join(&*f));
        }
        if self.proxy_from_environment.unwrap_or(false) && self.proxy_url.is_some() {
            return Err("if proxy_from_environment is configured, proxy_url must not be configured".into());
        }
        if self.no_proxy.is_some() && self.proxy_url.is_none() {
            return Err("if no_proxy is configured, proxy_url must also be configured".into());
        }
        self.follow_redirects.get_or_insert(true);
        self.enable_http2.get_or_insert(http2_default);
        Ok(())
    }
}

impl Tls {
    fn finish(&mut self, dir: &Path) -> Result<(), String> {
        exclusive("tls_config ca", &[self.ca.is_some(), self.ca_file.is_some(), self.ca_ref.is_some()])?;
        exclusive(
            "tls_config cert",
            &[self.cert.is_some(), self.cert_file.is_some(), self.cert_ref.is_some()],
        )?;
        exclusive("tls_config key", &[self.key.is_some(), self.key_file.is_some(), self.key_ref.is_some()])?;
        refuse_refs(self.ca_ref.is_some() || self.cert_ref.is_some() || self.key_ref.is_some())?;
        let has_cert = self.cert.is_some() || self.cert_file.is_some();
        let has_key = self.key.is_some() || self.key_file.is_some();
        if has_cert != has_key {
            return Err("tls_config: exactly one of cert or cert_file and exactly one of key or key_file must be configured together".into());
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

fn exclusive(what: &str, set: &[bool]) -> Result<(), String> {
    if set.iter().filter(|s| **s).count() > 1 {
        return Err(format!("at most one form of {what} must be configured"));
    }
    Ok(())
}

fn refuse_refs(used: bool) -> Result<(), String> {
    if used {
        return Err("secret references (`*_ref`) are not supported: no secret manager is built in; use the `*_file` form".into());
    }
    Ok(())
}

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
