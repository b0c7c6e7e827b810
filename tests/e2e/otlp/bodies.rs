//! OTLP requests in JSON, made up by a seed: every type, colliding and foreign names, values of all types, exemplars, and now and then
//! something that is refused.

use serde_json::{Map, Value, json};

/// Numbers that a seed gives.
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) ^ (self.0 >> 11 & 0x7ff)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'x>(&mut self, list: &[&'x str]) -> &'x str {
        list[self.below(list.len() as u64) as usize]
    }
}

const KEYS: [&str; 16] = [
    "http.method",
    "http_method",
    "http-method",
    "le",
    "_under",
    "__double__",
    "a..b",
    "1st",
    "größe",
    "job",
    "instance",
    "otel_scope_version",
    "x",
    "quantile",
    "service.name",
    "unit/s",
];
const NAMES: [&str; 14] = [
    "http.server.duration",
    "requests",
    "requests_total",
    "system.memory.usage",
    "ratio",
    "queue.length_seconds",
    "9lives",
    "größe.der.datei",
    "a__b..c",
    "total",
    "use",
    "bytes",
    "cpu.time",
    "_hidden",
];
const UNITS: [&str; 14] =
    ["", "s", "By", "1", "{request}", "By/s", "m/s", "%", "ms", "Cel", "{x}/min", "foo bar", "1/s", "s/{a}"];

fn value(dice: &mut Dice, depth: u64) -> Value {
    let nested = |n: u64, dice: &mut Dice| -> Vec<Value> { (0..n).map(|_| value(dice, depth + 1)).collect() };
    match dice.below(if depth > 2 { 7 } else { 10 }) {
        0 => json!({"intValue": (dice.next() as i64 - 1_000_000_000).to_string()}),
        1 => json!({"boolValue": dice.one_in(2)}),
        2 => {
            let list = [
                json!(0.1),
                json!(1e21),
                json!(-2.5e-7),
                json!(3.0),
                json!("NaN"),
                json!("-Infinity"),
                json!(1e-6),
            ];
            json!({"doubleValue": list[dice.below(list.len() as u64) as usize]})
        }
        3 => json!({"bytesValue": dice.pick(&["", "AP8=", "YWJjZA=="])}),
        4 => json!({}),
        7 => {
            let n = dice.below(4);
            json!({"arrayValue": {"values": nested(n, dice)}})
        }
        8 => {
            let n = dice.below(4);
            let pairs: Vec<Value> = nested(n, dice)
                .into_iter()
                .map(|v| json!({"key": dice.pick(&["b", "a", "c\"<\u{2028}"]), "value": v}))
                .collect();
            json!({"kvlistValue": {"values": pairs}})
        }
        _ => json!({"stringValue": dice.pick(&["GET", "POST", "", "a\"b\\c\n", "ü", "x;y"])}),
    }
}

/// Different attributes: what has one key twice is no OTLP.
fn attributes(dice: &mut Dice, most: u64) -> Value {
    let mut keys: Vec<&str> = Vec::new();
    for _ in 0..dice.below(most + 1) {
        let key = dice.pick(&KEYS);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys.into_iter().map(|key| json!({"key": key, "value": value(dice, 0)})).collect()
}

fn number(dice: &mut Dice) -> f64 {
    match dice.below(8) {
        0 => 0.0,
        1 => -1.5,
        2 => 1e300,
        3 => dice.below(1000) as f64 / 7.0,
        _ => dice.below(1000) as f64,
    }
}

/// Exemplars in the order of their values, as buckets have them.
fn exemplars(dice: &mut Dice, t_ms: u64) -> Value {
    let mut values: Vec<u64> = (0..dice.below(4)).map(|_| dice.below(12)).collect();
    values.sort_unstable();
    let mut out = Vec::new();
    for (i, v) in values.iter().enumerate() {
        let mut e = Map::new();
        if dice.one_in(2) {
            e.insert("asInt".into(), json!(v.to_string()));
        } else {
            e.insert("asDouble".into(), json!(*v as f64 + 0.25));
        }
        e.insert("timeUnixNano".into(), json!(((t_ms + i as u64) * 1_000_000).to_string()));
        if !dice.one_in(3) {
            e.insert("traceId".into(), json!(format!("{:032x}", dice.next())));
            e.insert("spanId".into(), json!(format!("{:016x}", dice.below(2) * 77)));
        }
        match dice.below(4) {
            0 => drop(e.insert("filteredAttributes".into(), attributes(dice, 3))),
            1 => {
                let long = json!([{"key": "long", "value": {"stringValue": "x".repeat(130)}}]);
                e.insert("filteredAttributes".into(), long);
            }
            _ => {}
        }
        out.push(Value::Object(e));
    }
    Value::Array(out)
}

/// What all points have.
fn point(dice: &mut Dice, i: u64, t_ms: u64) -> Map<String, Value> {
    let mut p = Map::new();
    let Value::Array(mut list) = attributes(dice, 5) else { unreachable!("a list") };
    // Each point is a series of its own.
    list.push(json!({"key": "point", "value": {"intValue": i}}));
    p.insert("attributes".into(), list.into());
    p.insert("timeUnixNano".into(), json!((t_ms * 1_000_000 + 7).to_string()));
    if dice.one_in(2) {
        p.insert("startTimeUnixNano".into(), json!((t_ms - 3_000_000) * 1_000_000));
    }
    if dice.one_in(10) {
        p.insert("flags".into(), json!(1));
    }
    p
}

fn number_point(dice: &mut Dice, i: u64, t_ms: u64) -> Value {
    let mut p = point(dice, i, t_ms);
    match dice.below(5) {
        0 => {}
        1 => drop(p.insert("asInt".into(), json!(dice.below(1000).to_string()))),
        _ => drop(p.insert("asDouble".into(), json!(number(dice)))),
    }
    p.insert("exemplars".into(), exemplars(dice, t_ms));
    p.into()
}

fn histogram_point(dice: &mut Dice, i: u64, t_ms: u64) -> Value {
    let mut p = point(dice, i, t_ms);
    let bounds: Vec<f64> = [0.5, 1.0, 2.5, 5.0, 10.0].into_iter().take(dice.below(6) as usize).collect();
    let empty = dice.one_in(8);
    let counts: Vec<u64> =
        (0..=bounds.len()).map(|_| if empty || dice.one_in(3) { 0 } else { dice.below(9) }).collect();
    p.insert("count".into(), json!(counts.iter().sum::<u64>().to_string()));
    if !dice.one_in(4) {
        p.insert("sum".into(), json!(number(dice)));
    }
    p.insert("bucketCounts".into(), counts.iter().map(|n| json!(n.to_string())).collect());
    p.insert("explicitBounds".into(), json!(bounds));
    p.insert("exemplars".into(), exemplars(dice, t_ms));
    p.into()
}

fn exponential_point(dice: &mut Dice, i: u64, t_ms: u64) -> Value {
    let mut p = point(dice, i, t_ms);
    let mut total = 0;
    for sign in ["positive", "negative"] {
        if dice.one_in(3) {
            continue;
        }
        let counts: Vec<u64> =
            (0..dice.below(14)).map(|_| if dice.one_in(2) { 0 } else { dice.below(5) }).collect();
        total += counts.iter().sum::<u64>();
        p.insert(sign.into(), json!({"offset": dice.below(40) as i64 - 20, "bucketCounts": counts}));
    }
    let zero = dice.below(3);
    p.insert("zeroCount".into(), json!(zero));
    p.insert("count".into(), json!((total + zero).to_string()));
    p.insert("sum".into(), json!(number(dice)));
    p.insert("scale".into(), json!([-4, 0, 3, 8, 9, 11][dice.below(6) as usize]));
    p.insert("exemplars".into(), exemplars(dice, t_ms));
    p.into()
}

fn summary_point(dice: &mut Dice, i: u64, t_ms: u64) -> Value {
    let mut p = point(dice, i, t_ms);
    p.insert("count".into(), json!(dice.below(100).to_string()));
    p.insert("sum".into(), json!(number(dice)));
    let quantiles: Vec<Value> = [0.0, 0.5, 0.99, 1.0]
        .into_iter()
        .take(dice.below(5) as usize)
        .map(|q| json!({"quantile": q, "value": number(dice)}))
        .collect();
    p.insert("quantileValues".into(), quantiles.into());
    p.into()
}

/// A metric whose name is not met again in the body, so that no two samples have one place.
fn metric(dice: &mut Dice, n: u64, t_ms: u64) -> Value {
    let points = |make: fn(&mut Dice, u64, u64) -> Value, dice: &mut Dice| -> Value {
        let count = if dice.one_in(12) { 0 } else { 1 + dice.below(3) };
        (0..count).map(|i| make(dice, i, t_ms + i * 1000)).collect()
    };
    let temporality = if dice.one_in(2) { json!(2) } else { json!("AGGREGATION_TEMPORALITY_CUMULATIVE") };
    let (kind, data) = match dice.below(5) {
        0 => ("gauge", json!({"dataPoints": points(number_point, dice)})),
        1 => {
            let monotonic = dice.one_in(2);
            let points = points(number_point, dice);
            (
                "sum",
                json!({"dataPoints": points, "isMonotonic": monotonic, "aggregationTemporality": temporality}),
            )
        }
        2 => {
            let points = points(histogram_point, dice);
            ("histogram", json!({"dataPoints": points, "aggregationTemporality": temporality}))
        }
        3 => {
            let points = points(exponential_point, dice);
            ("exponentialHistogram", json!({"dataPoints": points, "aggregationTemporality": temporality}))
        }
        _ => ("summary", json!({"dataPoints": points(summary_point, dice)})),
    };
    let name = format!(
        "{}.m{n}{}",
        dice.pick(&NAMES),
        dice.pick(&["", ".total", "_seconds", ".ratio", "_bytes_per_second"])
    );
    let name = if dice.one_in(3) { format!("m{n}.{}", dice.pick(&NAMES)) } else { name };
    let mut metric =
        json!({"name": name, "unit": dice.pick(&UNITS), "description": dice.pick(&["", "What it is."])});
    metric[kind] = data;
    metric
}

/// A body of one section. One in a few has something that is refused.
pub fn body(dice: &mut Dice, section: usize, t_ms: u64) -> Value {
    let mut n = 0;
    let mut resources = Vec::new();
    for r in 0..1 + dice.below(2) {
        let Value::Array(mut resource) = attributes(dice, 4) else { unreachable!("a list") };
        let text = |key: &str, value: String| json!({"key": key, "value": {"stringValue": value}});
        resource.retain(|a| a["key"] != "service.name");
        if !dice.one_in(5) {
            resource.push(text("service.name", format!("s{section}-{t_ms}-{r}")));
            if dice.one_in(2) {
                resource.push(text("service.namespace", "ns".into()));
            }
        }
        if dice.one_in(2) {
            resource.push(text("service.instance.id", format!("i{r}")));
        }
        if dice.one_in(2) {
            resource.push(text("host.name", "h".into()));
        }
        let mut scopes = Vec::new();
        for s in 0..1 + dice.below(2) {
            let metrics: Vec<Value> = (0..1 + dice.below(5))
                .map(|_| {
                    n += 1;
                    metric(dice, n, t_ms)
                })
                .collect();
            let scope = json!({"name": dice.pick(&["", "lib"]), "version": dice.pick(&["", "1.2"]), "attributes": attributes(dice, 2)});
            scopes.push(json!({"scope": scope, "schemaUrl": if s == 0 { "" } else { "https://x" }, "metrics": metrics}));
        }
        if dice.one_in(8) {
            let metrics = &mut scopes[0]["metrics"];
            metrics[0] = match dice.below(6) {
                0 => {
                    json!({"name": "delta", "sum": {"dataPoints": [number_point(dice, 0, t_ms)], "aggregationTemporality": 1}})
                }
                1 => json!({"name": "...", "gauge": {"dataPoints": [number_point(dice, 0, t_ms)]}}),
                2 => json!({"name": "nothing"}),
                3 => json!({"name": "coarse", "exponentialHistogram": {"aggregationTemporality": 2,
                    "dataPoints": [{"scale": -5, "timeUnixNano": (t_ms * 1_000_000).to_string()}]}}),
                4 => {
                    json!({"name": "future", "gauge": {"dataPoints": [number_point(dice, 0, t_ms + 4_000_000)]}})
                }
                _ => json!({"name": "lies", "exponentialHistogram": {"aggregationTemporality": 2,
                    "dataPoints": [{"count": 7, "timeUnixNano": (t_ms * 1_000_000).to_string(), "positive": {"bucketCounts": [1, 2]}}]}}),
            };
        }
        resources.push(json!({"resource": {"attributes": resource}, "scopeMetrics": scopes}));
    }
    json!({"resourceMetrics": resources})
}

/// Moves points, and their exemplars, in time: what was sent is sent again, late, early, or the same.
pub fn again(value: &mut Value, nanos: i64, exemplar_nanos: i64) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                match key.as_str() {
                    "timeUnixNano" => {
                        let time: i64 = value.as_str().and_then(|s| s.parse().ok()).expect("a time");
                        *value = json!((time + nanos).to_string());
                    }
                    "exemplars" => again(value, exemplar_nanos, exemplar_nanos),
                    _ => again(value, nanos, exemplar_nanos),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|v| again(v, nanos, exemplar_nanos)),
        _ => {}
    }
}
