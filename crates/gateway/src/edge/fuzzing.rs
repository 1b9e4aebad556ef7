//! What a fuzzer does with WebSocket frames and upgrade requests.

use std::ops::ControlFlow;

use actix_codec::Decoder;
use actix_http::{ServiceConfig, h1};
use bytes::BytesMut;

use super::frame::{FrameReader, Incoming, Violation};
use super::handshake::negotiate;

/// A longer stream tells no more, and takes its time byte by byte.
const STREAM_BYTES_MAX: usize = 100_000;

/// What came out of a reader, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Out {
    Text(String),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl Out {
    fn new(incoming: Incoming<'_>) -> Self {
        match incoming {
            Incoming::Text(text) => Self::Text(text.to_owned()),
            Incoming::Ping(payload) => Self::Ping(payload.to_vec()),
            Incoming::Pong => Self::Pong,
            Incoming::Close(code) => Self::Close(code),
        }
    }
}

/// Reads a stream in chunks of these sizes, over and over; stops after each event and goes on
/// if `stop`. Memory held is bounded by the limit and one chunk, whatever comes.
fn read(bytes: &[u8], limit: usize, sizes: &[usize], stop: bool) -> (Vec<Out>, Option<Violation>) {
    let mut reader = FrameReader::new(limit);
    let mut out = Vec::new();
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes
            .next()
            .copied()
            .unwrap_or(usize::MAX)
            .clamp(1, rest.len());
        let (now, later) = rest.split_at(size);
        rest = later;
        let mut chunk = now.to_vec();
        loop {
            let mut sink = |incoming: Incoming<'_>| {
                out.push(Out::new(incoming));
                if stop {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let flow = match reader.feed(&mut chunk, &mut sink) {
                Ok(flow) => flow,
                Err(violation) => return (out, Some(violation)),
            };
            let bound = 4 * limit + 2 * size + 1_024;
            let held = reader.heap_bytes();
            assert!(held <= bound, "{held} bytes held, {bound} allowed");
            if flow.is_continue() {
                break;
            }
            chunk.clear();
        }
    }
    (out, None)
}

/// Any bytes: however they are cut, the same comes out.
///
/// # Panics
/// When a property does not hold.
pub fn frames(data: &[u8]) {
    let Some((&[limit, a, b, c], stream)) = data.split_first_chunk::<4>() else {
        return;
    };
    let limit = 16 + usize::from(limit) * 8;
    let whole = read(stream, limit, &[], false);
    for out in &whole.0 {
        if let Out::Text(text) = out {
            assert!(text.len() <= limit, "{} bytes above {limit}", text.len());
        }
    }
    assert_eq!(whole, read(stream, limit, &[1], false), "byte by byte");
    let sizes = [a, b, c].map(usize::from);
    assert_eq!(
        whole,
        read(stream, limit, &sizes, false),
        "in chunks of {sizes:?}"
    );
    assert_eq!(
        whole,
        read(stream, limit, &sizes, true),
        "stopping at each event"
    );
}

/// A script of messages, written as frames and fragments: read back, they are the same.
///
/// # Panics
/// When a property does not hold.
pub fn frames_written(data: &[u8]) {
    let mut rest = data;
    let mut next = || {
        let (first, tail) = rest.split_first()?;
        rest = tail;
        Some(*first)
    };
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    while let Some(kind) = next()
        && stream.len() < STREAM_BYTES_MAX
    {
        let size = usize::from(next().unwrap_or(0)) * if kind & 0x40 == 0 { 1 } else { 300 };
        let fill = next().unwrap_or(0);
        let mask = [fill, kind, 0x5a, size as u8];
        match kind % 4 {
            0 => {
                let payload = vec![fill; size.min(125)];
                put(&mut stream, 0x89, &payload, mask);
                expected.push(Out::Ping(payload));
            }
            1 => {
                put(&mut stream, 0x8a, &vec![fill; size.min(125)], mask);
                expected.push(Out::Pong);
            }
            _ => {
                let unit = ["a", "ü", "日", "𝔘"][usize::from(fill % 4)];
                let text = unit.repeat(size / unit.len());
                let parts = 1 + usize::from(kind % 4 == 3) * usize::from(fill / 4 % 8);
                let piece = text.len().div_ceil(parts).max(1);
                let pieces: Vec<&[u8]> = text.as_bytes().chunks(piece).collect();
                for (n, piece) in pieces.iter().enumerate() {
                    let fin = u8::from(n + 1 == pieces.len()) << 7;
                    put(&mut stream, fin | u8::from(n == 0), piece, mask);
                }
                if pieces.is_empty() {
                    put(&mut stream, 0x81, b"", mask);
                }
                expected.push(Out::Text(text));
            }
        }
    }
    let limit = 255 * 300;
    for sizes in [&[][..], &[1], &[7, 1_000, 3]] {
        let (out, violation) = read(&stream, limit, sizes, false);
        assert_eq!(violation, None);
        assert_eq!(out, expected);
    }
}

fn put(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(first);
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}

/// Bytes as a request: read as the listener does, and judged.
///
/// # Panics
/// When a property does not hold.
pub fn upgrade(data: &[u8]) {
    thread_local! {
        // A codec's clock is a task. All have the same one, as those of a listener have.
        static RUNTIME: (actix_rt::Runtime, ServiceConfig) = {
            let runtime = actix_rt::Runtime::new().expect("a runtime");
            let config = runtime.block_on(async { ServiceConfig::default() });
            (runtime, config)
        };
    }
    RUNTIME.with(|(runtime, config)| {
        runtime.block_on(async { judge(h1::Codec::new(config.clone()), data) });
    });
}

fn judge(mut codec: h1::Codec, data: &[u8]) {
    let Ok(Some(h1::Message::Item(request))) = codec.decode(&mut BytesMut::from(data)) else {
        return;
    };
    let allowed = ["https://chat.example".to_owned()];
    match negotiate(request.head(), &allowed) {
        Ok(upgrade) => {
            assert_eq!(upgrade.response.status(), 101);
            assert_eq!(request.head().method.as_str(), "GET");
        }
        Err(refusal) => {
            assert!(refusal.status().is_client_error() || refusal.status().is_server_error());
            assert_eq!(refusal.response().status(), refusal.status());
            assert!(!refusal.to_string().is_empty());
        }
    }
}
