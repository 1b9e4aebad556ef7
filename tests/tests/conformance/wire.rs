//! Frames as a client writes them, right or wrong in any place.

/// A continuation.
pub(crate) const CONTINUATION: u8 = 0x0;
/// Text.
pub(crate) const TEXT: u8 = 0x1;
/// Binary.
pub(crate) const BINARY: u8 = 0x2;
/// Close.
pub(crate) const CLOSE: u8 = 0x8;
/// Ping.
pub(crate) const PING: u8 = 0x9;
/// Pong.
pub(crate) const PONG: u8 = 0xa;

/// How the length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// As short as can be, as the RFC wants it.
    Shortest,
    /// In 16 bits.
    Bits16,
    /// In 64 bits.
    Bits64,
    /// In 64 bits, and a lie.
    Announced(u64),
}

/// One frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// FIN, reserved bits, opcode.
    pub(crate) first: u8,
    /// Absent: the frame is not masked.
    pub(crate) mask: Option<[u8; 4]>,
    /// How the length is written.
    pub(crate) length: Length,
    /// What it carries, before masking.
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// A correct frame, the last of its message.
    pub(crate) fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            first: 0x80 | opcode,
            mask: Some([0x5b, 0xc4, 0x0e, 0xa7]),
            length: Length::Shortest,
            payload: payload.as_ref().to_vec(),
        }
    }

    /// Not the last of its message.
    pub(crate) fn more(mut self) -> Self {
        self.first &= 0x7f;
        self
    }

    /// With reserved bits, 0 to 7.
    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.first |= bits << 4;
        self
    }

    /// With this key, or none.
    pub(crate) fn masked(mut self, mask: Option<[u8; 4]>) -> Self {
        self.mask = mask;
        self
    }

    /// With its length written like this.
    pub(crate) fn length(mut self, length: Length) -> Self {
        self.length = length;
        self
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let masked = u8::from(self.mask.is_some()) << 7;
        let size = self.payload.len() as u64;
        let form = match self.length {
            Length::Shortest if size <= 125 => None,
            Length::Shortest if size <= 0xffff => Some((126, size)),
            Length::Bits16 => Some((126, size)),
            Length::Shortest | Length::Bits64 => Some((127, size)),
            Length::Announced(size) => Some((127, size)),
        };
        let mut out = vec![self.first];
        match form {
            None => out.push(masked | self.payload.len() as u8),
            Some((short @ 126, size)) => {
                out.push(masked | short);
                out.extend((size as u16).to_be_bytes());
            }
            Some((short, size)) => {
                out.push(masked | short);
                out.extend(size.to_be_bytes());
            }
        }
        let key = self.mask.unwrap_or_default();
        out.extend(self.mask.iter().flatten());
        let payload = self.payload.iter().zip(key.iter().cycle());
        out.extend(payload.map(|(byte, key)| byte ^ key));
        out
    }
}

/// Bytes of a text frame.
pub(crate) fn text(payload: impl AsRef<[u8]>) -> Vec<u8> {
    Frame::new(TEXT, payload).bytes()
}

/// Bytes of a text frame that begins a fragmented message.
pub(crate) fn begin(payload: impl AsRef<[u8]>) -> Vec<u8> {
    Frame::new(TEXT, payload).more().bytes()
}

/// Bytes of a continuation that is not the last.
pub(crate) fn middle(payload: impl AsRef<[u8]>) -> Vec<u8> {
    Frame::new(CONTINUATION, payload).more().bytes()
}

/// Bytes of the last continuation.
pub(crate) fn end(payload: impl AsRef<[u8]>) -> Vec<u8> {
    Frame::new(CONTINUATION, payload).bytes()
}

/// Bytes of a ping.
pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Vec<u8> {
    Frame::new(PING, payload).bytes()
}

/// Bytes of a pong.
pub(crate) fn pong(payload: impl AsRef<[u8]>) -> Vec<u8> {
    Frame::new(PONG, payload).bytes()
}

/// Bytes of a close frame.
pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.as_ref());
    Frame::new(CLOSE, payload).bytes()
}

/// A `ping` frame of the protocol, which is answered with its nonce.
pub(crate) fn asks(nonce: u64) -> String {
    format!(r#"{{"type":"ping","nonce":{nonce}}}"#)
}

/// The same with blanks behind it, `bytes` in all.
pub(crate) fn asks_padded(nonce: u64, bytes: usize) -> String {
    let mut text = asks(nonce);
    text.push_str(&" ".repeat(bytes.saturating_sub(text.len())));
    text
}

/// A `ping` frame of the protocol whose nonce is a string.
pub(crate) fn asks_with(nonce: &[u8]) -> Vec<u8> {
    [br#"{"type":"ping","nonce":""#, nonce, br#""}"#].concat()
}
