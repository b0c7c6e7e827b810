//! OAuth 2.0 towards a token server: client credentials (RFC 6749, section 4.4) and signed assertions (RFC 7523).
//!
//! A token is fetched when it is first needed, kept until shortly before it expires, and fetched again when the secret
//! behind it changes. One request at a time asks; others wait for it. The secret goes into the `Authorization` header
//! first; a server that refuses this gets it in the body, and what worked is remembered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request};
use model::Clock;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::form_urlencoded;

use crate::client::{Client, base64};
use crate::config::{ClientConfig, GrantType, OAuth2Config};
use crate::jwt::Assertion;

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Longest answer of a token server.
const ANSWER_LEN_BYTES_MAX: usize = 1 << 20;
/// A token is not used this shortly before it expires.
const EARLY: Duration = Duration::from_secs(10);
/// A token server may take this long; the request that needs the token often has less.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Tokens for one configuration.
pub(crate) struct Tokens {
    config: OAuth2Config,
    client: Client,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    secret: String,
    token: Option<Token>,
    secret_in_body: Option<bool>,
}

#[derive(Clone)]
struct Token {
    authorization: HeaderValue,
    expires: Option<Instant>,
}

impl Tokens {
    /// # Errors
    /// When the settings of the token server's client cannot be used.
    pub(crate) fn new(config: OAuth2Config, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let own =
            ClientConfig { tls: config.tls.clone(), proxy: config.proxy.clone(), ..ClientConfig::default() };
        Ok(Self { client: Client::new(own, clock.clone())?, config, clock, state: Mutex::default() })
    }

    /// The `Authorization` header that is good now.
    ///
    /// # Errors
    /// Why there is no token.
    pub(crate) async fn authorization(
        &self,
        user_agent: Option<&HeaderValue>,
    ) -> Result<HeaderValue, String> {
        let mut state = self.state.lock().await;
        let source = match &self.config.grant {
            GrantType::ClientCredentials { secret } => secret,
            GrantType::JwtBearer { key, .. } => key,
        };
        let secret = match source {
            Some(source) => {
                source.read().await.map_err(|e| format!("unable to read oauth2 client secret: {e}"))?
            }
            None => String::new(),
        };
        if state.secret != secret {
            state.token = None;
            state.secret = secret;
        }
        if let Some(token) = &state.token
            && token.expires.is_none_or(|e| Instant::now() + EARLY < e)
        {
            return Ok(token.authorization.clone());
        }
        let fetched = tokio::time::timeout(TIMEOUT, self.fetch(&mut state, user_agent)).await;
        let token =
            fetched.map_err(|_| "oauth2: cannot fetch token: context deadline exceeded".to_owned())??;
        let authorization = token.authorization.clone();
        state.token = Some(token);
        Ok(authorization)
    }

    async fn fetch(&self, state: &mut State, user_agent: Option<&HeaderValue>) -> Result<Token, String> {
        let scope = self.config.scopes.join(" ");
        match &self.config.grant {
            GrantType::JwtBearer { key_id, algorithm, issuer, audience, claims, .. } => {
                let or = |text: &str, other: &str| {
                    if text.is_empty() { other.to_owned() } else { text.to_owned() }
                };
                let assertion = Assertion {
                    issuer: &or(issuer, &self.config.client_id),
                    subject: &self.config.client_id,
                    audience: &or(audience, &self.config.token_url),
                    scope: &scope,
                    claims,
                    key_id,
                    algorithm: *algorithm,
                }
                .sign(&state.secret, self.clock.now_ms())?;
                let mut form = vec![
                    ("grant_type".to_owned(), JWT_BEARER.to_owned()),
                    ("assertion".to_owned(), assertion),
                ];
                self.add_parameters(&mut form, &scope)?;
                let (_, token) = self.ask(&form, None, user_agent, Form::Assertion).await.map_err(|e| {
                    if e.starts_with("oauth2: ") { e } else { format!("oauth2: cannot fetch token: {e}") }
                })?;
                Ok(token)
            }
            GrantType::ClientCredentials { .. } => {
                let mut form = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
                self.add_parameters(&mut form, &scope)?;
                self.with_secret(form, state, user_agent).await
            }
        }
    }

    fn add_parameters(&self, form: &mut Vec<(String, String)>, scope: &str) -> Result<(), String> {
        if !scope.is_empty() {
            form.push(("scope".into(), scope.into()));
        }
        for (name, value) in &self.config.endpoint_params {
            match form.iter_mut().find(|(n, _)| n == name) {
                // Some servers want another grant type than the standard's.
                Some((_, v)) if name == "grant_type" => v.clone_from(value),
                Some(_) => return Err(format!("oauth2: cannot overwrite parameter {name:?}")),
                None => form.push((name.clone(), value.clone())),
            }
        }
        form.sort();
        Ok(())
    }

    async fn with_secret(
        &self,
        form: Vec<(String, String)>,
        state: &mut State,
        user_agent: Option<&HeaderValue>,
    ) -> Result<Token, String> {
        let encode = |s: &str| form_urlencoded::byte_serialize(s.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encode(&self.config.client_id), encode(&state.secret));
        let header = format!("Basic {}", base64(pair.as_bytes()));
        let in_body = || {
            let mut form = form.clone();
            for (name, value) in [("client_id", &self.config.client_id), ("client_secret", &state.secret)] {
                if !value.is_empty() {
                    form.push((name.into(), value.clone()));
                }
            }
            form.sort();
            form
        };
        let result = match state.secret_in_body {
            Some(true) => {
                self.ask(&in_body(), None, user_agent, Form::Standard).await.map(|(_, t)| (true, t))
            }
            Some(false) => {
                self.ask(&form, Some(&header), user_agent, Form::Standard).await.map(|(_, t)| (false, t))
            }
            None => match self.ask(&form, Some(&header), user_agent, Form::Standard).await {
                Ok((_, token)) => Ok((false, token)),
                Err(_) => {
                    self.ask(&in_body(), None, user_agent, Form::Standard).await.map(|(_, t)| (true, t))
                }
            },
        };
        let (in_body, token) = result?;
        state.secret_in_body = Some(in_body);
        Ok(token)
    }

    async fn ask(
        &self,
        form: &[(String, String)],
        authorization: Option<&str>,
        user_agent: Option<&HeaderValue>,
        kind: Form,
    ) -> Result<((), Token), String> {
        let body: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self
            .config
            .token_url
            .parse()
            .map_err(|e| format!("token_url {:?}: {e}", self.config.token_url))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(agent) = user_agent {
            headers.insert(USER_AGENT, agent.clone());
        }
        if let Some(value) = authorization {
            let mut value = HeaderValue::try_from(value).map_err(|e| e.to_string())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // The client of a token server has no token server of its own, but the compiler cannot see that the calls end.
        let response = Box::pin(self.client.send(request)).await.map_err(|e| e.to_string())?;
        let status = response.status();
        let content_type =
            response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let body = crate::body::collect_at_most(response.into_body(), ANSWER_LEN_BYTES_MAX)
            .await
            .map_err(|e| format!("oauth2: cannot fetch token: {e}"))?;
        let answer = Answer::parse(&body, &content_type, kind);
        let refused = || {
            let reason = status.canonical_reason().unwrap_or_default();
            format!(
                "oauth2: cannot fetch token: {} {reason}\nResponse: {}",
                status.as_u16(),
                String::from_utf8_lossy(&body)
            )
        };
        let answer = match answer {
            Ok(answer) if !answer.error.is_empty() && kind == Form::Standard => return Err(answer.refusal()),
            _ if !status.is_success() => return Err(refused()),
            other => other?,
        };
        if answer.access_token.is_empty() && kind == Form::Standard {
            return Err("oauth2: server response missing access_token".into());
        }
        answer.token().map(|t| ((), t))
    }
}

/// How an answer is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// With the standard's errors, as JSON or as a query string.
    Standard,
    /// Of an assertion: JSON, and the status decides.
    Assertion,
}

#[derive(Default)]
struct Answer {
    access_token: String,
    token_type: String,
    expires_in: i64,
    error: String,
    description: String,
    uri: String,
}

impl Answer {
    fn parse(body: &[u8], content_type: &str, kind: Form) -> Result<Self, String> {
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind == Form::Standard
            && matches!(media.as_str(), "application/x-www-form-urlencoded" | "text/plain")
        {
            let mut out = Self::default();
            for (name, value) in form_urlencoded::parse(body) {
                out.set(&name, value.into_owned());
            }
            return Ok(out);
        }
        let json: Value = serde_json::from_slice(body).map_err(|e| match kind {
            Form::Standard => format!("oauth2: cannot parse json: {e}"),
            Form::Assertion => format!("oauth2: cannot fetch token: {e}"),
        })?;
        let mut out = Self::default();
        for (name, value) in json.as_object().into_iter().flatten() {
            // Some servers write numbers as strings.
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out.set(name, if value.is_null() { String::new() } else { text });
        }
        Ok(out)
    }

    fn set(&mut self, name: &str, value: String) {
        match name {
            "access_token" => self.access_token = value,
            "token_type" => self.token_type = value,
            "expires_in" => self.expires_in = value.parse().unwrap_or(0),
            "error" => self.error = value,
            "error_description" => self.description = value,
            "error_uri" => self.uri = value,
            _ => {}
        }
    }

    fn refusal(&self) -> String {
        let mut text = format!("oauth2: {:?}", self.error);
        for more in [&self.description, &self.uri] {
            if !more.is_empty() {
                text.push_str(&format!(" {more:?}"));
            }
        }
        text
    }

    fn token(&self) -> Result<Token, String> {
        let kind = match self.token_type.to_ascii_lowercase().as_str() {
            "" | "bearer" => "Bearer",
            "mac" => "MAC",
            "basic" => "Basic",
            _ => &self.token_type,
        };
        let mut authorization = HeaderValue::try_from(format!("{kind} {}", self.access_token))
            .map_err(|_| "oauth2: the token holds bytes that a header cannot carry".to_owned())?;
        authorization.set_sensitive(true);
        let lifetime = u64::try_from(self.expires_in).ok().filter(|s| *s > 0);
        let expires = lifetime.map(|s| Instant::now() + Duration::from_secs(s.min(u64::from(u32::MAX))));
        Ok(Token { authorization, expires })
    }
}
