//! Reading WebSocket frames from clients (RFC 6455), without IO.
//!
//! Bytes go in as they arrive, whole messages and control frames come out. A
//! breach is found from the header, before anything is buffered for it. Memory
//! is held only for a frame that is not complete yet and for a message that
//! comes in fragments; both are bounded by the message limit.
//!
//! It negotiates nothing, answers nothing and knows no extension: every
//! reserved bit is a breach. Binary messages are refused, this protocol speaks
//! text.

use std::ops::ControlFlow;

use actix_http::ws::Parser;
use stonechat_protocol::CloseReason;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Payload of a control frame, in bytes.
const CONTROL_BYTES_MAX: u64 = 125;

/// A buffer that holds this much more than it needs is given back.
const SLACK_BYTES_MAX: usize = 256;

/// What a client said, borrowed from the bytes it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// To be answered with the same payload.
    Ping(&'a [u8]),
    /// Answers a ping, or comes by itself; carries nothing of interest.
    Pong,
    /// The client closes, perhaps saying why.
    Close(Option<u16>),
}

/// Why the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// A breach of the framing rules.
    #[error("{0}")]
    Protocol(&'static str),
    /// A text message or close reason that is not UTF-8.
    #[error("text is not UTF-8")]
    InvalidUtf8,
    /// A binary message.
    #[error("binary messages are not understood")]
    Binary,
    /// A message above the limit.
    #[error("message above the limit")]
    TooLarge,
}

impl Violation {
    /// What the client is told.
    pub(crate) fn close_reason(self) -> CloseReason {
        match self {
            Self::Protocol(_) => CloseReason::ProtocolError,
            Self::InvalidUtf8 => CloseReason::InvalidUtf8,
            Self::Binary => CloseReason::UnsupportedData,
            Self::TooLarge => CloseReason::TooLarge,
        }
    }
}

/// Puts messages together from bytes.
#[derive(Debug)]
pub(crate) struct FrameReader {
    message_bytes_max: usize,
    /// Bytes not looked at yet: an incomplete frame, or whatever stood behind a frame at
    /// which the caller wanted to stop.
    pending: Vec<u8>,
    /// Fragments of a text message so far.
    message: Vec<u8>,
    /// So many bytes of `message` are whole characters.
    message_checked: u32,
    in_message: bool,
}

struct Header {
    fin: bool,
    opcode: u8,
    payload_bytes: usize,
    header_bytes: usize,
    mask: [u8; 4],
}

enum Step<'a> {
    /// The frame has this many bytes at least, which is more than there are.
    Incomplete(usize),
    /// A fragment was taken in.
    Fragment(usize),
    /// Something for the caller, and the bytes it took.
    Complete(usize, Incoming<'a>),
}

impl FrameReader {
    /// A reader for messages of at most `message_bytes_max` bytes.
    pub(crate) fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            pending: Vec::new(),
            message: Vec::new(),
            message_checked: 0,
            in_message: false,
        }
    }

    /// Takes bytes in and hands what is complete to `sink`, in order, until it breaks; the
    /// rest is kept for the next call (which may bring no new bytes). Unmasks in place.
    ///
    /// After a violation the reader must not be used any more.
    pub(crate) fn feed(
        &mut self,
        chunk: &mut [u8],
        sink: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        if self.pending.is_empty() {
            let (used, needed, flow) = self.run(chunk, sink)?;
            let rest = &chunk[used..];
            if !rest.is_empty() {
                self.pending.reserve_exact(needed.max(rest.len()));
                self.pending.extend_from_slice(rest);
            }
            return Ok(flow);
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(chunk);
        let (used, needed, flow) = self.run(&mut pending, sink)?;
        if used < pending.len() {
            pending.drain(..used);
            let wanted = needed.max(pending.len());
            if pending.capacity() > wanted + SLACK_BYTES_MAX {
                pending.shrink_to(wanted);
            } else if needed > pending.len() {
                pending.reserve_exact(needed - pending.len());
            }
            self.pending = pending;
        }
        Ok(flow)
    }

    /// Puts bytes in that were read before the reader was there.
    pub(crate) fn preload(&mut self, bytes: Vec<u8>) {
        self.pending = bytes;
    }

    /// Whether bytes wait that were not handed out yet.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Heap held at the moment, in bytes.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn heap_bytes(&self) -> usize {
        self.pending.capacity() + self.message.capacity()
    }

    /// Returns the bytes used, the size of the frame that is incomplete (0 when none is
    /// known to be), and whether the sink broke.
    fn run(
        &mut self,
        bytes: &mut [u8],
        sink: &mut impl FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<(usize, usize, ControlFlow<()>), Violation> {
        let mut used = 0;
        while used < bytes.len() {
            match self.step(&mut bytes[used..])? {
                Step::Incomplete(needed) => return Ok((used, needed, ControlFlow::Continue(()))),
                Step::Fragment(taken) => used += taken,
                Step::Complete(taken, incoming) => {
                    used += taken;
                    let is_text = matches!(incoming, Incoming::Text(_));
                    let flow = sink(incoming);
                    if is_text && !self.message.is_empty() {
                        self.message = Vec::new();
                        self.message_checked = 0;
                    }
                    if flow.is_break() {
                        return Ok((used, 0, flow));
                    }
                }
            }
        }
        Ok((used, 0, ControlFlow::Continue(())))
    }

    fn step<'a>(&'a mut self, bytes: &'a mut [u8]) -> Result<Step<'a>, Violation> {
        let Some(header) = parse_header(bytes)? else {
            return Ok(Step::Incomplete(0));
        };
        self.admit(&header)?;
        let frame_bytes = header.header_bytes + header.payload_bytes;
        if bytes.len() < frame_bytes {
            return Ok(Step::Incomplete(frame_bytes));
        }
        let payload = &mut bytes[header.header_bytes..frame_bytes];
        unmask(payload, header.mask);
        let incoming = match header.opcode {
            PING => Incoming::Ping(payload),
            PONG => Incoming::Pong,
            CLOSE => Incoming::Close(close_code(payload)?),
            TEXT if header.fin => Incoming::Text(as_text(payload)?),
            // `admit` leaves fragments of text only.
            _ => {
                self.in_message = !header.fin;
                self.message.extend_from_slice(payload);
                if !header.fin {
                    self.check_fragment()?;
                    return Ok(Step::Fragment(frame_bytes));
                }
                Incoming::Text(as_text(&self.message)?)
            }
        };
        Ok(Step::Complete(frame_bytes, incoming))
    }

    /// Text that is wrong is refused with the fragment that spoils it, not with the last one.
    /// A character may be cut by the end of a fragment; each byte is looked at once.
    fn check_fragment(&mut self) -> Result<(), Violation> {
        let checked = self.message_checked as usize;
        let whole = match std::str::from_utf8(&self.message[checked..]) {
            Ok(text) => text.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(Violation::InvalidUtf8),
        };
        // The message limit is far below 32 bits.
        self.message_checked = (checked + whole) as u32;
        Ok(())
    }

    /// Whether a frame may come here, judged by its header.
    fn admit(&self, header: &Header) -> Result<(), Violation> {
        match header.opcode {
            CLOSE | PING | PONG => return Ok(()),
            CONTINUATION if !self.in_message => {
                return Err(Violation::Protocol("continuation of nothing"));
            }
            CONTINUATION => {}
            _ if self.in_message => {
                return Err(Violation::Protocol("new message inside a fragmented one"));
            }
            BINARY => return Err(Violation::Binary),
            _ => {}
        }
        // Neither can overflow: what is held is within the limit, a length has 63 bits.
        if self.message.len() + header.payload_bytes > self.message_bytes_max {
            return Err(Violation::TooLarge);
        }
        Ok(())
    }
}

/// Reads a header as far as it is there, so that a breach is seen as early as can be.
fn parse_header(bytes: &[u8]) -> Result<Option<Header>, Violation> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first & RESERVED != 0 {
        return Err(Violation::Protocol("reserved bit set"));
    }
    let (fin, opcode) = (first & FIN != 0, first & OPCODE);
    let is_control = match opcode {
        CONTINUATION | TEXT | BINARY => false,
        CLOSE | PING | PONG => true,
        _ => return Err(Violation::Protocol("reserved opcode")),
    };
    if is_control && !fin {
        return Err(Violation::Protocol("fragmented control frame"));
    }
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    if second & MASKED == 0 {
        return Err(Violation::Protocol("frame of a client is not masked"));
    }
    let short = u64::from(second & LENGTH);
    if is_control && short > CONTROL_BYTES_MAX {
        return Err(Violation::Protocol("control frame above 125 bytes"));
    }
    let (length, length_bytes) = match short {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 2),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).map(<[u8; 8]>::try_from) {
            Some(Ok(be)) => (u64::from_be_bytes(be), 8),
            _ => return Ok(None),
        },
        short => (short, 0),
    };
    if length >> 63 != 0 {
        return Err(Violation::Protocol("length above 63 bits"));
    }
    if (length_bytes == 2 && length < 126) || (length_bytes == 8 && length <= u64::from(u16::MAX)) {
        return Err(Violation::Protocol("length not in its shortest form"));
    }
    let payload_bytes = usize::try_from(length).map_err(|_| Violation::TooLarge)?;
    let mask_at = 2 + length_bytes;
    let Some(&[a, b, c, d]) = bytes.get(mask_at..mask_at + 4) else {
        // The limit holds before the mask is there, but nothing is reserved without it.
        return Ok(None);
    };
    Ok(Some(Header {
        fin,
        opcode,
        payload_bytes,
        header_bytes: mask_at + 4,
        mask: [a, b, c, d],
    }))
}

/// Eight bytes at a time; the compiler makes vectors of it.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn as_text(bytes: &[u8]) -> Result<&str, Violation> {
    std::str::from_utf8(bytes).map_err(|_| Violation::InvalidUtf8)
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    if payload.len() > 2 {
        as_text(&payload[2..])?;
    }
    match Parser::try_parse_close_payload(payload) {
        Ok(reason) => Ok(reason.map(|reason| u16::from(reason.code))),
        Err(_) => Err(Violation::Protocol("close code or payload not allowed")),
    }
}
