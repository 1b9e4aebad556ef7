//! Keys and values of the database and their encoding
//! (docs/adr/0003-journal-format.md). Every value starts with a version byte.

use std::sync::Arc;

use stonechat_protocol::{AcceptedId, IdWindow, Seq, UserId};

use crate::api::{DeadLetter, DeviceState, Stored};
use crate::codec::{DecodeError, Reader, put_bytes, put_id, put_varint};
use crate::journal::record;
use crate::mailbox::{Chunk, Device};

const META_VERSION: u8 = 1;
const CHUNK_VERSION: u8 = 1;
const DEAD_VERSION: u8 = 1;

/// Largest value given to sled. Its leaves split at 16 entries, not at a size, and a
/// leaf image beyond a quarter of sled's segment would go to files it never syncs:
/// 20 entries of this size stay far below that with the segment size we set.
pub(crate) const PART_BYTES_MAX: usize = 16 << 10;
/// Bytes of encoded messages gathered in one chunk.
pub(crate) const CHUNK_BYTES_MAX: usize = 15 << 10;

fn version(reader: &mut Reader<'_>, known: u8) -> Result<(), DecodeError> {
    match reader.u8()? {
        0 => Err(DecodeError::Damaged("version 0 does not exist")),
        found if found > known => Err(DecodeError::Newer(u32::from(found))),
        _ => Ok(()),
    }
}

/// `user 0x00`: no user name contains a byte below 0x21, so no prefix is another's.
pub(crate) fn user_prefix(user: &UserId) -> Vec<u8> {
    let mut key = Vec::with_capacity(user.as_str().len() + 10);
    key.extend_from_slice(user.as_str().as_bytes());
    key.push(0);
    key
}

/// `user 0x00 first_seq part`.
pub(crate) fn chunk_key(user: &UserId, first: Seq, part: u8) -> Vec<u8> {
    let mut key = user_prefix(user);
    key.extend_from_slice(&first.to_be_bytes());
    key.push(part);
    key
}

/// Takes a chunk's key apart.
pub(crate) fn parse_chunk_key(key: &[u8]) -> Result<(UserId, Seq, u8), DecodeError> {
    let damaged = DecodeError::Damaged("not a key of stored messages");
    let at = key
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(damaged.clone())?;
    let rest: [u8; 9] = key[at + 1..].try_into().map_err(|_| damaged.clone())?;
    let user = std::str::from_utf8(&key[..at])
        .ok()
        .and_then(|name| UserId::new(name).ok())
        .ok_or(damaged)?;
    let (first, part) = rest.split_at(8);
    let first = u64::from_be_bytes(first.try_into().unwrap_or_default());
    Ok((user, first, part[0]))
}

/// `user 0x00 with`.
pub(crate) fn receipt_key(user: &UserId, with: &UserId) -> Vec<u8> {
    let mut key = user_prefix(user);
    key.extend_from_slice(with.as_str().as_bytes());
    key
}

/// `minute user 0x00`.
pub(crate) fn expiry_key(minute: u64, user: &UserId) -> Vec<u8> {
    let mut key = minute.to_be_bytes().to_vec();
    key.extend(user_prefix(user));
    key
}

/// Takes an expiry key apart.
pub(crate) fn parse_expiry_key(key: &[u8]) -> Result<(u64, UserId), DecodeError> {
    let damaged = || DecodeError::Damaged("not a key of the expiry index");
    let (minute, rest) = key.split_at_checked(8).ok_or_else(damaged)?;
    let name = rest.strip_suffix(&[0]).ok_or_else(damaged)?;
    let user = std::str::from_utf8(name)
        .ok()
        .and_then(|name| UserId::new(name).ok())
        .ok_or_else(damaged)?;
    let minute = u64::from_be_bytes(minute.try_into().unwrap_or_default());
    Ok((minute, user))
}

/// What is stored of a mailbox apart from its messages and receipts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Every journal record below this position is reflected.
    pub(crate) lsn: u64,
    pub(crate) last_seq: Seq,
    pub(crate) floor: Seq,
    pub(crate) first_cursor: Seq,
    pub(crate) migrated_upto: Seq,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) expired_total: u64,
    pub(crate) rev_last: u64,
    pub(crate) expiry_minute: u64,
    pub(crate) removed: bool,
    pub(crate) devices: Vec<Device>,
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(META_VERSION);
        for number in [
            self.messages,
            self.bytes,
            self.expired_total,
            self.lsn,
            self.last_seq,
            self.floor,
            self.first_cursor,
            self.migrated_upto,
            self.rev_last,
            self.expiry_minute,
        ] {
            put_varint(&mut out, number);
        }
        out.push(u8::from(self.removed));
        put_varint(&mut out, self.devices.len() as u64);
        for device in &self.devices {
            put_device(&mut out, device);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader, META_VERSION)?;
        let mut meta = Self {
            messages: reader.varint()?,
            bytes: reader.varint()?,
            expired_total: reader.varint()?,
            lsn: reader.varint()?,
            last_seq: reader.varint()?,
            floor: reader.varint()?,
            first_cursor: reader.varint()?,
            migrated_upto: reader.varint()?,
            rev_last: reader.varint()?,
            expiry_minute: reader.varint()?,
            removed: reader.flag()?,
            devices: Vec::new(),
        };
        for _ in 0..reader.varint()? {
            meta.devices.push(device(&mut reader)?);
        }
        if !reader.is_empty() {
            return Err(DecodeError::Damaged("a mailbox record is too long"));
        }
        Ok(meta)
    }

    /// Messages, bytes and messages expired, without decoding the rest.
    pub(crate) fn decode_counters(bytes: &[u8]) -> Result<(u64, u64, u64), DecodeError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader, META_VERSION)?;
        Ok((reader.varint()?, reader.varint()?, reader.varint()?))
    }
}

fn put_device(out: &mut Vec<u8>, device: &Device) {
    let state = &device.state;
    put_bytes(out, device.id.as_str().as_bytes());
    put_varint(out, state.cursor);
    put_varint(out, state.sent);
    put_varint(out, state.receipts_seen);
    put_varint(out, state.last_seen_ms);
    put_varint(out, device.connected_epoch);
    put_varint(out, state.window.entries().len() as u64);
    for entry in state.window.entries() {
        put_id(out, entry.id);
        put_varint(out, entry.ts_ms);
    }
}

fn device(reader: &mut Reader<'_>) -> Result<Device, DecodeError> {
    let mut device = Device::new(reader.device()?);
    device.state = DeviceState {
        cursor: reader.varint()?,
        sent: reader.varint()?,
        receipts_seen: reader.varint()?,
        last_seen_ms: reader.varint()?,
        window: IdWindow::default(),
    };
    device.connected_epoch = reader.varint()?;
    for _ in 0..reader.varint()? {
        let AcceptedId { id, ts_ms } = AcceptedId {
            id: reader.id()?,
            ts_ms: reader.varint()?,
        };
        device.state.window.insert(id, ts_ms);
    }
    Ok(device)
}

/// Encodes consecutive messages as one chunk.
pub(crate) fn encode_chunk(messages: &[Stored]) -> (Chunk, Vec<u8>) {
    let mut content = Vec::new();
    let mut chunk = Chunk {
        first: messages.first().map_or(0, |message| message.seq),
        span: messages.len() as u32,
        body_bytes: 0,
        value_bytes: 0,
        parts: 1,
        expires_ms_min: u64::MAX,
        ts_ms_first: messages.first().map_or(0, |message| message.envelope.ts_ms),
    };
    for (index, message) in messages.iter().enumerate() {
        debug_assert_eq!(
            message.seq,
            chunk.first + index as u64,
            "a chunk has no gaps"
        );
        chunk.body_bytes += message.envelope.body.len() as u32;
        chunk.expires_ms_min = chunk.expires_ms_min.min(message.envelope.expires_ms);
        record::put_envelope(&mut content, &message.envelope);
    }
    let mut out = Vec::with_capacity(content.len() + 48);
    out.push(CHUNK_VERSION);
    put_varint(&mut out, u64::from(chunk.span));
    put_varint(&mut out, u64::from(chunk.body_bytes));
    put_varint(&mut out, chunk.expires_ms_min);
    put_varint(&mut out, chunk.ts_ms_first);
    put_bytes(&mut out, &content);
    chunk.value_bytes = out.len() as u32;
    chunk.parts = out.len().div_ceil(PART_BYTES_MAX) as u8;
    (chunk, out)
}

/// Reads a chunk's head from its first part.
pub(crate) fn decode_chunk_head(first: Seq, bytes: &[u8]) -> Result<Chunk, DecodeError> {
    let mut reader = Reader::new(bytes);
    let (mut chunk, content) = chunk_head(first, &mut reader)?;
    let total = bytes.len() - reader.left() + content;
    chunk.value_bytes =
        u32::try_from(total).map_err(|_| DecodeError::Damaged("a chunk is too long"))?;
    chunk.parts = u8::try_from(total.div_ceil(PART_BYTES_MAX))
        .map_err(|_| DecodeError::Damaged("a chunk is too long"))?;
    Ok(chunk)
}

fn chunk_head(first: Seq, reader: &mut Reader<'_>) -> Result<(Chunk, usize), DecodeError> {
    version(reader, CHUNK_VERSION)?;
    let chunk = Chunk {
        first,
        span: reader.varint_u32()?,
        body_bytes: reader.varint_u32()?,
        value_bytes: 0,
        parts: 0,
        expires_ms_min: reader.varint()?,
        ts_ms_first: reader.varint()?,
    };
    if chunk.span == 0 || first == 0 || first.checked_add(u64::from(chunk.span)).is_none() {
        return Err(DecodeError::Damaged("a chunk without messages"));
    }
    let content = reader.varint()? as usize;
    Ok((chunk, content))
}

/// Reads all messages of a chunk from its joined parts.
pub(crate) fn decode_chunk(first: Seq, bytes: &[u8]) -> Result<Vec<Stored>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let (chunk, content) = chunk_head(first, &mut reader)?;
    let mut content = Reader::new(reader.take(content)?);
    let mut messages = Vec::with_capacity(chunk.span.min(4096) as usize);
    for seq in first..first + u64::from(chunk.span) {
        messages.push(Stored {
            seq,
            envelope: Arc::new(record::envelope(&mut content)?),
        });
    }
    if !content.is_empty() || !reader.is_empty() {
        return Err(DecodeError::Damaged("a chunk is longer than its content"));
    }
    Ok(messages)
}

/// Encodes a dead letter, without its number.
pub(crate) fn encode_dead(letter: &DeadLetter) -> Vec<u8> {
    let mut out = vec![DEAD_VERSION];
    put_bytes(&mut out, letter.user.as_str().as_bytes());
    put_varint(&mut out, letter.stored.seq);
    put_varint(&mut out, letter.ts_ms);
    put_bytes(&mut out, letter.reason.as_bytes());
    record::put_envelope(&mut out, &letter.stored.envelope);
    out
}

/// Reads a dead letter.
pub(crate) fn decode_dead(number: u64, bytes: &[u8]) -> Result<DeadLetter, DecodeError> {
    let mut reader = Reader::new(bytes);
    version(&mut reader, DEAD_VERSION)?;
    let user = reader.user()?;
    let seq = reader.varint()?;
    let ts_ms = reader.varint()?;
    let reason = reader.text()?.to_owned();
    let envelope = Arc::new(record::envelope(&mut reader)?);
    Ok(DeadLetter {
        number,
        user,
        stored: Stored { seq, envelope },
        reason,
        ts_ms,
    })
}
