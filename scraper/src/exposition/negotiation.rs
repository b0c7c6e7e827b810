//! Which format a target is asked for, and which one it answered with.

use model::labels::Quoted;

use crate::config::{EscapingScheme, ScrapeProtocol};

use super::Format;

/// A format of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyFormat {
    /// Lines of text.
    Text(Format),
    /// `MetricFamily` messages, each after its length.
    Protobuf,
}

/// Formats there are, and one: the quality of the first in an `Accept` header, in tenths.
const WEIGHT_OF_FIRST: usize = 6;

/// The `Accept` header for `protocols`, the most wanted first.
#[must_use]
pub fn accept_header(protocols: &[ScrapeProtocol], escaping: EscapingScheme) -> String {
    let mut out = String::new();
    let mut weight = WEIGHT_OF_FIRST;
    for p in protocols {
        out.push_str(match p {
            ScrapeProtocol::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            ScrapeProtocol::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            ScrapeProtocol::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
            ScrapeProtocol::PrometheusText0_0_4 => "text/plain;version=0.0.4",
            ScrapeProtocol::PrometheusText1_0_0 => "text/plain;version=1.0.0",
        });
        if matches!(p, ScrapeProtocol::OpenMetricsText1_0_0 | ScrapeProtocol::PrometheusText1_0_0) {
            out.push_str(";escaping=");
            out.push_str(escaping.as_str());
        }
        out.push_str(&format!(";q=0.{weight},"));
        weight = weight.saturating_sub(1);
    }
    out.push_str(&format!("*/*;q=0.{weight}"));
    out
}

/// The format of an answer.
///
/// # Errors
/// When its `Content-Type` names no known format and there is no fallback.
pub fn format_of(content_type: &str, fallback: Option<ScrapeProtocol>) -> Result<BodyFormat, String> {
    let problem = if content_type.is_empty() {
        "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target"
            .to_owned()
    } else {
        match media_type(content_type) {
            Ok(media_type) => match media_type.as_str() {
                "application/openmetrics-text" => return Ok(BodyFormat::Text(Format::OpenMetrics)),
                "application/vnd.google.protobuf" => return Ok(BodyFormat::Protobuf),
                "text/plain" => return Ok(BodyFormat::Text(Format::Text)),
                _ => format!(
                    "received unsupported Content-Type {} and no fallback_scrape_protocol specified for target",
                    Quoted(content_type)
                ),
            },
            Err(why) => format!(
                "cannot parse Content-Type {} and no fallback_scrape_protocol for target\n{why}",
                Quoted(content_type)
            ),
        }
    };
    match fallback {
        Some(ScrapeProtocol::OpenMetricsText0_0_1 | ScrapeProtocol::OpenMetricsText1_0_0) => {
            Ok(BodyFormat::Text(Format::OpenMetrics))
        }
        Some(ScrapeProtocol::PrometheusText0_0_4 | ScrapeProtocol::PrometheusText1_0_0) => {
            Ok(BodyFormat::Text(Format::Text))
        }
        Some(ScrapeProtocol::PrometheusProto) => Ok(BodyFormat::Protobuf),
        None => Err(problem),
    }
}

/// Type and subtype in lower case; parameters are checked and left out.
///
/// Spec: RFC 9110, section 8.3.1.
fn media_type(content_type: &str) -> Result<String, &'static str> {
    let (media_type, mut rest) = content_type.split_once(';').unwrap_or((content_type, ""));
    let media_type = media_type.trim().to_ascii_lowercase();
    let (main, sub) = match media_type.split_once('/') {
        Some((main, sub)) => (main, Some(sub)),
        None => (media_type.as_str(), None),
    };
    if main.is_empty() {
        return Err("mime: no media type");
    }
    if !is_token(main) {
        return Err("mime: unexpected content after media type");
    }
    match sub {
        Some("") => return Err("mime: expected token after slash"),
        Some(sub) if !is_token(sub) => return Err("mime: unexpected content after media subtype"),
        _ => {}
    }
    while !rest.trim().is_empty() {
        rest = parameter(rest.trim_start()).ok_or("mime: invalid media parameter")?;
    }
    Ok(media_type)
}

/// Passes over one parameter and the semicolon behind it.
fn parameter(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    if !is_token(name.trim_end()) {
        return None;
    }
    let value = value.trim_start();
    let rest = if let Some(quoted) = value.strip_prefix('"') {
        let mut escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        &quoted[end + 1..]
    } else {
        let end = value.find(|c: char| !is_token_char(c)).unwrap_or(value.len());
        if end == 0 {
            return None;
        }
        &value[end..]
    };
    let rest = rest.trim_start();
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(';') }
}

fn is_token(s: &str) -> bool {
    !s.is_empty() && s.chars().all(is_token_char)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: BodyFormat = BodyFormat::Text(Format::Text);
    const OPEN_METRICS: BodyFormat = BodyFormat::Text(Format::OpenMetrics);
    const PROTOBUF: &str =
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";

    #[test]
    fn asks_as_prometheus_does() {
        let text = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(accept_header(&ScrapeProtocol::DEFAULT, EscapingScheme::AllowUtf8), text);
        assert_eq!(
            accept_header(&ScrapeProtocol::PROTO_FIRST, EscapingScheme::Underscores),
            format!(
                "{PROTOBUF};q=0.6,application/openmetrics-text;version=1.0.0;escaping=underscores;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=underscores;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
            )
        );
    }

    #[test]
    fn knows_the_formats_it_reads() {
        for (content_type, format) in [
            ("text/plain; version=0.0.4; charset=utf-8", TEXT),
            ("Text/Plain;", TEXT),
            ("text/plain; a=\"x;\\\"y\"", TEXT),
            ("application/openmetrics-text;version=1.0.0", OPEN_METRICS),
            (PROTOBUF, BodyFormat::Protobuf),
        ] {
            assert_eq!(format_of(content_type, None), Ok(format), "{content_type}");
        }
        for content_type in ["", "text/html", "text/plain; charset", "/", ";"] {
            let fallback = Some(ScrapeProtocol::PrometheusText0_0_4);
            assert_eq!(format_of(content_type, fallback), Ok(TEXT), "{content_type}");
        }
        assert_eq!(format_of("", Some(ScrapeProtocol::PrometheusProto)), Ok(BodyFormat::Protobuf));
    }

    #[test]
    fn says_what_is_wrong_with_a_type() {
        for (content_type, error) in [
            (
                "",
                "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for \
                 target",
            ),
            (
                "text/html",
                "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target",
            ),
            (
                "text/plain; charset",
                "cannot parse Content-Type \"text/plain; charset\" and no fallback_scrape_protocol for target\n\
                 mime: invalid media parameter",
            ),
            (
                ";",
                "cannot parse Content-Type \";\" and no fallback_scrape_protocol for target\nmime: no media type",
            ),
        ] {
            assert_eq!(format_of(content_type, None), Err(error.to_owned()));
        }
    }
}
