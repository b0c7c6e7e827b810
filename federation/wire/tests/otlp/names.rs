//! Names as they are, and label names in their corners.

use wire::otlp::{Promote, Settings};

use crate::support::{gauge, good, refused, request, text};

#[test]
fn names_as_they_are() {
    let settings = Settings { utf8: true, ..Settings::default() };
    let json = gauge(
        &[text("service.name", "s"), text("host.name", "h")].join(","),
        &[text("b.c", "1"), text("__name__", "x"), text("a b", "2"), text("empty", "")].join(","),
    );
    let rows =
        [r#"g{"a b"="2", "b.c"="1", job="s"} 1000 1"#, r#"target_info{"host.name"="h", job="s"} 1000 1"#];
    assert_eq!(good(&settings, &json).rows, rows);
    let metric = r#"{"name":"a.b","unit":"s","sum":{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{}]}}"#;
    assert_eq!(good(&settings, &request(metric)).rows, [r#"{"a.b_seconds_total"} 0 0"#]);
    let plain = Settings { suffixes: false, ..settings };
    assert_eq!(good(&plain, &request(metric)).rows, [r#"{"a.b"} 0 0"#]);
    let escaped = Settings { suffixes: false, ..Settings::default() };
    assert_eq!(good(&escaped, &request(metric)).rows, ["a_b 0 0"]);
    let twice = [text("x", "1"), text("x", "2")].join(",");
    assert_eq!(refused(&plain, &gauge("", &twice)), "label name \"x\" is not unique: invalid sample");
}

#[test]
fn label_names() {
    let json =
        gauge("", &[text("_a", "1"), text("b..c", "2"), text("1d", "3"), text("__e__", "4")].join(","));
    let rows = |key, keep| {
        let settings = Settings {
            label_name_underscore_sanitization: key,
            label_name_preserve_multiple_underscores: keep,
            ..Settings::default()
        };
        good(&settings, &json).rows.swap_remove(0)
    };
    assert_eq!(rows(true, true), r#"g{__e__="4", b__c="2", key_1d="3", key_a="1"} 1000 1"#);
    assert_eq!(rows(false, true), r#"g{__e__="4", _a="1", b__c="2", key_1d="3"} 1000 1"#);
    assert_eq!(rows(true, false), r#"g{__e__="4", b_c="2", key_1d="3", key_a="1"} 1000 1"#);
}

#[test]
fn names_that_cannot_be_made() {
    let default = Settings::default();
    assert_eq!(refused(&default, &gauge("", &text("", "1"))), "label name is empty");
    assert_eq!(
        refused(&default, &gauge("", &text("..", "1"))),
        "normalization for label name \"..\" resulted in invalid name \"__\""
    );
    // A resource that cannot be named takes its metrics with it, the other resources are gone through.
    let all = Settings { promote: Promote::AllBut(Default::default()), ..default };
    assert_eq!(refused(&all, &gauge(&text("", "1"), "")), "label name is empty");
}
