//! W3C trace context (Level 1): where in a client's trace a message belongs.
//!
//! Only what `traceparent` says is read. What is not well-formed is no error: the
//! recommendation has it ignored, and a message must not fail over it. Whether a
//! trace is followed is not decided here.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// An id of these bits; all zeros is none.
    pub fn new(bits: u128) -> Option<Self> {
        NonZeroU128::new(bits).map(Self)
    }

    /// As it goes over the wire.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

/// A span: one step of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// An id of these bits; all zeros is none.
    pub fn new(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).map(Self)
    }

    /// As it goes over the wire.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The span that what follows belongs under.
    pub span: SpanId,
    /// Whoever began the trace records it.
    pub sampled: bool,
}

/// Characters of a `traceparent` of version 00. Later versions may have more behind a hyphen.
const CHARACTERS: usize = 55;
const SAMPLED: u128 = 1;

impl TraceParent {
    /// Reads a `traceparent`; `None` for what is to be ignored.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let (known, rest) = text.split_at_checked(CHARACTERS)?;
        let version = hex(&known[..2])?;
        let more = match rest.first() {
            None => true,
            Some(separator) => version > 0 && *separator == b'-',
        };
        let separated = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        if version == 0xff || !more || !separated {
            return None;
        }
        Some(Self {
            trace: TraceId::new(hex(&known[3..35])?)?,
            span: SpanId::new(u64::try_from(hex(&known[36..52])?).ok()?)?,
            sampled: hex(&known[53..])? & SAMPLED != 0,
        })
    }
}

/// Up to 32 digits; capital ones are not allowed.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace, self.span)
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a traceparent"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_well_formed_is_read() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!(parent.trace.to_bytes()[0], 0x4b);
        assert_eq!(parent.span.to_bytes()[7], 0xb7);
        assert!(parent.sampled);
        assert_eq!(parent.to_string(), GOOD);
        // Of the flags the last bit counts.
        for (flags, sampled) in [("00", false), ("02", false), ("03", true), ("ff", true)] {
            let text = format!("{}{flags}", &GOOD[..53]);
            assert_eq!(
                TraceParent::parse(&text).unwrap().sampled,
                sampled,
                "{text}"
            );
        }
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        for later in [
            format!("01{}", &GOOD[2..]),
            format!("cc{}-what-the-future-brings", &GOOD[2..]),
            format!("fe{}-", &GOOD[2..]),
        ] {
            assert_eq!(
                TraceParent::parse(&later),
                TraceParent::parse(GOOD),
                "{later}"
            );
        }
        assert_eq!(TraceParent::parse(&format!("01{}.", &GOOD[2..])), None);
    }

    #[test]
    fn what_is_not_well_formed_is_none() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_span = format!("{}{}-01", &GOOD[..36], "0".repeat(16));
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_ascii_uppercase(),
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &format!(" {GOOD}"),
            &format!("ff{}", &GOOD[2..]),
            &format!("0x{}", &GOOD[2..]),
            &GOOD.replacen('-', "_", 1),
            &GOOD.replace("e4736-", "e473-6"),
            &GOOD.replace("01", "0g"),
            &GOOD.replacen("4bf", "4\u{e9}", 1),
            &zero_trace,
            &zero_span,
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,80}") {
            let _ = TraceParent::parse(&text);
        }

        #[test]
        fn what_is_written_is_read(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let parent = TraceParent {
                trace: TraceId::new(trace).unwrap(),
                span: SpanId::new(span).unwrap(),
                sampled,
            };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
            let json = serde_json::to_string(&parent).unwrap();
            prop_assert_eq!(serde_json::from_str::<TraceParent>(&json).unwrap(), parent);
        }
    }
}
