//! Why there is no answer, in the words of Go's `net/http`, which users of Prometheus know from `lastError` and logs.

use std::error::Error as StdError;

use http::Method;
use tokio_rustls::rustls;

/// A request without answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    method: Method,
    url: String,
    reason: String,
}

impl Error {
    pub(crate) fn new(method: &Method, url: &str, reason: impl Into<String>) -> Self {
        Self { method: method.clone(), url: without_password(url), reason: reason.into() }
    }

    /// What was asked for, after redirects, without its password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What happened.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let method = self.method.as_str();
        let (first, rest) = method.split_at(1.min(method.len()));
        write!(f, "{first}{} {:?}: {}", rest.to_ascii_lowercase(), self.url, self.reason)
    }
}

impl StdError for Error {}

/// A URL with `***` for its password.
fn without_password(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(mut url) if url.password().is_some() => {
            // A URL that had a password can have another.
            let _ = url.set_password(Some("***"));
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

/// An operating system's error as Go words it: without number, in lower case.
#[must_use]
pub(crate) fn os_text(e: &std::io::Error) -> String {
    let text = e.to_string();
    let text = text.rfind(" (os error ").map_or(text.as_str(), |i| &text[..i]);
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect())
}

/// What to say of an error and its causes.
pub(crate) fn reason(e: &(dyn StdError + 'static)) -> String {
    let mut next = Some(e);
    while let Some(cause) = next {
        if let Some(known) = known_reason(cause) {
            return known;
        }
        next = cause.source();
    }
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

fn known_reason(e: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(e) = e.downcast_ref::<crate::connect::ConnectError>() {
        return Some(e.to_string());
    }
    if let Some(e) = e.downcast_ref::<rustls::Error>() {
        return Some(crate::trust::error_text(e));
    }
    if let Some(e) = e.downcast_ref::<hyper::Error>() {
        if e.is_incomplete_message() {
            return Some(if e.source().is_some() { "unexpected EOF".into() } else { "EOF".into() });
        }
        if e.is_parse() {
            return Some("net/http: HTTP/1.x transport connection broken: malformed HTTP response".into());
        }
        return None;
    }
    let io = e.downcast_ref::<std::io::Error>()?;
    if let Some(inner) = io.get_ref() {
        return known_reason(inner);
    }
    match io.kind() {
        std::io::ErrorKind::UnexpectedEof => Some("EOF".into()),
        _ if io.raw_os_error().is_some() => Some(format!("read: {}", os_text(io))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_go_words_them() {
        let e = Error::new(&Method::GET, "http://u:p@a/x", "EOF");
        assert_eq!(e.to_string(), "Get \"http://u:***@a/x\": EOF");
        let refused = std::io::Error::from_raw_os_error(111);
        assert_eq!(os_text(&refused), "connection refused");
    }
}
