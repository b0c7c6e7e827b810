//! Base64 with the standard alphabet and padding, in which bytes are labels and JSON holds bytes.
//!
//! Spec: RFC 4648, section 4.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends the text of `bytes`.
pub(crate) fn encode(bytes: &[u8], out: &mut String) {
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |all, b| all << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let sextet = bits >> (18 - 6 * i) & 63;
            out.push(if i <= group.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
}

/// The bytes of a text; line ends in it do not matter. `None` when it is not base64.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut sextets, mut padding) = (0_u32, 0, 0);
    for c in text.iter().filter(|c| !matches!(c, b'\r' | b'\n')) {
        let sextet = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if sextets >= 2 => {
                padding += 1;
                0
            }
            _ => return None,
        };
        // Nothing follows padding but padding.
        if padding > 0 && *c != b'=' {
            return None;
        }
        bits = bits << 6 | u32::from(sextet);
        sextets += 1;
        if sextets == 4 {
            out.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
            (bits, sextets) = (0, if padding > 0 { 5 } else { 0 });
        } else if sextets > 4 {
            return None;
        }
    }
    matches!(sextets, 0 | 5).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let text = |bytes: &[u8]| {
            let mut out = String::new();
            encode(bytes, &mut out);
            out
        };
        for (bytes, expect) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (b"\xff\xfe\xfd", "//79"),
        ] {
            assert_eq!(text(bytes), expect);
            assert_eq!(decode(expect.as_bytes()).as_deref(), Some(bytes), "{expect}");
        }
        assert_eq!(decode(b"Zm9v\r\nYmFy").as_deref(), Some(&b"foobar"[..]));
        for bad in ["Z", "Zg", "Zg=", "Zg===", "=", "Zg==Zg==", "Zm=v", "Zm9-", "Zg= ="] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
