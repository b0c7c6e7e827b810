//! Links to the page that shows a query, relative to the server's address.

/// Shows the query's answer as a table.
pub(crate) fn table_link(query: &str) -> String {
    format!("/graph?g0.expr={}&g0.tab=1", escape_query(query))
}

/// Shows the query's answer as a graph.
pub(crate) fn graph_link(query: &str) -> String {
    format!("/graph?g0.expr={}&g0.tab=0", escape_query(query))
}

/// Escapes a text so that it can be a value in the query of a URL: as Go's `url.QueryEscape`.
pub(crate) fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped_as_go_does() {
        assert_eq!(
            table_link("sum(up{job=\"a b\"}) > 1"),
            "/graph?g0.expr=sum%28up%7Bjob%3D%22a+b%22%7D%29+%3E+1&g0.tab=1"
        );
        assert_eq!(table_link("ü~"), "/graph?g0.expr=%C3%BC~&g0.tab=1");
    }
}
