//! What arrives: bytes to frames, frames to the behaviour.

use stonechat_protocol::MessageId;

use crate::behaviour::{Behaviour, Breach, Incoming, Receipt, Refused};
use crate::connection::Phase;
use crate::engine::Engine;
use crate::frames::{self, Frame, MessageFrame, Riding};
use crate::websocket::{self, Header, opcode};
use crate::{SwarmError, User};

/// A frame longer than this is not one of the protocol.
const FRAME_BYTES_MAX: usize = 2 * 1024 * 1024;

impl Engine {
    /// Takes in the first `read` bytes of the buffer.
    pub(super) fn take_in<B: Behaviour>(
        &mut self,
        index: usize,
        read: usize,
        behaviour: &mut B,
    ) -> Result<(), SwarmError> {
        let user = u32::try_from(index).unwrap_or(u32::MAX);
        let connection = &mut self.connections[index];
        connection.heard_s = self.shared.now_s();
        connection.asked = false;
        // The bytes are looked at where they are, unless the start of a frame waits for its rest.
        let buffer = std::mem::take(&mut self.buffer);
        let mut partial = std::mem::take(&mut connection.partial);
        let was_partial = !partial.is_empty();
        if was_partial {
            partial.extend_from_slice(&buffer[..read]);
        }
        let bytes = if was_partial {
            &partial[..]
        } else {
            &buffer[..read]
        };
        let result = self
            .frames(user, bytes, behaviour)
            .map_err(|what| SwarmError::Server { user, what });
        if let Ok(used) = result
            && self.connections[index].phase != Phase::Closed
        {
            if was_partial {
                partial.drain(..used);
            } else if used < read {
                partial = self.shared.lend();
                partial.extend_from_slice(&buffer[used..read]);
            }
            if partial.is_empty() {
                self.shared.give_back(partial);
            } else {
                self.connections[index].partial = partial;
            }
        }
        self.buffer = buffer;
        result.map(|_| ())
    }

    /// Handles whole frames and tells how many bytes they were.
    fn frames<B: Behaviour>(
        &mut self,
        index: u32,
        bytes: &[u8],
        behaviour: &mut B,
    ) -> Result<usize, String> {
        let mut at = 0;
        if self.connections[index as usize].phase == Phase::Upgrading {
            let end = match websocket::read_upgrade(bytes) {
                Ok(Some(end)) => end,
                Ok(None) => return Ok(0),
                Err(why) => {
                    self.ended(index as usize, behaviour, &why)
                        .map_err(|e| e.to_string())?;
                    return Ok(bytes.len());
                }
            };
            at = end;
            self.shared.counts.upgraded += 1;
            if self.hello_held {
                self.connections[index as usize].phase = Phase::Upgraded;
                self.connecting -= 1;
            } else {
                self.say_hello(index);
            }
        }
        while let Some(header) = websocket::read_header(&bytes[at..]) {
            if header.payload_bytes > FRAME_BYTES_MAX {
                return Err(format!("a frame of {} bytes", header.payload_bytes));
            }
            let start = at + header.head_bytes;
            let Some(payload) = bytes.get(start..start + header.payload_bytes) else {
                break;
            };
            at = start + header.payload_bytes;
            self.web_socket_frame(index, header, payload, behaviour)?;
            if self.connections[index as usize].phase == Phase::Closed {
                break;
            }
        }
        Ok(at)
    }

    /// Signs in, with what is to be resumed.
    pub(super) fn say_hello(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        connection.phase = Phase::SigningIn;
        let riding = Riding {
            ack: (connection.taken > 0).then_some(connection.taken),
            rev: (connection.rev > 0).then_some(connection.rev),
        };
        let mut out = std::mem::take(connection.out(index, &mut self.shared));
        frames::write_hello(&mut out, &self.shared.roster, index, riding);
        connection.out = out;
    }

    fn web_socket_frame<B: Behaviour>(
        &mut self,
        index: u32,
        header: Header,
        payload: &[u8],
        behaviour: &mut B,
    ) -> Result<(), String> {
        let connection = &mut self.connections[index as usize];
        match header.opcode {
            opcode::TEXT if header.fin => self.frame(index, payload, behaviour),
            opcode::TEXT | opcode::CONTINUATION => {
                connection.fragments.extend_from_slice(payload);
                if connection.fragments.len() > FRAME_BYTES_MAX {
                    return Err("a message without end".to_owned());
                }
                if header.fin {
                    let whole = std::mem::take(&mut connection.fragments);
                    self.frame(index, &whole, behaviour)?;
                }
                Ok(())
            }
            opcode::PING => {
                let out = connection.out(index, &mut self.shared);
                websocket::write_masked(out, opcode::PONG, |out| out.extend_from_slice(payload));
                self.shared.counts.pings += 1;
                Ok(())
            }
            opcode::PONG => Ok(()),
            opcode::CLOSE => {
                let why = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                self.ended(index as usize, behaviour, &why)
                    .map_err(|e| e.to_string())
            }
            other => Err(format!("a frame with opcode {other}")),
        }
    }

    /// Tells the behaviour of a text that is no frame, or in the wrong place.
    fn odd_frame<B: Behaviour>(
        &mut self,
        index: u32,
        behaviour: &mut B,
        what: &'static str,
        text: &[u8],
    ) -> Result<(), String> {
        let text = String::from_utf8_lossy(&text[..text.len().min(300)]);
        let breach = Breach::Frame { what, text: &text };
        behaviour.on_breach(&mut self.user(index), &breach)
    }

    fn user(&mut self, index: u32) -> User<'_> {
        User {
            index,
            connection: &mut self.connections[index as usize],
            shared: &mut self.shared,
        }
    }

    fn frame<B: Behaviour>(
        &mut self,
        index: u32,
        text: &[u8],
        behaviour: &mut B,
    ) -> Result<(), String> {
        let Ok(frame) = frames::read(text) else {
            return self.odd_frame(index, behaviour, "not a frame", text);
        };
        let shared = &mut self.shared;
        let connection = &mut self.connections[index as usize];
        match frame {
            Frame::Message(message) => self.message(index, message, behaviour),
            Frame::Accepted { id, duplicate } => {
                shared.counts.accepted += 1;
                shared.counts.duplicates += u64::from(duplicate);
                self.accepted(index, id, behaviour)
            }
            Frame::Receipt {
                rev,
                with,
                delivered,
                read,
            } => {
                shared.counts.receipts += 1;
                if rev <= connection.rev {
                    return Ok(());
                }
                connection.rev = rev;
                let receipt = Receipt {
                    with: shared.roster.index(with),
                    delivered,
                    read,
                };
                behaviour.on_receipt(&mut self.user(index), &receipt)
            }
            Frame::Error {
                code,
                reference,
                retry_after_ms,
            } => {
                shared.counts.refused += 1;
                let place = connection
                    .unanswered
                    .iter()
                    .position(|sent| Some(sent.id) == reference);
                let refused = Refused {
                    code,
                    sent: place.and_then(|place| connection.unanswered.remove(place)),
                    retry_after_ms,
                };
                behaviour.on_refused(&mut self.user(index), &refused)
            }
            Frame::Welcome {
                heartbeat_ms,
                pending,
                unacked_max,
            } => {
                if connection.phase != Phase::SigningIn {
                    return self.odd_frame(index, behaviour, "welcome once more", text);
                }
                connection.phase = Phase::Open;
                connection.heartbeat_s = u32::try_from(heartbeat_ms.div_ceil(1000)).unwrap_or(30);
                connection.ack_every = u32::try_from(unacked_max / 4).unwrap_or(64).max(1);
                connection.rev_told = connection.rev;
                shared.counts.welcomed += 1;
                self.connecting -= 1;
                let mut user = self.user(index);
                user.resend();
                behaviour.on_welcome(&mut user, pending)
            }
            Frame::Bye {
                reason,
                retry_after_ms,
            } => {
                connection.retry_after_ms = retry_after_ms.unwrap_or(0);
                let why = format!("bye {reason}");
                self.ended(index as usize, behaviour, &why)
                    .map_err(|e| e.to_string())
            }
            Frame::Pong | Frame::Unknown => Ok(()),
        }
    }

    fn message<B: Behaviour>(
        &mut self,
        index: u32,
        message: MessageFrame<'_>,
        behaviour: &mut B,
    ) -> Result<(), String> {
        let mut user = self.user(index);
        let incoming = Incoming {
            seq: message.seq,
            id: message.id,
            body: message.body,
            from: message.from,
            to: message.to,
        };
        let after = user.connection.taken;
        let fresh = message.seq > after;
        if !message.ephemeral {
            user.took(message.seq);
        }
        if message.ephemeral || fresh {
            user.shared.counts.received += 1;
            behaviour.on_message(&mut user, &incoming)?;
        } else if message.redelivered {
            user.shared.counts.redelivered += 1;
            behaviour.on_redelivered(&mut user, &incoming);
        } else {
            user.shared.counts.out_of_order += 1;
            let message = incoming;
            behaviour.on_breach(&mut user, &Breach::Seq { after, message })?;
        }
        user.ack_if_many();
        Ok(())
    }

    /// Answers come in the order of the sends.
    fn accepted<B: Behaviour>(
        &mut self,
        index: u32,
        id: MessageId,
        behaviour: &mut B,
    ) -> Result<(), String> {
        let mut user = self.user(index);
        let due = user.connection.unanswered.front().map(|sent| sent.id);
        let sent = if due == Some(id) {
            user.connection.unanswered.pop_front()
        } else {
            behaviour.on_breach(&mut user, &Breach::Answer { id, due })?;
            let unanswered = &mut user.connection.unanswered;
            let place = unanswered.iter().position(|sent| sent.id == id);
            place.and_then(|place| unanswered.remove(place))
        };
        match sent {
            Some(sent) => behaviour.on_accepted(&mut user, &sent),
            None => Ok(()),
        }
    }
}
