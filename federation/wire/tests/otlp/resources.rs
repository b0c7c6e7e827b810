//! What resources and scopes give their series, and `target_info`.

use std::collections::HashSet;

use wire::otlp::{Promote, Settings, Stop};

use crate::support::{Kept, good, run, text};

fn resource() -> String {
    [
        text("service.name", "api"),
        text("service.namespace", "shop"),
        text("service.instance.id", "7"),
        text("host.name", "h"),
        text("a-b", "1"),
        text("a.b", "2"),
    ]
    .join(",")
}

fn gauge(resource: &str, attributes: &str) -> String {
    crate::support::gauge(resource, attributes)
}

fn names(list: &[&str]) -> HashSet<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn check(settings: &Settings, json: &str, expect: &[&str]) {
    assert_eq!(good(settings, json).rows, expect);
}

#[test]
fn job_instance_and_target_info() {
    check(
        &Settings::default(),
        &gauge(&resource(), &[text("job", "mine"), text("x", "1")].join(",")),
        &[
            r#"g{instance="7", job="shop/api", x="1"} 1000 1"#,
            r#"target_info{a_b="1;2", host_name="h", instance="7", job="shop/api"} 1000 1"#,
        ],
    );
    // Nothing beside what identifies it, or nothing that does.
    let identifying = [text("service.name", "api"), text("service.instance.id", "7")].join(",");
    check(&Settings::default(), &gauge(&identifying, ""), &[r#"g{instance="7", job="api"} 1000 1"#]);
    check(&Settings::default(), &gauge(&text("host.name", "h"), ""), &["g 1000 1"]);
    let json = gauge(&text("job", "j"), "");
    check(&Settings::default(), &json, &["g 1000 1", r#"target_info{job="j"} 1000 1"#]);
    // Without points there is nothing to tell about.
    check(
        &Settings::default(),
        &format!(r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{}]}}}}]}}"#, resource()),
        &[],
    );
    let kept = good(&Settings::default(), &gauge(&resource(), ""));
    assert_eq!(&*kept.metadata[1].help, "Target metadata");
}

#[test]
fn identifying_attributes_can_stay() {
    let settings = Settings { keep_identifying_resource_attributes: true, ..Settings::default() };
    let attributes = [text("service.name", "api"), text("x", "1")].join(",");
    check(
        &settings,
        &gauge(&attributes, ""),
        &[r#"g{job="api"} 1000 1"#, r#"target_info{job="api", service_name="api", x="1"} 1000 1"#],
    );
}

#[test]
fn promoted_attributes() {
    let promote = |promote| Settings { promote, ..Settings::default() };
    let first = |settings: &Settings, json: &str| good(settings, json).rows.swap_remove(0);
    let only = promote(Promote::Only(names(&["host.name", "service.name"])));
    assert_eq!(
        first(&only, &gauge(&resource(), &text("host_name", "mine"))),
        r#"g{host_name="mine", instance="7", job="shop/api", service_name="api"} 1000 1"#
    );
    assert_eq!(
        first(&only, &gauge(&resource(), &text("host_name", ""))),
        r#"g{host_name="h", instance="7", job="shop/api", service_name="api"} 1000 1"#
    );
    // Those that get the same name are not joined here: the last one counts.
    let all = promote(Promote::AllBut(names(&["service.name", "service.namespace", "service.instance.id"])));
    assert_eq!(
        first(&all, &gauge(&resource(), "")),
        r#"g{a_b="2", host_name="h", instance="7", job="shop/api"} 1000 1"#
    );
}

#[test]
fn scopes() {
    let settings = Settings { promote_scope_metadata: true, ..Settings::default() };
    let scope = |name: &str| {
        format!(
            r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{}]}},"scopeMetrics":[{{"schemaUrl":"u","scope":
            {{"name":"{name}","attributes":[{},{}]}},"metrics":[{{"name":"g","gauge":{{"dataPoints":[{{"attributes":[{}]}}]}}}}]}}]}}]}}"#,
            [text("service.name", "api"), text("x", "1")].join(","),
            text("k.1", "v"),
            text("name", "hidden"),
            [text("otel.scope.version", "mine"), text("otel_scope_k_1", "mine")].join(",")
        )
    };
    let rows = good(&settings, &scope("lib")).rows;
    let expect = r#"g{job="api", otel_scope_k_1="v", otel_scope_name="lib", otel_scope_schema_url="u"} 0 0"#;
    assert_eq!(rows, [expect, r#"target_info{job="api", x="1"} 0 1"#]);
    let mine = r#"g{job="api", otel_scope_k_1="mine", otel_scope_version="mine"} 0 0"#;
    assert_eq!(good(&settings, &scope("")).rows[0], mine);
    assert_eq!(good(&Settings::default(), &scope("lib")).rows[0], mine);
}

/// Points of one resource at these milliseconds.
fn points_at(times_ms: &[i64]) -> String {
    let points: Vec<String> =
        times_ms.iter().map(|t| format!(r#"{{"timeUnixNano":"{}"}}"#, t * 1_000_000)).collect();
    let metric = format!(r#"{{"name":"g","gauge":{{"dataPoints":[{}]}}}}"#, points.join(","));
    let attributes = [text("service.name", "api"), text("x", "1")].join(",");
    format!(r#"{{"resource":{{"attributes":[{attributes}]}},"scopeMetrics":[{{"metrics":[{metric}]}}]}}"#)
}

#[test]
fn target_info_is_dense_enough_and_written_once() {
    let times = |settings: &Settings, resources: &[String]| -> Vec<String> {
        let json = format!(r#"{{"resourceMetrics":[{}]}}"#, resources.join(","));
        let rows = good(settings, &json).rows;
        let infos = rows.iter().filter(|row| row.starts_with("target_info"));
        infos.map(|row| row.split(' ').rev().nth(1).expect("a time").to_owned()).collect()
    };
    let all = points_at(&[400_000, 1000, 200_000]);
    assert_eq!(
        times(&Settings::default(), std::slice::from_ref(&all)),
        ["1000", "151000", "301000", "400000"]
    );
    assert_eq!(times(&Settings::default(), &[all.clone(), all, points_at(&[5000])]).len(), 5);
    let settings = Settings { lookback_ms: 1, ..Settings::default() };
    assert_eq!(times(&settings, &[points_at(&[10, 12])]), ["10", "11", "12"]);
}

#[test]
fn points_too_far_apart_are_refused() {
    let json = format!(r#"{{"resourceMetrics":[{}]}}"#, points_at(&[0, 1_600_000_000_000]));
    match run(&Settings::default(), &json, &mut Kept::default()) {
        Err(Stop::Decode(e)) => assert!(e.to_string().contains("target_info"), "{e}"),
        _ => panic!("millions of samples from two points"),
    }
}
