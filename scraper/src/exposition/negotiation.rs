//! Which format a target is asked for, and which one it answered with.

use crate::config::{EscapingScheme, ScrapeProtocol};

use super::Format;

/// The `Accept` header for `protocols`, the most wanted first.
///
/// Protobuf is left out: it is not built, so a target must not be led to answer with it.
#[must_use]
pub fn accept_header(protocols: &[ScrapeProtocol], escaping: EscapingScheme) -> String {
    let mut out = String::new();
    let mut weight = 6;
    for p in protocols {
        let media_type = match p {
            ScrapeProtocol::PrometheusProto => continue,
            ScrapeProtocol::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            ScrapeProtocol::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
            ScrapeProtocol::PrometheusText0_0_4 => "text/plain;version=0.0.4",
            ScrapeProtocol::PrometheusText1_0_0 => "text/plain;version=1.0.0",
        };
        out.push_str(media_type);
        if matches!(p, ScrapeProtocol::OpenMetricsText1_0_0 | ScrapeProtocol::PrometheusText1_0_0) {
            out.push_str(";escaping=");
            out.push_str(escaping.as_str());
        }
        out.push_str(&format!(";q=0.{weight},"));
        weight -= 1;
    }
    out.push_str(&format!("*/*;q=0.{weight}"));
    out
}

/// The format of an answer.
///
/// # Errors
/// When its `Content-Type` names no known format and there is no fallback, or the format is not built.
pub fn format_of(content_type: &str, fallback: Option<ScrapeProtocol>) -> Result<Format, String> {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let protobuf = || {
        Err("the target answered in the protobuf format, which is not supported: \
             remove PrometheusProto from its scrape_protocols and fallback_scrape_protocol"
            .to_owned())
    };
    match media_type.as_str() {
        "application/openmetrics-text" => return Ok(Format::OpenMetrics),
        "text/plain" => return Ok(Format::Text),
        "application/vnd.google.protobuf" => return protobuf(),
        _ => {}
    }
    match fallback {
        Some(ScrapeProtocol::OpenMetricsText0_0_1 | ScrapeProtocol::OpenMetricsText1_0_0) => {
            Ok(Format::OpenMetrics)
        }
        Some(ScrapeProtocol::PrometheusText0_0_4 | ScrapeProtocol::PrometheusText1_0_0) => Ok(Format::Text),
        Some(ScrapeProtocol::PrometheusProto) => protobuf(),
        None if media_type.is_empty() => {
            Err("non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol \
                 specified for target"
                .into())
        }
        None => Err(format!(
            "received unsupported Content-Type {content_type:?} and no fallback_scrape_protocol specified for target"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_as_prometheus_does() {
        assert_eq!(
            accept_header(&ScrapeProtocol::DEFAULT, EscapingScheme::AllowUtf8),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
    }

    #[test]
    fn knows_the_formats_it_reads() {
        let text = Some(ScrapeProtocol::PrometheusText0_0_4);
        assert_eq!(format_of("text/plain; version=0.0.4; charset=utf-8", None), Ok(Format::Text));
        assert_eq!(format_of("application/openmetrics-text;version=1.0.0", None), Ok(Format::OpenMetrics));
        assert_eq!(format_of("", text), Ok(Format::Text));
        assert_eq!(format_of("text/html", text), Ok(Format::Text));
        assert!(format_of("", None).is_err_and(|e| e.contains("blank Content-Type")));
        assert!(format_of("text/html", None).is_err_and(|e| e.contains("text/html")));
        let protobuf =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        assert!(format_of(protobuf, text).is_err_and(|e| e.contains("not supported")));
    }
}
