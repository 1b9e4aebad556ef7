//! Bytes in and out: the few primitives that every stored format is made of.
//!
//! Integers are LEB128 varints unless a fixed width is needed for ordering or
//! patching. This module knows no format and no version: `journal::record`
//! and `sledstore::values` do.

use bytes::Bytes;
use stonechat_protocol::{DeviceId, MessageId, UserId};

/// Why bytes could not be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The bytes end early, or a field has a value it cannot have.
    #[error("{0}")]
    Damaged(&'static str),
    /// A kind or version only a later build can have written.
    #[error("format {0} is newer than this build")]
    Newer(u32),
}

/// Appends `value` as a varint.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a byte string with its length.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a message id, 16 bytes.
pub(crate) fn put_id(out: &mut Vec<u8>, id: MessageId) {
    out.extend_from_slice(&id.to_u128().to_be_bytes());
}

/// Appends an optional message id: a flag, then 16 bytes.
pub(crate) fn put_opt_id(out: &mut Vec<u8>, id: Option<MessageId>) {
    match id {
        None => out.push(0),
        Some(id) => {
            out.push(1);
            put_id(out, id);
        }
    }
}

/// Reads what the `put_…` functions wrote, checking every length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Damaged("the record ends early"))?;
        self.rest = rest;
        Ok(head)
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    /// A flag: 0 or 1.
    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Damaged("a flag is neither 0 nor 1")),
        }
    }

    /// A varint.
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Damaged("a number is too long"))
    }

    /// A varint that must fit `u32`.
    pub(crate) fn varint_u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?).map_err(|_| DecodeError::Damaged("a number is too large"))
    }

    /// A byte string with its length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.varint()?)
            .map_err(|_| DecodeError::Damaged("a length is too large"))?;
        self.take(len)
    }

    /// A byte string with its length, owned.
    pub(crate) fn bytes_owned(&mut self) -> Result<Bytes, DecodeError> {
        self.bytes().map(Bytes::copy_from_slice)
    }

    /// A UTF-8 string with its length.
    pub(crate) fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Damaged("text is not UTF-8"))
    }

    /// A user name.
    pub(crate) fn user(&mut self) -> Result<UserId, DecodeError> {
        UserId::new(self.text()?).map_err(|_| DecodeError::Damaged("not a user name"))
    }

    /// A device name.
    pub(crate) fn device(&mut self) -> Result<DeviceId, DecodeError> {
        DeviceId::new(self.text()?).map_err(|_| DecodeError::Damaged("not a device name"))
    }

    /// A message id.
    pub(crate) fn id(&mut self) -> Result<MessageId, DecodeError> {
        let bytes: [u8; 16] = self
            .take(16)?
            .try_into()
            .map_err(|_| DecodeError::Damaged("the record ends early"))?;
        Ok(MessageId::from_u128(u128::from_be_bytes(bytes)))
    }

    /// An optional message id.
    pub(crate) fn opt_id(&mut self) -> Result<Option<MessageId>, DecodeError> {
        Ok(if self.flag()? { Some(self.id()?) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_come_back(value: u64, tail: u8) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            out.push(tail);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert_eq!(reader.u8().unwrap(), tail);
            prop_assert!(reader.is_empty());
            prop_assert!(reader.u8().is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() {
                if reader.varint().is_err() || reader.bytes().is_err() || reader.user().is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn overlong_varints_are_refused() {
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        let mut max = Vec::new();
        put_varint(&mut max, u64::MAX);
        assert_eq!(Reader::new(&max).varint(), Ok(u64::MAX));
    }
}
