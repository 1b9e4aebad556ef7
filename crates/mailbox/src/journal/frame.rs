//! A batch on disk: one write, one sync, one frame.
//!
//! ```text
//! magic u32 · payload length u32 · lsn u64 · durable u64 · records u32
//! · crc32c of the payload u32 · crc32c of the header u32 · payload
//! ```
//!
//! `lsn` is the frame's own position, so stale bytes at another place are never
//! taken for a frame. `durable` is the position up to which the journal was
//! synced before this frame was written. A committer that syncs every batch
//! before it writes the next has `durable == lsn`; recovery only relies on the
//! weaker promise that everything below `durable` must be intact.

/// Bytes of a frame header.
pub(crate) const FRAME_HEADER_BYTES: usize = 36;
const MAGIC: [u8; 4] = *b"SCbf";

/// A frame header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) payload_bytes: usize,
    pub(crate) durable: u64,
    pub(crate) records: u32,
}

impl Frame {
    /// Bytes of header and payload.
    pub(crate) fn bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload_bytes
    }
}

/// Leaves room for the header; records are appended after it.
pub(crate) fn begin(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_HEADER_BYTES, 0);
}

/// Fills in the header of the frame in `buffer`, to be written at `lsn`.
pub(crate) fn finish(buffer: &mut [u8], lsn: u64, durable: u64, records: u32) {
    let payload = buffer.len() - FRAME_HEADER_BYTES;
    let payload_crc = crc32c::crc32c(&buffer[FRAME_HEADER_BYTES..]);
    buffer[0..4].copy_from_slice(&MAGIC);
    buffer[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
    buffer[8..16].copy_from_slice(&lsn.to_le_bytes());
    buffer[16..24].copy_from_slice(&durable.to_le_bytes());
    buffer[24..28].copy_from_slice(&records.to_le_bytes());
    buffer[28..32].copy_from_slice(&payload_crc.to_le_bytes());
    let header_crc = crc32c::crc32c(&buffer[..32]);
    buffer[32..36].copy_from_slice(&header_crc.to_le_bytes());
}

/// Reads the frame at the start of `bytes`, which lie at `lsn`. `None`: not a whole, intact frame.
pub(crate) fn parse(bytes: &[u8], lsn: u64) -> Option<Frame> {
    let header = bytes.get(..FRAME_HEADER_BYTES)?;
    if header[..4] != MAGIC || crc32c::crc32c(&header[..32]) != u32_at(header, 32) {
        return None;
    }
    let frame = Frame {
        payload_bytes: u32_at(header, 4) as usize,
        durable: u64_at(header, 16),
        records: u32_at(header, 24),
    };
    let payload = bytes.get(FRAME_HEADER_BYTES..frame.bytes())?;
    (u64_at(header, 8) == lsn && crc32c::crc32c(payload) == u32_at(header, 28)).then_some(frame)
}

/// The first intact frame in `bytes`, wherever it starts: its offset and itself.
///
/// Only used behind a bad frame, where lengths cannot be trusted any more.
pub(crate) fn find(bytes: &[u8], lsn: u64) -> Option<(usize, Frame)> {
    (0..bytes.len().saturating_sub(FRAME_HEADER_BYTES - 1))
        .filter(|at| bytes[*at..].starts_with(&MAGIC))
        .find_map(|at| parse(&bytes[at..], lsn + at as u64).map(|frame| (at, frame)))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8], lsn: u64) -> Vec<u8> {
        let mut buffer = Vec::new();
        begin(&mut buffer);
        buffer.extend_from_slice(payload);
        finish(&mut buffer, lsn, lsn, 1);
        buffer
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = frame(b"some payload", 1234);
        assert_eq!(parse(&good, 1234).map(|f| f.payload_bytes), Some(12));
        assert_eq!(parse(&good, 1235), None, "a frame at the wrong place");
        for cut in 0..good.len() {
            assert_eq!(parse(&good[..cut], 1234), None, "cut at {cut}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bad, 1234), None, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_is_found_behind_garbage() {
        let mut bytes = b"SCbfSCbf garbage".to_vec();
        let at = bytes.len();
        bytes.extend(frame(b"x", 500 + at as u64));
        assert_eq!(find(&bytes, 500).map(|(at, _)| at), Some(at));
        assert_eq!(find(&bytes, 501), None);
    }
}
