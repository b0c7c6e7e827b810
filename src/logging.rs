//! The log: one line per message on standard error, in logfmt or JSON, with Prometheus's keys.

use std::fmt::{self, Write as _};

use model::Clock;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{GeneralFlags, LogFormat, LogLevel};

/// Sends warnings to standard error from now on, for commands that are no nodes.
pub fn init_for_commands() {
    set(LogLevel::Warn, LogFormat::Logfmt);
}

/// Sends log messages to standard error from now on. A second call changes nothing.
pub fn init(flags: &GeneralFlags) {
    set(flags.log_level, flags.log_format);
}

fn set(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
    };
    // The libraries' own chatter below warnings tells an operator nothing.
    let quiet = "hyper=warn,hyper_util=warn,h2=warn,rustls=warn,kube=warn,tower=warn";
    let filter = tracing_subscriber::EnvFilter::new(format!("{level},{quiet}"));
    let format = Line { json: format == LogFormat::Json };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).event_format(format);
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_err() {
        tracing::debug!("the log is already set up");
    }
}

struct Line {
    json: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _ctx: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut pairs = vec![
            ("time", timestamp(model::SystemClock::new().now_ms())),
            ("level", event.metadata().level().to_string()),
            ("source", event.metadata().target().to_owned()),
        ];
        let mut fields = Fields { message: String::new(), rest: Vec::new() };
        event.record(&mut fields);
        pairs.push(("msg", fields.message));
        pairs.extend(fields.rest);
        if self.json { json(&mut out, &pairs) } else { logfmt(&mut out, &pairs) }
    }
}

struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, text: String) {
        if field.name() == "message" { self.message = text } else { self.rest.push((field.name(), text)) }
    }
}

fn logfmt(out: &mut Writer<'_>, pairs: &[(&str, String)]) -> fmt::Result {
    for (i, (key, value)) in pairs.iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        let plain =
            !value.is_empty() && value.chars().all(|c| c > ' ' && !matches!(c, '"' | '=' | '\\' | '\u{7f}'));
        if plain {
            write!(out, "{separator}{key}={value}")?;
        } else {
            write!(out, "{separator}{key}={}", model::labels::Quoted(value))?;
        }
    }
    writeln!(out)
}

fn json(out: &mut Writer<'_>, pairs: &[(&str, String)]) -> fmt::Result {
    for (i, (key, value)) in pairs.iter().enumerate() {
        let separator = if i == 0 { "{" } else { "," };
        write!(out, "{separator}\"{key}\":\"{}\"", JsonText(value))?;
    }
    writeln!(out, "}}")
}

struct JsonText<'a>(&'a str);

impl fmt::Display for JsonText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if (c as u32) < 0x20 => write!(f, "\\u{:04x}", c as u32)?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(ms: i64) -> String {
    // Days since the epoch to a civil date: Howard Hinnant's `civil_from_days`.
    let days = ms.div_euclid(86_400_000);
    let rest = ms.rem_euclid(86_400_000);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_123, "2000-02-29T00:00:00.123Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(timestamp(ms), text);
        }
    }

    #[test]
    fn values_are_quoted_when_they_must_be() {
        let pairs = [("level", "INFO".to_owned()), ("msg", "a \"b\"\n".to_owned()), ("e", String::new())];
        let mut out = String::new();
        logfmt(&mut Writer::new(&mut out), &pairs).expect("writes");
        assert_eq!(out, "level=INFO msg=\"a \\\"b\\\"\\n\" e=\"\"\n");
        out.clear();
        json(&mut Writer::new(&mut out), &pairs).expect("writes");
        assert_eq!(out, "{\"level\":\"INFO\",\"msg\":\"a \\\"b\\\"\\u000a\",\"e\":\"\"}\n");
    }
}
