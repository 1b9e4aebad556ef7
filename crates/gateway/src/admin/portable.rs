//! Messages as lines of JSON, out of a mailbox and into one. The body goes
//! through as it is: JSON when the sender's was, and every accepted one is.

use std::collections::HashSet;

use actix_web::web;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use stonechat_broker::{Broker, Posted};
use stonechat_mailbox::{Envelope, MailboxRef, Stored};
use stonechat_protocol::{Address, DeviceId, MessageId, UserId};
use stonechat_trace::TraceRef;

use super::now_ms;
use super::problem::Problem;

/// The media type: one JSON value a line.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// Bytes of one line, at most: more than the largest body takes.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Messages stored in one go.
const BATCH: usize = 256;

/// One message.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    /// Its place in the mailbox it came from; says nothing where it goes to.
    #[serde(default)]
    seq: u64,
    id: MessageId,
    from_user: UserId,
    from_device: DeviceId,
    to: UserId,
    ts_ms: u64,
    expires_ms: u64,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Line<'_> {
    /// Appends a message as a line.
    pub(super) fn write(message: &Stored, out: &mut Vec<u8>) {
        let envelope = &message.envelope;
        let Ok(body) = serde_json::from_slice::<&RawValue>(&envelope.body) else {
            tracing::warn!(id = %envelope.id, "left out of an export: its body is not JSON");
            return;
        };
        let line = Line {
            seq: message.seq,
            id: envelope.id,
            from_user: envelope.from.user.clone(),
            from_device: envelope.from.device.clone(),
            to: envelope.to.clone(),
            ts_ms: envelope.ts_ms,
            expires_ms: envelope.expires_ms,
            body,
        };
        serde_json::to_writer(&mut *out, &line).expect("a line is plain data");
        out.push(b'\n');
    }

    fn into_envelope(self) -> Envelope {
        Envelope {
            from: Address {
                user: self.from_user,
                device: self.from_device,
            },
            to: self.to,
            id: self.id,
            ts_ms: self.ts_ms,
            expires_ms: self.expires_ms,
            body: web::Bytes::copy_from_slice(self.body.get().as_bytes()),
            trace: TraceRef::default(),
        }
    }
}

/// An import under way.
pub(super) struct Import {
    mailbox: MailboxRef,
    /// What the mailbox holds: who sent it, and its id.
    held: HashSet<(UserId, u128)>,
    batch: Vec<Posted>,
    line: u64,
    pub(super) imported: u64,
    pub(super) skipped: u64,
}

impl Import {
    pub(super) fn new(mailbox: MailboxRef) -> Self {
        Self {
            mailbox,
            held: HashSet::new(),
            batch: Vec::new(),
            line: 0,
            imported: 0,
            skipped: 0,
        }
    }

    /// These are there already.
    pub(super) fn holds(&mut self, messages: &[Stored]) {
        let keys = messages.iter().map(|message| {
            (
                message.envelope.from.user.clone(),
                message.envelope.id.to_u128(),
            )
        });
        self.held.extend(keys);
    }

    /// Takes the lines as they come and stores them in order. What was stored before an error
    /// stays.
    pub(super) async fn run(
        &mut self,
        broker: &Broker,
        mut payload: web::Payload,
    ) -> Result<(), Problem> {
        let mut rest: Vec<u8> = Vec::new();
        while let Some(part) = payload.next().await {
            let part =
                part.map_err(|error| Problem::bad_request("bad_request", error.to_string()))?;
            rest.extend_from_slice(&part);
            let mut begin = 0;
            while let Some(len) = rest[begin..].iter().position(|byte| *byte == b'\n') {
                self.take(&rest[begin..begin + len])?;
                begin += len + 1;
                if self.batch.len() >= BATCH {
                    self.store(broker).await?;
                }
            }
            rest.drain(..begin);
            if rest.len() > LINE_BYTES_MAX {
                return Err(self.bad("it is longer than a message can be"));
            }
        }
        self.take(&rest)?;
        self.store(broker).await
    }

    fn bad(&self, what: impl std::fmt::Display) -> Problem {
        Problem::bad_request("bad_line", format!("line {}: {what}", self.line))
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Problem> {
        self.line += 1;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| self.bad(error))?;
        let key = (line.from_user.clone(), line.id.to_u128());
        if line.expires_ms <= now_ms() || !self.held.insert(key) {
            self.skipped += 1;
            return Ok(());
        }
        self.batch.push(Posted {
            mailbox: self.mailbox.clone(),
            sender: None,
            envelope: line.into_envelope(),
        });
        Ok(())
    }

    async fn store(&mut self, broker: &Broker) -> Result<(), Problem> {
        for result in broker.post(std::mem::take(&mut self.batch)).await {
            result?;
            self.imported += 1;
        }
        Ok(())
    }
}
