//! The body of a request: `POST /api/v2/alerts` of the Alertmanager.

use std::sync::Arc;

use chrono::DateTime;
use model::Labels;
use serde_json::{Map, Value};

use super::Alert;

/// A JSON list of alerts.
pub(super) fn payload(alerts: &[Arc<Alert>]) -> Vec<u8> {
    let list = alerts.iter().map(|alert| Value::Object(object(alert))).collect();
    Value::Array(list).to_string().into_bytes()
}

fn object(alert: &Alert) -> Map<String, Value> {
    let mut out = Map::new();
    if !alert.annotations.is_empty() {
        out.insert("annotations".into(), labels(&alert.annotations));
    }
    out.insert("endsAt".into(), time(alert.ends_at_ms).into());
    out.insert("startsAt".into(), time(alert.starts_at_ms).into());
    if !alert.generator_url.is_empty() {
        out.insert("generatorURL".into(), (*alert.generator_url).into());
    }
    out.insert("labels".into(), labels(&alert.labels));
    out
}

fn labels(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect())
}

/// RFC 3339 with milliseconds.
fn time(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::UNIX_EPOCH);
    time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_written_as_the_api_wants_them() {
        let alert = |annotations: Labels| Alert {
            labels: Labels::from_pairs([("alertname", "A\"<"), ("b", "ü")]),
            annotations,
            starts_at_ms: 1_700_000_000_000,
            ends_at_ms: 1_700_000_240_050,
            generator_url: "http://h/graph?g0.expr=up&g0.tab=1".into(),
        };
        let alerts =
            [Arc::new(alert(Labels::empty())), Arc::new(alert(Labels::from_pairs([("text", "a\nb")])))];
        let text = String::from_utf8(payload(&alerts)).unwrap();
        let parsed: Value = serde_json::from_str(&text).unwrap();
        let one = serde_json::json!({
            "endsAt": "2023-11-14T22:17:20.050Z",
            "startsAt": "2023-11-14T22:13:20.000Z",
            "generatorURL": "http://h/graph?g0.expr=up&g0.tab=1",
            "labels": {"alertname": "A\"<", "b": "ü"},
        });
        let mut two = one.clone();
        two["annotations"] = serde_json::json!({"text": "a\nb"});
        assert_eq!(parsed, serde_json::json!([one, two]));
    }
}
