//! Scalars of the configuration file that have their own notation: durations, sizes, secrets, regular expressions.

use std::collections::BTreeMap;
use std::fmt;

use model::duration;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration in Prometheus's notation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ms(pub i64);

impl Ms {
    /// Milliseconds.
    pub fn ms(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::format_ms(self.0))
    }
}

impl<'de> Deserialize<'de> for Ms {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        duration::parse_ms(&text).map(Ms).map_err(D::Error::custom)
    }
}

impl Serialize for Ms {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A setting whose null is the empty value, not the default, as Prometheus has it: `replacement:` with nothing behind it
/// replaces by nothing.
///
/// # Errors
/// When the value is none of the type.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    d: D,
) -> Result<Option<T>, D::Error> {
    Option::<T>::deserialize(d).map(|v| Some(v.unwrap_or_default()))
}

/// Texts by name; a null is an empty one.
///
/// # Errors
/// When a value is no text.
pub fn texts<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    let given = Option::<BTreeMap<String, Option<String>>>::deserialize(d)?.unwrap_or_default();
    Ok(given.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect())
}

/// A URL; an empty text is none.
///
/// # Errors
/// When it is no URL.
pub fn url_if_any<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Url>, D::Error> {
    let text = Option::<String>::deserialize(d)?.filter(|t| !t.is_empty());
    text.map(|t| Url::parse(&t).map_err(D::Error::custom)).transpose()
}

/// A whole number. One with a fraction or exponent is cut, as Prometheus does: `1e6` is a million.
///
/// # Errors
/// When it is no number, or does not fit.
pub fn whole<'de, D: Deserializer<'de>, T: Whole>(d: D) -> Result<Option<T>, D::Error> {
    d.deserialize_any(WholeVisitor(std::marker::PhantomData))
}

/// A type of whole numbers that settings have.
pub trait Whole: TryFrom<i128> {
    /// What an error says was expected.
    const EXPECTED: &'static str;
}

impl Whole for u64 {
    const EXPECTED: &'static str = "a whole number that is not negative";
}

impl Whole for i64 {
    const EXPECTED: &'static str = "a whole number";
}

struct WholeVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: Whole> serde::de::Visitor<'de> for WholeVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_i128<E: serde::de::Error>(self, v: i128) -> Result<Self::Value, E> {
        T::try_from(v).map(Some).map_err(|_| E::custom(format!("{v} is not {}", T::EXPECTED)))
    }

    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Self::Value, E> {
        self.visit_i128(v.into())
    }

    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Self::Value, E> {
        self.visit_i128(v.into())
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Self::Value, E> {
        if v.is_nan() {
            Err(E::custom(format!("NaN is not {}", T::EXPECTED)))
        } else {
            self.visit_i128(v as i128)
        }
    }
}

/// A size in bytes with a unit of powers of 1024: `512MB`, `1GiB`. `0` needs no unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u32); 7] =
    [("EB", 60), ("PB", 50), ("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10), ("B", 0)];

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("invalid size {text:?}: {why} (examples: 512MB, 1GB)");
        if text == "0" {
            return Ok(Self(0));
        }
        if text.starts_with('-') {
            return Err(bad("must not be negative"));
        }
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.replace("iB", "B");
        let shift = UNITS
            .iter()
            .find(|(u, _)| *u == unit)
            .map(|(_, s)| *s)
            .ok_or_else(|| bad("unit missing or unknown"))?;
        let number: f64 = number.parse().map_err(|_| bad("no number"))?;
        let bytes = number * (1_u64 << shift) as f64;
        if bytes < i64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(bad("too large")) }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        let mut rest = self.0;
        for (unit, shift) in UNITS {
            let n = rest >> shift;
            if n > 0 {
                write!(f, "{n}{}", if shift == 0 { "B".into() } else { unit.replace('B', "iB") })?;
                rest -= n << shift;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A value that is never printed: it shows as `<secret>`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(if self.0.is_empty() { "" } else { "<secret>" })
    }
}

/// A URL whose password is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(pub url::Url);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() && shown.set_password(Some("xxxxx")).is_err() {
            return f.write_str("<secret>");
        }
        f.write_str(&shown.as_str().replace(":xxxxx@", ":<secret>@"))
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        url::Url::parse(text).map(Url).map_err(|e| format!("invalid URL {text:?}: {e}"))
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// The text of a regular expression that compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegexText(pub model::Regexp);

impl Default for RegexText {
    fn default() -> Self {
        Self(model::Regexp::new("").expect("the empty expression is one"))
    }
}

impl<'de> Deserialize<'de> for RegexText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        model::Regexp::new(&text).map(RegexText).map_err(D::Error::custom)
    }
}

impl Serialize for RegexText {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0.as_str())
    }
}

/// A selector, `{longterm!=""}`, kept as text; it is parsed where the file is checked.
pub type SelectorText = String;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_numbers_are_read_as_by_prometheus() {
        #[derive(Debug, Default, PartialEq, Deserialize)]
        #[serde(default)]
        struct All {
            #[serde(deserialize_with = "present")]
            text: Option<String>,
            #[serde(deserialize_with = "texts")]
            map: BTreeMap<String, String>,
            #[serde(deserialize_with = "whole")]
            count: Option<u64>,
            #[serde(deserialize_with = "whole")]
            signed: Option<i64>,
            #[serde(deserialize_with = "url_if_any")]
            url: Option<Url>,
        }
        let read = |text: &str| crate::config::yaml::parse::<All>(text);
        assert_eq!(
            read("count: 1e3\nsigned: -1.5"),
            Ok(All { count: Some(1000), signed: Some(-1), ..All::default() })
        );
        assert_eq!(read("text:\ncount:\nurl: ''"), Ok(All { text: Some(String::new()), ..All::default() }));
        let map = BTreeMap::from([("a".into(), String::new()), ("b".into(), "1".into())]);
        assert_eq!(read("map: {a: , b: 1}"), Ok(All { map, ..All::default() }));
        for bad in
            ["count: -1", "count: x", "count: '1'", "count: [1]", "count: 1e30", "signed: 1e30", "url: x"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("0", 0), ("512MB", 512 << 20), ("1GiB", 1 << 30), ("1.5KB", 1536), ("7B", 7)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for bad in ["100", "-1MB", "MB", "1XB", "9999999EB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert_eq!(Bytes((1 << 30) + 512).to_string(), "1GiB512B");
    }

    #[test]
    fn secrets_do_not_show() {
        let shown = serde_yaml::to_string(&Secret("hunter2".into())).expect("writes");
        assert_eq!((shown.trim(), format!("{:?}", Secret("x".into())).as_str()), ("<secret>", "<secret>"));
        let url: Url = serde_saphyr::from_str("http://user:hunter2@host/x").expect("reads");
        assert_eq!(url.to_string(), "http://user:<secret>@host/x");
    }
}
