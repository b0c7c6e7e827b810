//! Answers of the query endpoints, read into values that can be compared.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// Labels by name.
pub type LabelSet = BTreeMap<String, String>;

/// What a server said.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `"status":"error"`.
    Failed {
        /// `errorType`
        kind: String,
        /// `error`
        text: String,
    },
    /// `"status":"success"`.
    Given {
        /// The data.
        data: Data,
        /// `warnings`
        warnings: Vec<String>,
        /// `infos`
        infos: Vec<String>,
    },
}

/// Data of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `scalar`
    Scalar(Point),
    /// `string`
    Text(String),
    /// `vector`, in the order of the answer.
    Vector(Vec<(LabelSet, Point)>),
    /// `matrix`, in the order of the answer.
    Matrix(Vec<(LabelSet, Vec<Point>)>),
}

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Seconds.
    pub timestamp: f64,
    /// The value.
    pub value: Value,
}

/// What a sample carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// Number of observations.
        count: f64,
        /// Their sum.
        sum: f64,
        /// Kind of bounds, lower and upper bound, count.
        buckets: Vec<(i64, f64, f64, f64)>,
    },
}

impl Data {
    /// `resultType`
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Scalar(_) => "scalar",
            Self::Text(_) => "string",
            Self::Vector(_) => "vector",
            Self::Matrix(_) => "matrix",
        }
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Scalar(_) | Self::Text(_) => false,
            Self::Vector(v) => v.is_empty(),
            Self::Matrix(m) => m.is_empty(),
        }
    }
}

/// Reads a body.
///
/// # Errors
/// What in it is not as the HTTP API says.
pub fn read(body: &[u8]) -> Result<Answer, String> {
    let json: Json = serde_json::from_slice(body).map_err(|e| format!("not JSON: {e}"))?;
    match json["status"].as_str() {
        Some("error") => Ok(Answer::Failed {
            kind: text(&json["errorType"])?.to_owned(),
            text: text(&json["error"])?.to_owned(),
        }),
        Some("success") => Ok(Answer::Given {
            data: data(&json["data"])?,
            warnings: texts(&json["warnings"])?,
            infos: texts(&json["infos"])?,
        }),
        other => Err(format!("status is {other:?}")),
    }
}

fn data(json: &Json) -> Result<Data, String> {
    let result = &json["result"];
    let rows = || result.as_array().ok_or_else(|| "result is no list".to_owned());
    Ok(match json["resultType"].as_str() {
        Some("scalar") => Data::Scalar(point(result)?),
        Some("string") => Data::Text(text(&result[1])?.to_owned()),
        Some("vector") => Data::Vector(rows()?.iter().map(instant).collect::<Result<_, _>>()?),
        Some("matrix") => Data::Matrix(rows()?.iter().map(series).collect::<Result<_, _>>()?),
        other => return Err(format!("resultType is {other:?}")),
    })
}

fn instant(row: &Json) -> Result<(LabelSet, Point), String> {
    let point = match (row.get("value"), row.get("histogram")) {
        (Some(v), None) => point(v)?,
        (None, Some(h)) => histogram(h)?,
        _ => return Err(format!("neither value nor histogram, or both: {row}")),
    };
    Ok((labels(&row["metric"])?, point))
}

fn series(row: &Json) -> Result<(LabelSet, Vec<Point>), String> {
    let list = |name: &str| row.get(name).and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut points: Vec<Point> = list("values").iter().map(point).collect::<Result<_, _>>()?;
    for h in list("histograms") {
        points.push(histogram(h)?);
    }
    points.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
    Ok((labels(&row["metric"])?, points))
}

fn labels(json: &Json) -> Result<LabelSet, String> {
    let map = json.as_object().ok_or("metric is no object")?;
    map.iter().map(|(n, v)| Ok((n.clone(), text(v)?.to_owned()))).collect()
}

fn point(json: &Json) -> Result<Point, String> {
    Ok(Point { timestamp: timestamp(json)?, value: Value::Float(number(&json[1])?) })
}

fn timestamp(json: &Json) -> Result<f64, String> {
    json[0].as_f64().ok_or_else(|| format!("no timestamp: {json}"))
}

fn histogram(json: &Json) -> Result<Point, String> {
    let h = &json[1];
    let mut buckets = Vec::new();
    for b in h.get("buckets").and_then(Json::as_array).into_iter().flatten() {
        let kind = b[0].as_i64().ok_or_else(|| format!("no kind of bounds: {b}"))?;
        buckets.push((kind, number(&b[1])?, number(&b[2])?, number(&b[3])?));
    }
    let value = Value::Histogram { count: number(&h["count"])?, sum: number(&h["sum"])?, buckets };
    Ok(Point { timestamp: timestamp(json)?, value })
}

fn number(json: &Json) -> Result<f64, String> {
    let t = text(json)?;
    t.parse().map_err(|_| format!("no number: {t:?}"))
}

fn text(json: &Json) -> Result<&str, String> {
    json.as_str().ok_or_else(|| format!("no string: {json}"))
}

fn texts(json: &Json) -> Result<Vec<String>, String> {
    match json {
        Json::Null => Ok(Vec::new()),
        Json::Array(all) => all.iter().map(|t| Ok(text(t)?.to_owned())).collect(),
        other => Err(format!("no list: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_api_writes() {
        let body = br#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},
            "values":[[2,"NaN"]],"histograms":[[1.5,{"count":"3","sum":"-Inf","buckets":[[0,"1","2","3"]]}]]}]},
            "warnings":["w"]}"#;
        let Ok(Answer::Given { data: Data::Matrix(rows), warnings, infos }) = read(body) else {
            panic!("a matrix");
        };
        assert_eq!((warnings.len(), infos.len(), rows[0].1.len()), (1, 0, 2));
        assert!(matches!(&rows[0].1[0].value, Value::Histogram { sum, .. } if *sum == f64::NEG_INFINITY));
        let body = br#"{"status":"error","errorType":"bad_data","error":"x"}"#;
        assert_eq!(read(body), Ok(Answer::Failed { kind: "bad_data".into(), text: "x".into() }));
        assert!(read(b"<html>").is_err() && read(br#"{"status":"success","data":{}}"#).is_err());
    }
}
