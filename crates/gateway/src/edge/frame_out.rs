//! Writing WebSocket frames of the server: unmasked, never fragmented.
//!
//! Payloads are written in place, straight behind the room left for a header,
//! so that a frame costs no buffer of its own. Bounds are the callers'.

const FIN_TEXT: u8 = 0x81;
const FIN_CLOSE: u8 = 0x88;
const FIN_PING: u8 = 0x89;
const FIN_PONG: u8 = 0x8a;

/// Room left for a header: right for payloads of 126 to 65,535 bytes, which most messages are.
const ROOM_BYTES: usize = 4;

/// Longest text in a close frame, in bytes.
const CLOSE_TEXT_BYTES_MAX: usize = 123;

/// Appends a text frame; `write` appends its payload.
pub(crate) fn put_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; ROOM_BYTES]);
    write(out);
    let payload_at = start + ROOM_BYTES;
    let length = out.len() - payload_at;
    if let Ok(short @ 0..=125) = u8::try_from(length) {
        out.copy_within(payload_at.., start + 2);
        out.truncate(start + 2 + length);
        out[start..start + 2].copy_from_slice(&[FIN_TEXT, short]);
    } else if let Ok(medium) = u16::try_from(length) {
        let [a, b] = medium.to_be_bytes();
        out[start..payload_at].copy_from_slice(&[FIN_TEXT, 126, a, b]);
    } else {
        out.extend_from_slice(&[0; 6]);
        out.copy_within(payload_at..payload_at + length, start + 10);
        out[start..start + 2].copy_from_slice(&[FIN_TEXT, 127]);
        out[start + 2..start + 10].copy_from_slice(&(length as u64).to_be_bytes());
    }
}

fn put_control(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    // Callers stay below 126 bytes; cutting keeps the frame well-formed should one not.
    let payload = &payload[..payload.len().min(125)];
    out.extend_from_slice(&[first, u8::try_from(payload.len()).unwrap_or(125)]);
    out.extend_from_slice(payload);
}

/// Appends a ping without payload.
pub(crate) fn put_ping(out: &mut Vec<u8>) {
    put_control(out, FIN_PING, &[]);
}

/// Appends a pong that carries what the ping did.
pub(crate) fn put_pong(out: &mut Vec<u8>, payload: &[u8]) {
    put_control(out, FIN_PONG, payload);
}

/// Appends a close frame; without a code it is empty.
pub(crate) fn put_close(out: &mut Vec<u8>, code: Option<u16>, text: &str) {
    let Some(code) = code else {
        return put_control(out, FIN_CLOSE, &[]);
    };
    let text = &text.as_bytes()[..text.floor_char_boundary(CLOSE_TEXT_BYTES_MAX)];
    let mut payload = Vec::with_capacity(2 + text.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(text);
    put_control(out, FIN_CLOSE, &payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(length: usize) -> Vec<u8> {
        let mut out = b"before".to_vec();
        put_text(&mut out, |out| out.resize(out.len() + length, b'x'));
        assert_eq!(&out[..6], b"before");
        out.split_off(6)
    }

    #[test]
    fn lengths_take_their_shortest_form() {
        for (length, header) in [
            (0, vec![0x81, 0]),
            (1, vec![0x81, 1]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = text(length);
            assert_eq!(&frame[..header.len()], &header[..], "{length}");
            assert_eq!(frame.len(), header.len() + length);
            assert!(frame[header.len()..].iter().all(|&b| b == b'x'));
        }
    }

    #[test]
    fn a_close_text_is_cut_between_characters() {
        let mut out = Vec::new();
        put_close(&mut out, Some(1001), &"ä".repeat(100));
        assert_eq!(out[..4], [0x88, 2 + 122, 0x03, 0xe9]);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
        out.clear();
        put_close(&mut out, None, "");
        assert_eq!(out, [0x88, 0]);
    }
}
