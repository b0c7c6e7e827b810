//! Templates beside what a real server makes of them: `tests/cases.txt` holds texts and its answers.

use super::*;

use promql::{QueryError, VectorSample};

fn surroundings() -> Surroundings {
    let sample = |labels: &[(&str, &str)], value: f64| VectorSample {
        labels: Labels::from_pairs(labels.iter().copied()),
        timestamp_ms: 0,
        value: PointValue::Float(value),
    };
    let two = vec![
        sample(&[("__name__", "m"), ("a", "2"), ("__value__", "sv")], 11.0),
        sample(&[("__name__", "m"), ("a", "1")], 21.5),
    ];
    Surroundings {
        external_labels: Labels::from_pairs([("cluster", "c1")]),
        external_url: "http://p:9090/prefix".into(),
        query: Arc::new(move |query, _| match query {
            "two" => Ok(promql::Value::Vector(two.clone())),
            "bad" => Err(QueryError::Execution("it is bad".into())),
            _ => Ok(promql::Value::Vector(Vec::new())),
        }),
    }
}

/// What becomes of a template; a failure begins with `PARSE` or `ERROR`.
fn expand(template: &str) -> String {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "node"), ("n", "12")]);
    let around = surroundings();
    let values =
        Values { labels: &labels, value: &PointValue::Float(7.5), ts_ms: 1_700_000_000_123, around: &around };
    match Template::parse("A", template) {
        Err(error) => format!("PARSE {error}"),
        Ok(parsed) => parsed.expand(&values).unwrap_or_else(|error| format!("ERROR {error}")),
    }
}

#[test]
fn templates_give_what_they_give_in_prometheus() {
    let cases = include_str!("tests/cases.txt");
    let mut count = 0;
    for case in cases.split("\n\n") {
        let (template, expect) =
            case.split_once("\n => ").unwrap_or_else(|| panic!("a case is two lines: {case}"));
        let line = |text: &str| text.replace("\\N", "\n");
        let expect = expect.strip_suffix('\n').unwrap_or(expect);
        assert_eq!(expand(&line(template)), line(expect), "{template}");
        count += 1;
    }
    assert!(count > 250, "{count}");
}

#[test]
fn what_does_not_end_is_cut_off() {
    for (template, part) in [
        (
            r#"{{ define "x" }}{{ template "x" . }}{{ end }}{{ template "x" . }}"#,
            "exceeded maximum template depth (100)",
        ),
        ("{{ range 1000000000 }}{{ end }}", "exceeded 1000000 steps"),
        (
            "{{ range 1000000000 }}0123456789012345678901234567890123456789{{ end }}",
            "output exceeds 1048576 bytes",
        ),
        (r#"{{ printf "%1000000d%1000000d%1000000d" 1 2 3 }}"#, "output exceeds"),
        (
            r#"{{ $x := "0123456789" }}{{ range 1000000 }}{{ $x = printf "%s%s" $x $x }}{{ end }}"#,
            "output exceeds",
        ),
        (r#"{{ $x := "0123456789" }}{{ range 1000000 }}{{ $x = print $x $x }}{{ end }}"#, "output exceeds"),
    ] {
        let got = expand(template);
        assert!(got.starts_with("ERROR") && got.contains(part), "{template}: {got}");
    }
    let nested = r#"{{ $x := args 1 }}{{ range 1000000 }}{{ $x = args $x $x }}{{ end }}"#;
    assert!(expand(nested).contains("maps in maps are more than 32 deep"));
    let wide = r#"{{ $x := args 1 }}{{ range 30 }}{{ $x = args $x $x }}{{ end }}{{ $x }}"#;
    assert!(expand(wide).contains("output exceeds"));
    for bomb in ["{{ (".repeat(10_000), format!("{{{{ {}1", "(".repeat(10_000)), "{{ if 1 }}".repeat(10_000)]
    {
        assert!(expand(&bomb).starts_with("PARSE"));
    }
    let chain = format!("{{{{ if 0 }}}}{}{{{{ end }}}}", "{{ else if 0 }}".repeat(10_000));
    assert!(expand(&chain).contains("max expression depth exceeded"));
}

/// No text makes it panic: mutations of the known ones, from a fixed seed.
#[test]
fn any_text_is_answered() {
    let cases: Vec<&str> = include_str!("tests/cases.txt").split("\n\n").collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20_000 {
        let one: Vec<char> =
            cases[random(cases.len())].split("\n => ").next().unwrap_or_default().chars().collect();
        let two: Vec<char> =
            cases[random(cases.len())].split("\n => ").next().unwrap_or_default().chars().collect();
        let (from, to) = (random(one.len() + 1), random(two.len() + 1));
        let text: String = one[..from].iter().chain(&two[to..]).collect();
        let answer = expand(&text);
        assert!(answer.len() <= 2 << 20, "{text}");
    }
}
