//! Message ids that increase: the clock's millisecond, or one more than the last.

use stonechat_protocol::MessageId;

const VERSION_AND_VARIANT: u128 = (0x7 << 76) | (0b10 << 62);
/// The random part below the variant; its top bit stays clear so that there is room to count up.
const RANDOM_MASK: u128 = (1 << 61) - 1;

/// The id after `last`, at or above `unix_ms`.
pub(crate) fn next(last: MessageId, unix_ms: u64, random: u64) -> MessageId {
    let fresh =
        (u128::from(unix_ms) << 80) | VERSION_AND_VARIANT | (u128::from(random) & RANDOM_MASK);
    // A device would have to send 2^61 messages in a millisecond to overflow into the variant.
    MessageId::from_u128(fresh.max(last.to_u128() + 1))
}

/// Before the first id.
pub(crate) const NONE: u128 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_valid_and_increase_whatever_the_clock_does() {
        let mut last = MessageId::from_u128(NONE);
        for (ms, random) in [(9, u64::MAX), (9, 0), (9, 7), (8, 1), (10, 0), (10, 0)] {
            let id = next(last, ms, random);
            assert!(id > last, "{id} after {last}");
            assert!(MessageId::parse(&id.to_string()).is_ok(), "{id}");
            last = id;
        }
    }
}
