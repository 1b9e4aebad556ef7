//! What a fuzzer does with tokens.

use super::token::{decode_payload, encode, split, unsigned, user_of_id};

/// A token: taken apart, put together, taken apart again.
///
/// # Panics
/// When a property does not hold.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(user) = user_of_id(text) {
        assert!(
            text.starts_with(user.as_str()),
            "{user} is not the user of {text}"
        );
    }
    let Some(parts) = split(text) else {
        return;
    };
    assert!(
        text.starts_with(parts.signed),
        "what is signed is what was sent"
    );
    let Some(claims) = decode_payload(parts.payload) else {
        return;
    };
    let again = format!(
        "{}.{}",
        unsigned(parts.kid, &claims),
        encode(&parts.signature)
    );
    // Written in the shortest way it may still be longer than the limit: then it is refused.
    if let Some(second) = split(&again) {
        assert_eq!(second.kid, parts.kid);
        assert_eq!(second.signature, parts.signature);
        assert_eq!(decode_payload(second.payload), Some(claims));
    }
}
