//! How addresses and label names are written, the same for every mechanism.

use std::fmt::Display;

/// `HOST:PORT`, an IPv6 host in brackets.
pub(super) fn host_port(host: &str, port: impl Display) -> String {
    if host.contains([':', '%']) { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Replaces every character that a classic label name cannot have, one `_` for each.
pub(super) fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sanitised_by_character() {
        assert_eq!(sanitize("app.kubernetes.io/name"), "app_kubernetes_io_name");
        assert_eq!(sanitize("é-ß"), "___");
        assert_eq!(sanitize("0A_z"), "0A_z");
    }

    #[test]
    fn ipv6_hosts_get_brackets() {
        assert_eq!(host_port("10.1.2.3", 80), "10.1.2.3:80");
        assert_eq!(host_port("fd00::1", 80), "[fd00::1]:80");
    }
}
