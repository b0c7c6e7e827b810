//! Random texts: what is printed parses to the same tree, and nothing makes the parser panic.

use proptest::prelude::*;

use super::super::*;
use super::bare;

fn duration_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("5m".to_owned()),
        Just("90".to_owned()),
        Just("1.5".to_owned()),
        Just("step()".to_owned()),
        Just("range()".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone(), "[-+*/%^]").prop_map(|(a, b, op)| format!("{a} {op} {b}")),
            (inner.clone(), "[-+]").prop_map(|(a, op)| format!("{op}{a}")),
            inner.clone().prop_map(|a| format!("({a})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("max_of({a}, {b})")),
        ]
    })
}

fn modifiers() -> impl Strategy<Value = String> {
    let at = prop_oneof![Just(""), Just(" @ 12.5"), Just(" @ end()"), Just(" @ -3")];
    let offset = prop_oneof![
        Just(String::new()),
        Just(" offset -1h".to_owned()),
        duration_text().prop_map(|d| format!(" offset {d}")),
        duration_text().prop_map(|d| format!(" offset +({d})")),
    ];
    (at, offset, any::<bool>())
        .prop_map(|(a, o, at_last)| if at_last { format!("{o}{a}") } else { format!("{a}{o}") })
}

fn expr_text() -> impl Strategy<Value = String> {
    let selector =
        prop_oneof![Just("foo"), Just("sum"), Just(r#"foo{b="x",a!~"y|z"}"#), Just(r#"{"a.b", c=""}"#)];
    let vector = (selector.clone(), modifiers()).prop_map(|(s, m)| format!("{s}{m}"));
    let matrix = (selector, duration_text(), modifiers())
        .prop_map(|(s, d, m)| format!("count_over_time({s}[{d}]{m})"));
    let leaf =
        prop_oneof![vector, matrix, Just("vector(-2.5e-3)".to_owned()), Just("vector(Inf)".to_owned())];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let op = prop_oneof![
            Just("+"),
            Just("- on (x)"),
            Just("* ignoring (y) group_left (z)"),
            Just("^"),
            Just("and"),
            Just("or on ()"),
            Just("== bool"),
            Just(">/"),
            Just("</"),
            Just("atan2"),
            Just("/ fill (3)")
        ];
        prop_oneof![
            (inner.clone(), inner.clone(), op).prop_map(|(a, b, op)| format!("{a} {op} {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("sum by (a, \"b.c\") ({a})")),
            inner.clone().prop_map(|a| format!("topk without (a) (3, {a})")),
            inner.clone().prop_map(|a| format!("label_replace({a}, \"a\", '$1', \"b\", `.*`)")),
            (inner, duration_text(), modifiers())
                .prop_map(|(a, d, m)| format!("max_over_time(({a})[{d}:]{m})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_parses_to_the_same_tree(text in expr_text()) {
        if let Ok(e) = parse(&text, &ParserOptions::all()) {
            let printed = e.to_string();
            let again = parse(&printed, &ParserOptions::all());
            prop_assert_eq!(again.map(bare), Ok(bare(e)), "{} printed as {}", text, printed);
        }
    }

    #[test]
    fn foreign_text_never_panics(text in "[a-z0-9(){}\\[\\]\"'`\\\\@:=!~<>/+*^%.,_# \né-]{0,60}") {
        if let Ok(e) = parse(&text, &ParserOptions::all()) {
            prop_assert_eq!(parse(&e.to_string(), &ParserOptions::all()).map(bare), Ok(bare(e)));
        }
    }
}
