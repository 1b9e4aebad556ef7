//! Bodies that say where they come from: a JSON string that starts with sender, number and time.
//!
//! A receiver thereby knows what it got (each message once, in order, from whom) and how long it
//! took, without a table of what was sent. The rest of the body is filling.

/// Shortest body with a mark, quotes included.
pub const MARK_BYTES_MIN: usize = 34;

const SENDER_DIGITS: usize = 8;
const NUMBER_DIGITS: usize = 10;
const AT_DIGITS: usize = 14;
const FILLING: [u8; 256] = [b'.'; 256];

/// What a body says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The sending user's place in the roster.
    pub sender: u32,
    /// Which of the sender's messages.
    pub number: u64,
    /// When it was meant to be sent, microseconds on the engine's clock.
    pub at_us: u64,
}

impl Mark {
    /// Appends a body of `bytes` bytes (at least [`MARK_BYTES_MIN`]), quotes included.
    pub fn write(&self, out: &mut Vec<u8>, bytes: usize) {
        out.push(b'"');
        put_hex::<SENDER_DIGITS>(out, u64::from(self.sender));
        put_hex::<NUMBER_DIGITS>(out, self.number);
        put_hex::<AT_DIGITS>(out, self.at_us);
        let mut left = bytes.saturating_sub(MARK_BYTES_MIN);
        while left > 0 {
            let some = left.min(FILLING.len());
            out.extend_from_slice(&FILLING[..some]);
            left -= some;
        }
        out.push(b'"');
    }

    /// Reads the mark of a body; `None` when it has none.
    pub fn read(body: &[u8]) -> Option<Self> {
        if body.len() < MARK_BYTES_MIN || body[0] != b'"' {
            return None;
        }
        let (sender, rest) = body[1..].split_at(SENDER_DIGITS);
        let (number, rest) = rest.split_at(NUMBER_DIGITS);
        Some(Self {
            sender: u32::try_from(hex(sender)?).ok()?,
            number: hex(number)?,
            at_us: hex(&rest[..AT_DIGITS])?,
        })
    }
}

fn put_hex<const DIGITS: usize>(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 0xf) as usize];
        n >>= 4;
    }
    out.extend_from_slice(&digits);
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |n, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(n << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_comes_back_and_the_body_has_the_length_asked_for() {
        let mark = Mark {
            sender: 0xdead_beef,
            number: 0xff_1234_5678,
            at_us: 1_718_000_000_000_000,
        };
        for bytes in [MARK_BYTES_MIN, 35, 200, 700] {
            let mut body = Vec::new();
            mark.write(&mut body, bytes);
            assert_eq!(body.len(), bytes);
            assert_eq!(Mark::read(&body), Some(mark));
            assert!(serde_json::from_slice::<String>(&body).is_ok());
        }
        assert_eq!(Mark::read(b"\"short\""), None);
        assert_eq!(Mark::read(&[b'"'; 40]), None);
    }
}
