//! The client's side of a WebSocket, by hand: upgrade request, frame headers.
//!
//! The key is always the same, so its confirmation is a constant and no SHA-1 is needed; the mask
//! is zero, so masking costs nothing here and the server unmasks all the same. Both are for load
//! tests only: a client that a browser or a proxy could be tricked into must use random ones.

/// What the server must answer to our key.
pub const ACCEPT: &str = "ICX+Yqv66kxgM0FcWaLWlFLwTAI=";
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

/// Opcodes of RFC 6455, section 5.2.
pub mod opcode {
    /// Goes on with a fragmented message.
    pub const CONTINUATION: u8 = 0;
    /// Text.
    pub const TEXT: u8 = 1;
    /// Close.
    pub const CLOSE: u8 = 8;
    /// Ping.
    pub const PING: u8 = 9;
    /// Pong.
    pub const PONG: u8 = 10;
}

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Last frame of its message.
    pub fin: bool,
    /// What kind of frame.
    pub opcode: u8,
    /// The mask, when there is one.
    pub mask: Option<[u8; 4]>,
    /// Bytes of the head itself.
    pub head_bytes: usize,
    /// Bytes of what follows it.
    pub payload_bytes: usize,
}

/// Appends the upgrade request.
pub(crate) fn write_upgrade(out: &mut Vec<u8>, host: &str, path: &str) {
    for part in [
        "GET ",
        path,
        " HTTP/1.1\r\nHost: ",
        host,
        "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
        KEY,
        "\r\nSec-WebSocket-Protocol: ",
        stonechat_protocol::SUBPROTOCOL,
        "\r\n\r\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Where the answer to the upgrade ends; `None` while it is incomplete, an error when it is no 101.
pub(crate) fn read_upgrade(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    if !head.starts_with("HTTP/1.1 101") || !head.contains(ACCEPT) {
        let first = head.lines().next().unwrap_or_default();
        return Err(format!("the upgrade was refused: {first}"));
    }
    Ok(Some(end + 4))
}

/// Reads the head of a frame; `None` while it is incomplete.
#[inline]
pub fn read_header(bytes: &[u8]) -> Option<Header> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (payload_bytes, mut head_bytes) = match second & !MASKED {
        126 => (
            u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10),
        short => (u64::from(short), 2),
    };
    let mut mask = None;
    if second & MASKED != 0 {
        mask = Some(
            bytes
                .get(head_bytes..head_bytes + 4)?
                .try_into()
                .expect("four bytes"),
        );
        head_bytes += 4;
    }
    Some(Header {
        fin: first & FIN != 0,
        opcode: first & 0x0f,
        mask,
        head_bytes,
        payload_bytes: usize::try_from(payload_bytes).unwrap_or(usize::MAX),
    })
}

/// Appends the head of a final frame without a mask, as a server does.
pub fn write_header(out: &mut Vec<u8>, opcode: u8, payload_bytes: usize) {
    out.push(FIN | opcode);
    put_length(out, payload_bytes, 0);
}

fn put_length(out: &mut Vec<u8>, payload_bytes: usize, masked: u8) {
    if let Ok(length) = u16::try_from(payload_bytes) {
        if length < 126 {
            out.push(masked | length as u8);
        } else {
            out.push(masked | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
    } else {
        out.push(masked | 127);
        out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    }
}

/// Appends a masked frame whose payload `write` appends.
pub(crate) fn write_masked(out: &mut Vec<u8>, opcode: u8, write: impl FnOnce(&mut Vec<u8>)) {
    // Room for the middle form of the length, which almost all frames have; the others move.
    let start = out.len();
    out.extend_from_slice(&[FIN | opcode, MASKED | 126, 0, 0, 0, 0, 0, 0]);
    write(out);
    let payload_bytes = out.len() - start - 8;
    match u16::try_from(payload_bytes) {
        Ok(length) if length >= 126 => {
            out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        _ => {
            let mut head = vec![FIN | opcode];
            put_length(&mut head, payload_bytes, MASKED);
            head.extend_from_slice(&[0; 4]);
            out.splice(start..start + 8, head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_all_lengths_are_read_as_written() {
        for bytes in [0, 1, 125, 126, 200, 65_535, 65_536] {
            let mut out = vec![7];
            write_masked(&mut out, opcode::TEXT, |out| {
                out.resize(out.len() + bytes, b'x');
            });
            let header = read_header(&out[1..]).unwrap();
            assert_eq!(header.payload_bytes, bytes);
            assert_eq!(out.len() - 1, header.head_bytes + bytes);
            assert_eq!(header.mask, Some([0; 4]));
            assert!(header.fin && header.opcode == opcode::TEXT);
            assert!(out[1 + header.head_bytes..].iter().all(|b| *b == b'x'));
            let mut out = Vec::new();
            write_header(&mut out, opcode::PING, bytes);
            let header = read_header(&out).unwrap();
            assert_eq!(
                (header.payload_bytes, header.mask, header.head_bytes),
                (bytes, None, out.len())
            );
            for end in 0..out.len() {
                assert_eq!(read_header(&out[..end]), None);
            }
        }
    }

    #[test]
    fn only_a_confirmed_upgrade_counts() {
        let good =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        assert_eq!(read_upgrade(good.as_bytes()), Ok(Some(good.len())));
        assert_eq!(read_upgrade(&good.as_bytes()[..40]), Ok(None));
        assert!(read_upgrade(b"HTTP/1.1 503 Busy\r\n\r\n").is_err());
        assert!(read_upgrade(b"HTTP/1.1 101 x\r\n\r\n").is_err());
    }
}
