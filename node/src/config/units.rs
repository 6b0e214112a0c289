//! Quantities with their units, as people write them: `"64 MiB"`, `"250 ms"`, `"inf"`.
//!
//! Bare numbers are refused: nobody remembers whether a timeout was in seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes, written as `"64 MiB"` or `"1 GB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

/// A length of time, written as `"250 ms"`, `"10 s"` or `"2 m"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// A bound or a threshold that may be switched off: a value, or `"inf"` for one that is never
/// reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Threshold<T> {
    /// Reached at this value.
    At(T),
    /// Never reached.
    Never,
}

/// The text is not such a quantity.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected {expected}, found `{found}`")]
pub struct QuantityError {
    expected: &'static str,
    found: String,
}

const BYTES_EXPECTED: &str = "a size with its unit, such as \"64 MiB\" or \"1 GB\"";
const SPAN_EXPECTED: &str = "a duration with its unit, such as \"250 ms\", \"10 s\" or \"2 m\"";
const NEVER: &str = "inf";

/// Units with the number of bytes in each; a size is printed in the first that divides it.
const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

/// Units with the number of nanoseconds in each.
const SPAN_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
];

impl ByteSize {
    /// So many binary megabytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes as a length in memory.
    pub fn bytes(self) -> usize {
        // Saturation on a 32-bit machine is a size that no allocation can meet.
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Span {
    /// So many seconds.
    pub const fn secs(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// So many milliseconds.
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl<T: Copy> Threshold<T> {
    /// The value, unless it is never reached.
    pub fn at(self) -> Option<T> {
        match self {
            Self::At(value) => Some(value),
            Self::Never => None,
        }
    }
}

impl<T: PartialOrd> Threshold<T> {
    /// Whether `value` is at the threshold or beyond it.
    pub fn is_reached_by(&self, value: &T) -> bool {
        match self {
            Self::At(threshold) => value >= threshold,
            Self::Never => false,
        }
    }
}

/// Reads `NUMBER UNIT` exactly; the number may have a decimal part (`1.5 GiB`).
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    // Nothing before or after a point is a slip of the pen, not a zero.
    if whole.is_empty() || (number.contains('.') && decimals.is_empty()) || decimals.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(*factor)?;
    let scale = 10_u64.pow(decimals.len() as u32);
    let decimals = if decimals.is_empty() { 0 } else { decimals.parse::<u64>().ok()? };
    let part = u128::from(decimals) * u128::from(*factor) / u128::from(scale);
    whole.checked_add(u64::try_from(part).ok()?)
}

/// Prints in the largest unit that says it exactly with a whole number.
fn print(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let exact = units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor));
    let (name, factor) = exact.unwrap_or(&units[units.len() - 1]);
    write!(f, "{} {name}", value / factor)
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, &BYTE_UNITS)
            .map(Self)
            .ok_or_else(|| QuantityError { expected: BYTES_EXPECTED, found: text.into() })
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, &SPAN_UNITS)
            .map(|nanos| Self(Duration::from_nanos(nanos)))
            .ok_or_else(|| QuantityError { expected: SPAN_EXPECTED, found: text.into() })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self.0, &BYTE_UNITS, f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX), &SPAN_UNITS, f)
    }
}

impl<T: fmt::Display> fmt::Display for Threshold<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(value) => value.fmt(f),
            Self::Never => f.write_str(NEVER),
        }
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Accepts strings alone, so that `10` is refused with the same words as `"10"`.
struct Quantity<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| text.parse().ok();
        deserializer.deserialize_str(Quantity { expected: BYTES_EXPECTED, parse })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| text.parse().ok();
        deserializer.deserialize_str(Quantity { expected: SPAN_EXPECTED, parse })
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<T: Serialize> Serialize for Threshold<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::At(value) => value.serialize(serializer),
            Self::Never => serializer.serialize_str(NEVER),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Threshold<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = toml::Value::deserialize(deserializer)?;
        // TOML has a float of that name; both spellings are what the writer meant.
        let infinite = value.as_float() == Some(f64::INFINITY);
        if infinite || value.as_str() == Some(NEVER) {
            return Ok(Self::Never);
        }
        let value = T::deserialize(value).map_err(|error: toml::de::Error| {
            // One line: a nested TOML error ends with a line break of its own.
            D::Error::custom(format!("{} or \"{NEVER}\"", error.message()))
        })?;
        Ok(Self::At(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_and_spans_are_read_exactly() {
        let size = |text: &str| text.parse::<ByteSize>().map(|size| size.0).ok();
        assert_eq!(size("64 MiB"), Some(64 << 20));
        assert_eq!(size("1GB"), Some(1_000_000_000));
        assert_eq!(size("1.5 KiB"), Some(1536));
        assert_eq!(size("0 B"), Some(0));
        for wrong in ["64", "MiB", "64 mib", "-1 B", "1. GB", ".5 GB", "1e3 B", "99999999 TiB", ""]
        {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        let span = |text: &str| text.parse::<Span>().map(|span| span.0).ok();
        assert_eq!(span("250 ms"), Some(Duration::from_millis(250)));
        assert_eq!(span("2 m"), Some(Duration::from_mins(2)));
        assert_eq!(span("0.5 s"), Some(Duration::from_millis(500)));
        for wrong in ["250", "2 min", "s", "1 s 2 ms", "inf"] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn printing_takes_the_largest_exact_unit() {
        assert_eq!(ByteSize(64 << 20).to_string(), "64 MiB");
        assert_eq!(ByteSize(1_000_000_000).to_string(), "1 GB");
        assert_eq!(ByteSize(1025).to_string(), "1025 B");
        assert_eq!(Span::millis(1500).to_string(), "1500 ms");
        assert_eq!(Span::secs(120).to_string(), "2 m");
        assert_eq!(Span::secs(0).to_string(), "0 ns");
    }

    #[test]
    fn a_threshold_is_a_value_or_never() {
        #[derive(Deserialize)]
        struct Held {
            at: Threshold<u32>,
        }
        let read = |text: &str| toml::from_str::<Held>(text).map(|held| held.at);
        assert_eq!(read("at = 4").ok(), Some(Threshold::At(4)));
        assert_eq!(read("at = \"inf\"").ok(), Some(Threshold::Never));
        assert_eq!(read("at = inf").ok(), Some(Threshold::Never));
        let error = read("at = \"4\"").expect_err("a string");
        assert_eq!(error.message(), "invalid type: string \"4\", expected u32 or \"inf\"");
        assert!(Threshold::At(4).is_reached_by(&4) && !Threshold::At(4).is_reached_by(&3));
        assert!(!Threshold::Never.is_reached_by(&u32::MAX));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value: u64) {
            prop_assert_eq!(ByteSize(value).to_string().parse(), Ok(ByteSize(value)));
            let span = Span(Duration::from_nanos(value));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,24}") {
            let _ = text.parse::<ByteSize>();
            let _ = text.parse::<Span>();
        }
    }
}
