//! Journal records and their encoding (docs/adr/0003-journal-format.md).
//!
//! A record is `kind u8, length varint, payload`. Checksums are the frame's
//! business. A kind this build does not know stops the start: with a valid
//! checksum around it, only a later version can have written it.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use stonechat_protocol::{Address, DeviceId, Seq, UserId};
use stonechat_trace::TraceRef;

use super::FORMAT;
use crate::api::{Account, DeviceState, Envelope, Receipt, UserLimits};
use crate::codec::{DecodeError, Reader, put_bytes, put_id, put_opt_id, put_varint};

const MESSAGE: u8 = 1;
const DEVICE: u8 = 2;
const RECEIPT: u8 = 3;
const REMOVE_MESSAGE: u8 = 4;
const REMOVE_DEVICE: u8 = 5;
const REMOVE_USER: u8 = 6;
const ACCOUNT: u8 = 7;
const VALUE: u8 = 8;
const CLOSED: u8 = 9;
const PURGE: u8 = 10;

/// One decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A message and its places.
    Message {
        envelope: Arc<Envelope>,
        places: SmallVec<[(UserId, Seq); 2]>,
    },
    /// Where a device stands, absolute: attach, detach, ack and seen receipts coalesced.
    Device(DeviceRecord),
    /// A conversation's watermarks, absolute. Written when `read` moved.
    Receipt { user: UserId, receipt: Receipt },
    /// A message left its mailbox for the dead letters, or because it had expired.
    RemoveMessage {
        user: UserId,
        seq: Seq,
        expired: bool,
    },
    /// A device was forgotten.
    RemoveDevice { user: UserId, device: DeviceId },
    /// An account and all in its mailbox up to here were removed.
    RemoveUser { user: UserId, upto: Seq },
    /// Everything in a mailbox up to here was thrown away by an operator.
    Purge { user: UserId, upto: Seq },
    /// An account was created or changed.
    Account(Account),
    /// A small value was set (`Some`) or removed.
    Value { key: String, value: Option<Bytes> },
    /// The store was closed in order; nothing follows in this segment.
    Closed,
}

/// Where a device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRecord {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) cursor: Seq,
    pub(crate) sent: Seq,
    pub(crate) receipts_seen: u64,
    pub(crate) last_seen_ms: u64,
    pub(crate) connected: bool,
    /// Greatest cursor of any device before what this record reports: messages
    /// above it and up to `cursor` were acknowledged by a first device.
    pub(crate) first_before: Seq,
}

/// Appends `kind, length, payload`.
fn framed(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    // Payloads may be 64 KiB and more: a fixed width length can be patched in place.
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    payload(out);
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// Appends a message record without building a [`Record`] (the hot path).
pub(crate) fn put_message<'a>(
    out: &mut Vec<u8>,
    envelope: &Envelope,
    places: impl ExactSizeIterator<Item = (&'a UserId, Seq)>,
) {
    framed(out, MESSAGE, |out| {
        put_envelope(out, envelope);
        put_varint(out, places.len() as u64);
        for (user, seq) in places {
            if *user == envelope.to {
                out.push(0);
            } else if *user == envelope.from.user {
                out.push(1);
            } else {
                out.push(2);
                put_bytes(out, user.as_str().as_bytes());
            }
            put_varint(out, seq);
        }
    });
}

/// Appends an envelope; also used in stored chunks and dead letters.
pub(crate) fn put_envelope(out: &mut Vec<u8>, envelope: &Envelope) {
    put_bytes(out, envelope.from.user.as_str().as_bytes());
    put_bytes(out, envelope.from.device.as_str().as_bytes());
    put_bytes(out, envelope.to.as_str().as_bytes());
    put_id(out, envelope.id);
    put_varint(out, envelope.ts_ms);
    put_varint(out, envelope.expires_ms);
    put_bytes(out, &envelope.body);
}

/// Reads an envelope back.
pub(crate) fn envelope(reader: &mut Reader<'_>) -> Result<Envelope, DecodeError> {
    Ok(Envelope {
        from: Address {
            user: reader.user()?,
            device: reader.device()?,
        },
        to: reader.user()?,
        id: reader.id()?,
        ts_ms: reader.varint()?,
        expires_ms: reader.varint()?,
        body: reader.bytes_owned()?,
        trace: TraceRef::default(),
    })
}

/// Appends a device record.
pub(crate) fn put_device(
    out: &mut Vec<u8>,
    user: &UserId,
    device: &DeviceId,
    state: &DeviceState,
    connected: bool,
    first_before: Seq,
) {
    framed(out, DEVICE, |out| {
        put_bytes(out, user.as_str().as_bytes());
        put_bytes(out, device.as_str().as_bytes());
        put_varint(out, state.cursor);
        put_varint(out, state.sent);
        put_varint(out, state.receipts_seen);
        put_varint(out, state.last_seen_ms);
        out.push(u8::from(connected));
        put_varint(out, first_before);
    });
}

/// Appends a receipt record.
pub(crate) fn put_receipt(out: &mut Vec<u8>, user: &UserId, receipt: &Receipt) {
    framed(out, RECEIPT, |out| {
        put_bytes(out, user.as_str().as_bytes());
        put_bytes(out, receipt.with.as_str().as_bytes());
        put_receipt_body(out, receipt);
    });
}

/// Appends what a receipt says, without the two users. Also the stored form.
pub(crate) fn put_receipt_body(out: &mut Vec<u8>, receipt: &Receipt) {
    put_varint(out, receipt.rev);
    put_opt_id(out, receipt.delivered);
    put_opt_id(out, receipt.read);
    put_varint(out, receipt.ts_ms);
}

/// Reads what [`put_receipt_body`] wrote.
pub(crate) fn receipt_body(with: UserId, reader: &mut Reader<'_>) -> Result<Receipt, DecodeError> {
    Ok(Receipt {
        with,
        rev: reader.varint()?,
        delivered: reader.opt_id()?,
        read: reader.opt_id()?,
        ts_ms: reader.varint()?,
    })
}

/// Appends an account; also the stored form.
pub(crate) fn put_account_body(out: &mut Vec<u8>, account: &Account) {
    put_bytes(out, account.user.as_str().as_bytes());
    put_varint(out, account.created_ms);
    put_varint(out, account.tokens_valid_from_ms);
    out.push(u8::from(account.disabled));
    let limits = &account.limits;
    // Nothing for who has none of their own: accounts look as they always did.
    if !limits.is_none() {
        put_opt_number(out, limits.messages_per_s.map(u64::from));
        put_opt_number(out, limits.mailbox_messages_max);
        put_opt_number(out, limits.mailbox_bytes_max);
    }
}

/// Reads what [`put_account_body`] wrote.
pub(crate) fn account_body(reader: &mut Reader<'_>) -> Result<Account, DecodeError> {
    let mut account = Account {
        user: reader.user()?,
        created_ms: reader.varint()?,
        tokens_valid_from_ms: reader.varint()?,
        disabled: reader.flag()?,
        limits: UserLimits::default(),
    };
    if !reader.is_empty() {
        let messages_per_s = opt_number(reader)?.map(u32::try_from).transpose();
        account.limits = UserLimits {
            messages_per_s: messages_per_s
                .map_err(|_| DecodeError::Damaged("a rate is too large"))?,
            mailbox_messages_max: opt_number(reader)?,
            mailbox_bytes_max: opt_number(reader)?,
        };
    }
    Ok(account)
}

fn put_opt_number(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put_varint(out, number);
    }
}

fn opt_number(reader: &mut Reader<'_>) -> Result<Option<u64>, DecodeError> {
    Ok(match reader.flag()? {
        true => Some(reader.varint()?),
        false => None,
    })
}

impl Record {
    /// Appends the record.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Message { envelope, places } => {
                put_message(out, envelope, places.iter().map(|(user, seq)| (user, *seq)));
            }
            Self::Device(record) => {
                let state = DeviceState {
                    cursor: record.cursor,
                    sent: record.sent,
                    receipts_seen: record.receipts_seen,
                    window: Default::default(),
                    last_seen_ms: record.last_seen_ms,
                };
                put_device(
                    out,
                    &record.user,
                    &record.device,
                    &state,
                    record.connected,
                    record.first_before,
                );
            }
            Self::Receipt { user, receipt } => put_receipt(out, user, receipt),
            Self::RemoveMessage { user, seq, expired } => framed(out, REMOVE_MESSAGE, |out| {
                put_bytes(out, user.as_str().as_bytes());
                put_varint(out, *seq);
                out.push(u8::from(*expired));
            }),
            Self::RemoveDevice { user, device } => framed(out, REMOVE_DEVICE, |out| {
                put_bytes(out, user.as_str().as_bytes());
                put_bytes(out, device.as_str().as_bytes());
            }),
            Self::RemoveUser { user, upto } => framed(out, REMOVE_USER, |out| {
                put_bytes(out, user.as_str().as_bytes());
                put_varint(out, *upto);
            }),
            Self::Purge { user, upto } => framed(out, PURGE, |out| {
                put_bytes(out, user.as_str().as_bytes());
                put_varint(out, *upto);
            }),
            Self::Account(account) => framed(out, ACCOUNT, |out| put_account_body(out, account)),
            Self::Value { key, value } => framed(out, VALUE, |out| {
                put_bytes(out, key.as_bytes());
                out.push(u8::from(value.is_some()));
                if let Some(value) = value {
                    put_bytes(out, value);
                }
            }),
            Self::Closed => framed(out, CLOSED, |_| {}),
        }
    }

    /// Reads the next record.
    pub(crate) fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let kind = reader.u8()?;
        let len: [u8; 4] = reader
            .take(4)?
            .try_into()
            .map_err(|_| DecodeError::Damaged("the record ends early"))?;
        let mut body = Reader::new(reader.take(u32::from_le_bytes(len) as usize)?);
        let record = Self::payload(kind, &mut body)?;
        if !body.is_empty() {
            return Err(DecodeError::Damaged("a record is longer than its content"));
        }
        Ok(record)
    }

    fn payload(kind: u8, body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            MESSAGE => Self::message(body)?,
            DEVICE => Self::Device(DeviceRecord {
                user: body.user()?,
                device: body.device()?,
                cursor: body.varint()?,
                sent: body.varint()?,
                receipts_seen: body.varint()?,
                last_seen_ms: body.varint()?,
                connected: body.flag()?,
                first_before: body.varint()?,
            }),
            RECEIPT => {
                let user = body.user()?;
                let with = body.user()?;
                Self::Receipt {
                    user,
                    receipt: receipt_body(with, body)?,
                }
            }
            REMOVE_MESSAGE => Self::RemoveMessage {
                user: body.user()?,
                seq: body.varint()?,
                expired: body.flag()?,
            },
            REMOVE_DEVICE => Self::RemoveDevice {
                user: body.user()?,
                device: body.device()?,
            },
            REMOVE_USER => Self::RemoveUser {
                user: body.user()?,
                upto: body.varint()?,
            },
            PURGE => Self::Purge {
                user: body.user()?,
                upto: body.varint()?,
            },
            ACCOUNT => Self::Account(account_body(body)?),
            VALUE => Self::Value {
                key: body.text()?.to_owned(),
                value: if body.flag()? {
                    Some(body.bytes_owned()?)
                } else {
                    None
                },
            },
            CLOSED => Self::Closed,
            0 => return Err(DecodeError::Damaged("record kind 0 does not exist")),
            _ => return Err(DecodeError::Newer(FORMAT + 1)),
        })
    }

    fn message(body: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let envelope = Arc::new(envelope(body)?);
        let count = body.varint()?;
        let mut places = SmallVec::new();
        for _ in 0..count {
            let user = match body.u8()? {
                0 => envelope.to.clone(),
                1 => envelope.from.user.clone(),
                2 => body.user()?,
                _ => return Err(DecodeError::Damaged("not a kind of recipient")),
            };
            places.push((user, body.varint()?));
        }
        Ok(Self::Message { envelope, places })
    }
}
