//! Names and ids: users, devices, messages, mailbox sequence numbers.
//!
//! Parsing is the only way to make one, so a value that exists is valid. This
//! module does not know who exists: that is the account directory's business.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

/// Position of a message in one mailbox. Starts at 1; 0 means "before everything".
pub type Seq = u64;

/// Longest user or device name, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a string is not the id it was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, or longer than [`NAME_BYTES_MAX`].
    #[error("a name has 1 to 64 characters")]
    Length,
    /// A character outside the user alphabet.
    #[error("a user name consists of a-z, 0-9, '.', '_', '+' and '-'")]
    UserCharacter,
    /// A character outside the device alphabet.
    #[error("a device name consists of a-z, A-Z, 0-9, '.', '_' and '-'")]
    DeviceCharacter,
    /// Not a hyphenated UUID of version 7.
    #[error("a message id is a UUID of version 7 in its hyphenated form")]
    MessageId,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $allowed:expr, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks `text` and makes it an id.
            ///
            /// # Errors
            /// [`IdError`] when the length or a character is not allowed.
            pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
                let text = text.as_ref();
                if text.is_empty() || text.len() > NAME_BYTES_MAX {
                    return Err(IdError::Length);
                }
                let allowed: fn(u8) -> bool = $allowed;
                if !text.bytes().all(allowed) {
                    return Err($error);
                }
                Ok(Self(SmolStr::new(text)))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A user: 1 to 64 of `a-z0-9._+-`.
    UserId,
    |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'+' | b'-'),
    IdError::UserCharacter
);

name_type!(
    /// One device of a user: 1 to 64 of `a-zA-Z0-9._-`.
    DeviceId,
    |b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-'),
    IdError::DeviceCharacter
);

/// A message id: a UUID of version 7, chosen by the sending device.
///
/// Ids of one device strictly increase (contract D3), which is what makes a
/// window of the last few enough to recognise every resend.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u128);

impl MessageId {
    /// Parses the hyphenated form; upper case is accepted, lower case is what is written.
    ///
    /// # Errors
    /// [`IdError::MessageId`] for any other form, version or variant.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() != uuid::fmt::Hyphenated::LENGTH {
            return Err(IdError::MessageId);
        }
        let uuid = uuid::Uuid::try_parse(text).map_err(|_| IdError::MessageId)?;
        if uuid.get_version_num() != 7 || uuid.get_variant() != uuid::Variant::RFC4122 {
            return Err(IdError::MessageId);
        }
        Ok(Self(uuid.as_u128()))
    }

    /// The 128 bits, as stored.
    pub fn to_u128(self) -> u128 {
        self.0
    }

    /// Takes back what [`MessageId::to_u128`] gave. For storage, which checks its own bytes.
    pub fn from_u128(bits: u128) -> Self {
        Self(bits)
    }

    /// Writes the 36 characters of the hyphenated form.
    pub fn encode(self, buffer: &mut [u8; 36]) -> &str {
        uuid::Uuid::from_u128(self.0)
            .hyphenated()
            .encode_lower(buffer)
    }
}

impl FromStr for MessageId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 36]))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.encode(&mut [0; 36]))
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// One device of one user: where a message comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// The user.
    pub user: UserId,
    /// That user's device.
    pub device: DeviceId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(UserId::new("a.b_c+d-9").is_ok());
        assert_eq!(UserId::new("Alice"), Err(IdError::UserCharacter));
        assert_eq!(UserId::new(""), Err(IdError::Length));
        assert_eq!(UserId::new("a".repeat(65)), Err(IdError::Length));
        assert!(UserId::new("a".repeat(64)).is_ok());
        assert!(DeviceId::new("Phone-1.x_y").is_ok());
        assert_eq!(DeviceId::new("a+b"), Err(IdError::DeviceCharacter));
        assert_eq!(DeviceId::new("ü"), Err(IdError::DeviceCharacter));
    }

    #[test]
    fn message_ids_are_version_7_only() {
        let id = MessageId::parse("0190163D-8694-739B-AEA5-966C26F8AD91").unwrap();
        assert_eq!(id.to_string(), "0190163d-8694-739b-aea5-966c26f8ad91");
        assert_eq!(MessageId::from_u128(id.to_u128()), id);
        for bad in [
            "0190163d8694739baea5966c26f8ad91",
            "0190163d-8694-439b-aea5-966c26f8ad91",
            "0190163d-8694-739b-cea5-966c26f8ad91",
            "{0190163d-8694-739b-aea5-966c26f8ad91}",
            "",
        ] {
            assert_eq!(MessageId::parse(bad), Err(IdError::MessageId), "{bad}");
        }
    }
}
