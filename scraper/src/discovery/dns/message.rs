//! DNS messages: one question out, its records back. RFC 1035, SRV by RFC 2782, EDNS by RFC 6891.
//!
//! Answers come from the network: every length is checked, and names that point in circles end.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::discovery::config::DnsRecord;

/// Answers by UDP that we can take, as EDNS tells the server.
pub(super) const UDP_LEN_BYTES_MAX: usize = 4096;
/// Longest name in a message.
const NAME_LEN_BYTES_MAX: usize = 255;
/// Pointers that are followed in one name.
const POINTERS_MAX: usize = 126;

const CLASS_INTERNET: u16 = 1;
const KIND_CNAME: u16 = 5;
const KIND_OPT: u16 = 41;
const FLAG_ANSWER: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) truncated: bool,
    pub(super) code: Code,
    pub(super) records: Vec<Record>,
}

/// How the question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Success,
    NoSuchName,
    /// Refused, failed and so on; the number of RFC 1035.
    Failed(u8),
}

/// A record of the answer section.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) data: RecordData,
}

/// Hosts as text, with the final dot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecordData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv { port: u16, target: String },
    Mx(String),
    Ns(String),
    Cname,
    Other(u16),
}

impl DnsRecord {
    fn kind(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ns => 2,
            Self::Mx => 15,
            Self::Aaaa => 28,
            Self::Srv => 33,
        }
    }
}

/// The bytes of a question for `name`, which ends in a dot.
///
/// # Errors
/// When no message can hold the name.
pub(super) fn question(id: u16, name: &str, record: DnsRecord, edns: bool) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(64);
    for word in [id, FLAG_RECURSION_DESIRED, 1, 0, 0, u16::from(edns)] {
        out.extend(word.to_be_bytes());
    }
    let name = name.trim_end_matches('.');
    for part in name.split('.').filter(|_| !name.is_empty()) {
        match u8::try_from(part.len()) {
            Ok(len @ 1..=63) => out.push(len),
            _ => return Err(format!("{name:?} is no domain name: a part is empty or longer than 63 bytes")),
        }
        out.extend(part.as_bytes());
    }
    out.push(0);
    if out.len() - 12 > NAME_LEN_BYTES_MAX {
        return Err(format!("{name:?} is longer than a domain name can be"));
    }
    out.extend(record.kind().to_be_bytes());
    out.extend(CLASS_INTERNET.to_be_bytes());
    if edns {
        out.push(0);
        out.extend(KIND_OPT.to_be_bytes());
        out.extend((UDP_LEN_BYTES_MAX as u16).to_be_bytes());
        out.extend([0; 6]);
    }
    Ok(out)
}

/// Reads the answer to `question`. `None` when it is an answer to something else, which anyone may send us.
///
/// # Errors
/// What is wrong with the message.
pub(super) fn answer(message: &[u8], question: &[u8]) -> Result<Option<Answer>, String> {
    let mut reader = Reader { message, at: 0 };
    let id = reader.word()?;
    let flags = reader.word()?;
    let questions = reader.word()?;
    let answers = reader.word()?;
    reader.at = 12;
    if message.get(..2) != question.get(..2) || flags & FLAG_ANSWER == 0 {
        return Ok(None);
    }
    for _ in 0..questions {
        reader.name()?;
        reader.word()?;
        reader.word()?;
    }
    if questions > 0 && !repeats(message, question) {
        return Err(format!("answer {id} is to another question"));
    }
    let truncated = flags & FLAG_TRUNCATED != 0;
    let code = match (flags & 0xf) as u8 {
        0 => Code::Success,
        3 => Code::NoSuchName,
        other => Code::Failed(other),
    };
    let mut records = Vec::new();
    // The records of a truncated answer may be cut anywhere, and are asked for again.
    for _ in 0..if truncated { 0 } else { answers } {
        records.push(reader.record()?);
    }
    Ok(Some(Answer { truncated, code, records }))
}

/// Whether the question stands in the message as it was sent, but for the case of letters.
fn repeats(message: &[u8], question: &[u8]) -> bool {
    let end = question[12..].iter().position(|b| *b == 0).map(|len| 12 + len + 5);
    end.and_then(|end| Some((message.get(12..end)?, question.get(12..end)?)))
        .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b))
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.saturating_add(len);
        let bytes = self.message.get(self.at..end).ok_or_else(|| self.cut())?;
        self.at = end;
        Ok(bytes)
    }

    fn cut(&self) -> String {
        format!("the answer of {} bytes ends in the middle of a field", self.message.len())
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.bytes(1)?[0])
    }

    fn word(&mut self) -> Result<u16, String> {
        let bytes = self.bytes(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name in presentation form, with the final dot.
    fn name(&mut self) -> Result<String, String> {
        let mut out = String::new();
        let mut pointers = 0;
        let mut len_bytes = 0;
        // Where reading goes on after the first pointer.
        let mut back = None;
        loop {
            let len = self.byte()?;
            match len {
                0 => break,
                1..=63 => {
                    len_bytes += usize::from(len) + 1;
                    if len_bytes > NAME_LEN_BYTES_MAX {
                        return Err("a name in the answer is too long".to_owned());
                    }
                    self.bytes(usize::from(len))?.iter().for_each(|b| push_escaped(&mut out, *b));
                    out.push('.');
                }
                192.. => {
                    let low = self.byte()?;
                    back.get_or_insert(self.at);
                    pointers += 1;
                    if pointers > POINTERS_MAX {
                        return Err("a name in the answer points in circles".to_owned());
                    }
                    self.at = usize::from(len & 63) << 8 | usize::from(low);
                }
                _ => return Err(format!("a name in the answer has a part of unknown kind {len:#x}")),
            }
        }
        if let Some(back) = back {
            self.at = back;
        }
        if out.is_empty() {
            out.push('.');
        }
        Ok(out)
    }

    fn record(&mut self) -> Result<Record, String> {
        self.name()?;
        let kind = self.word()?;
        self.bytes(6)?;
        let len = usize::from(self.word()?);
        let end = self.at + len;
        if end > self.message.len() {
            return Err(self.cut());
        }
        let data = match kind {
            1 => {
                let address: [u8; 4] = self.bytes(len)?.try_into().map_err(|_| wrong_length(kind, len))?;
                RecordData::A(address.into())
            }
            28 => {
                let address: [u8; 16] = self.bytes(len)?.try_into().map_err(|_| wrong_length(kind, len))?;
                RecordData::Aaaa(address.into())
            }
            33 => {
                self.bytes(4)?;
                RecordData::Srv { port: self.word()?, target: self.name()? }
            }
            15 => {
                self.bytes(2)?;
                RecordData::Mx(self.name()?)
            }
            2 => RecordData::Ns(self.name()?),
            KIND_CNAME => RecordData::Cname,
            other => RecordData::Other(other),
        };
        self.at = end;
        Ok(Record { data })
    }
}

fn wrong_length(kind: u16, len: usize) -> String {
    format!("a record of type {kind} has {len} bytes of data")
}

/// One byte of a name as text. What has a meaning in names gets a backslash, what is not printed its number.
fn push_escaped(out: &mut String, byte: u8) {
    match byte {
        b'.' | b' ' | b'\'' | b'@' | b';' | b'(' | b')' | b'"' | b'\\' => {
            out.push('\\');
            out.push(byte as char);
        }
        b' '..=b'~' => out.push(byte as char),
        _ => out.push_str(&format!("\\{byte:03}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn srv_answer() -> (Vec<u8>, Vec<u8>) {
        let question = question(7, "_x._tcp.example.com.", DnsRecord::Srv, true).unwrap();
        let mut message = question.clone();
        message.truncate(question.len() - 11);
        message[2] = 0x81;
        message[3] = 0x80;
        message[7] = 1;
        message[11] = 0;
        // A pointer to the question's name, type, class, time to live, length.
        message
            .extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 10, 0, 1, 0, 2, 0x1f, 0x90, 1, b'h', 0xc0, 20]);
        (message, question)
    }

    #[test]
    fn compressed_names_are_put_together() {
        let (message, question) = srv_answer();
        let answer = answer(&message, &question).unwrap().unwrap();
        let data = RecordData::Srv { port: 8080, target: "h.example.com.".into() };
        assert_eq!(answer, Answer { truncated: false, code: Code::Success, records: vec![Record { data }] });
    }

    #[test]
    fn foreign_bytes_never_panic_nor_loop() {
        let (message, question) = srv_answer();
        for len in 0..message.len() {
            assert!(!matches!(answer(&message[..len], &question), Ok(Some(_))), "{len} bytes");
        }
        for at in 0..message.len() {
            for value in [0, 1, 63, 64, 192, 255] {
                let mut broken = message.clone();
                broken[at] = value;
                // Only the absence of a panic counts.
                let _ = answer(&broken, &question);
            }
        }
        let mut circle = message.clone();
        let end = circle.len();
        circle[end - 1] = (end - 2) as u8;
        assert!(answer(&circle, &question).unwrap_err().contains("circles"));
        let mut other = message;
        other[1] = 8;
        assert_eq!(answer(&other, &question), Ok(None));
    }

    #[test]
    fn names_that_fit_no_message_are_refused() {
        let ask = |name: &str| question(1, name, DnsRecord::A, false);
        assert!(ask("a..b.").is_err());
        assert!(ask(&format!("{}.", "x".repeat(64))).is_err());
        assert!(ask(&"abcdefg.".repeat(40)).is_err());
        assert_eq!(ask(".").unwrap().len(), 12 + 1 + 4);
    }

    #[test]
    fn odd_bytes_in_names_are_escaped() {
        let mut out = String::new();
        b"a.\x07\xffz".iter().for_each(|b| push_escaped(&mut out, *b));
        assert_eq!(out, "a\\.\\007\\255z");
    }
}
