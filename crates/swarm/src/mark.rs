//! Bodies that say where they come from: a JSON string that starts with sender, number and time.
//!
//! A receiver thereby knows what it got (each message once, in order, from whom) and how long it
//! took, without a table of what was sent. A seal over all of it, the recipient, the message's id and
//! the length shows what was damaged, cut or brought to the wrong place. The rest is filling.

use stonechat_protocol::MessageId;

/// Shortest body with a mark, quotes included.
pub const MARK_BYTES_MIN: usize = 42;

const SENDER_DIGITS: usize = 8;
const NUMBER_DIGITS: usize = 10;
const AT_DIGITS: usize = 14;
const SEAL_DIGITS: usize = 8;
const FILLING: [u8; 256] = [b'.'; 256];

/// What a body says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The sending device's place in the roster.
    pub sender: u32,
    /// Which of the sender's messages.
    pub number: u64,
    /// When it was meant to be sent, microseconds on the engine's clock.
    pub at_us: u64,
}

impl Mark {
    /// Appends a body of `bytes` bytes (at least [`MARK_BYTES_MIN`]), quotes included, sealed for the
    /// message `id` to the user `to`.
    pub fn write(&self, out: &mut Vec<u8>, bytes: usize, to: u32, id: MessageId) {
        let bytes = bytes.max(MARK_BYTES_MIN);
        out.push(b'"');
        put_hex::<SENDER_DIGITS>(out, u64::from(self.sender));
        put_hex::<NUMBER_DIGITS>(out, self.number);
        put_hex::<AT_DIGITS>(out, self.at_us);
        put_hex::<SEAL_DIGITS>(out, self.seal(bytes, to, id));
        let mut left = bytes - MARK_BYTES_MIN;
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

    /// Reads the mark of a body that was sent to `to` as `id`; `None` when anything of it is not as
    /// it was sent.
    pub fn read_sealed(body: &[u8], to: u32, id: MessageId) -> Option<Self> {
        let mark = Self::read(body)?;
        let (seal, filling) = body[MARK_BYTES_MIN - 1 - SEAL_DIGITS..].split_at(SEAL_DIGITS);
        let (quote, filling) = filling.split_last()?;
        let whole = *quote == b'"' && filling.iter().all(|byte| *byte == FILLING[0]);
        (whole && hex(seal)? == mark.seal(body.len(), to, id)).then_some(mark)
    }

    /// 32 bits over everything that must not change on the way.
    fn seal(&self, bytes: usize, to: u32, id: MessageId) -> u64 {
        let id = id.to_u128();
        [
            u64::from(self.sender) << 32 | u64::from(to),
            self.number,
            self.at_us,
            bytes as u64,
            (id >> 64) as u64,
            id as u64,
        ]
        .into_iter()
        .fold(0x243f_6a88_85a3_08d3, mix)
            >> 32
    }
}

/// One step of a hash: what goes in changes half of all bits.
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
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

    fn an_id() -> MessageId {
        MessageId::parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap()
    }

    const MARK: Mark = Mark {
        sender: 0xdead_beef,
        number: 0xff_1234_5678,
        at_us: 1_718_000_000_000_000,
    };

    #[test]
    fn a_mark_comes_back_and_the_body_has_the_length_asked_for() {
        for bytes in [MARK_BYTES_MIN, 43, 200, 700] {
            let mut body = Vec::new();
            MARK.write(&mut body, bytes, 7, an_id());
            assert_eq!(body.len(), bytes);
            assert_eq!(Mark::read(&body), Some(MARK));
            assert_eq!(Mark::read_sealed(&body, 7, an_id()), Some(MARK));
            assert!(serde_json::from_slice::<String>(&body).is_ok());
        }
        assert_eq!(Mark::read(b"\"short\""), None);
        assert_eq!(Mark::read(&[b'"'; 42]), None);
    }

    #[test]
    fn whatever_changes_on_the_way_breaks_the_seal() {
        let mut body = Vec::new();
        MARK.write(&mut body, 60, 7, an_id());
        assert_eq!(Mark::read_sealed(&body, 8, an_id()), None, "another user");
        let other = MessageId::from_u128(an_id().to_u128() + 1);
        assert_eq!(Mark::read_sealed(&body, 7, other), None, "another id");
        for place in 0..body.len() {
            let mut damaged = body.clone();
            // Another digit for a digit, so that only the seal can tell.
            damaged[place] = if damaged[place] == b'1' { b'2' } else { b'1' };
            assert_eq!(
                Mark::read_sealed(&damaged, 7, an_id()),
                None,
                "byte {place}"
            );
        }
        let mut shorter = body.clone();
        shorter.remove(50);
        assert_eq!(Mark::read_sealed(&shorter, 7, an_id()), None, "a byte less");
    }
}
