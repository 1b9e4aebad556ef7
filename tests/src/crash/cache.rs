//! What the volatile cache of a disk holds, and what of it a power cut leaves.
//!
//! A disk answers a write when it is in its cache, and promises nothing about it before the next
//! flush: until then any of the sectors may be on the medium or not, whatever their order, and a long
//! write may be there in part. Here is that promise, and nothing more than that promise. It decides
//! only; [`lossy`](super::lossy) has the medium and the kernel's requests.

use std::sync::Arc;

use rand::Rng;

/// What a disk writes in one piece.
pub const SECTOR_BYTES: usize = 512;

/// A write that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where it begins.
    pub offset: u64,
    /// What was written.
    pub data: Arc<[u8]>,
}

/// Writes since the last flush, in the order in which they came.
#[derive(Debug)]
pub struct WriteCache {
    writes: Vec<Write>,
    bytes: usize,
    bytes_max: usize,
}

/// More was written between two flushes than the cache takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "more than {bytes_max} bytes were written without a flush: send less, or give the cache more"
)]
pub struct Overfull {
    bytes_max: usize,
}

impl WriteCache {
    /// An empty one. A real cache would flush by itself when it is full; this one says so, because a
    /// flush that nobody asked for would hide what is looked for.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            writes: Vec::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Takes a write.
    ///
    /// # Errors
    /// When it does not fit; nothing of it is taken.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Overfull> {
        if self.bytes + data.len() > self.bytes_max {
            return Err(Overfull {
                bytes_max: self.bytes_max,
            });
        }
        self.bytes += data.len();
        self.writes.push(Write {
            offset,
            data: data.into(),
        });
        Ok(())
    }

    /// Lays what is cached over what was read from the medium at `offset`.
    pub fn overlay(&self, offset: u64, buffer: &mut [u8]) {
        for write in &self.writes {
            lay_over(offset, buffer, write.offset, &write.data);
        }
    }

    /// What a flush has to bring to the medium, in this order, before [`Self::flushed`].
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Everything is on the medium.
    pub fn flushed(&mut self) {
        self.writes.clear();
        self.bytes = 0;
    }

    /// Bytes that were written since the last flush.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Copies the part of `data`, which belongs at `from`, that lies within `buffer`, which begins at `offset`.
fn lay_over(offset: u64, buffer: &mut [u8], from: u64, data: &[u8]) {
    let end = (from + data.len() as u64).min(offset + buffer.len() as u64);
    let start = from.max(offset);
    if start >= end {
        return;
    }
    let len = (end - start) as usize;
    let (to, of) = ((start - offset) as usize, (start - from) as usize);
    buffer[to..to + len].copy_from_slice(&data[of..of + len]);
}

/// What a power cut does to writes that were not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of them are lost.
    All,
    /// None is.
    None,
    /// The later ones are, from the middle of one on.
    Later,
    /// The earlier ones are, up to the middle of one.
    Earlier,
    /// One is, whole, and those before and after it are not.
    One,
    /// Some are, whole, in no order.
    Writes,
    /// Sectors here and there are.
    Sectors,
}

impl Loss {
    /// All there are.
    pub const ALL: [Self; 7] = [
        Self::All,
        Self::None,
        Self::Later,
        Self::Earlier,
        Self::One,
        Self::Writes,
        Self::Sectors,
    ];

    /// Draws one.
    pub fn draw(random: &mut impl Rng) -> Self {
        Self::ALL[random.random_range(0..Self::ALL.len())]
    }

    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::None => "none",
            Self::Later => "later",
            Self::Earlier => "earlier",
            Self::One => "one",
            Self::Writes => "writes",
            Self::Sectors => "sectors",
        }
    }
}

/// How many of sixteen writes, or sectors, survive where each has its own luck.
const LUCK: [u32; 3] = [1, 8, 15];

/// A sector of a write that is on the medium after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survivor<'a> {
    /// Which write it is of.
    pub write: usize,
    /// Where it belongs.
    pub offset: u64,
    /// What is there now.
    pub data: &'a [u8],
}

/// What is on the medium after the cut, besides what was flushed before. A place that was written
/// more than once holds what comes last in here.
pub fn survivors<'a>(writes: &'a [Write], loss: Loss, random: &mut impl Rng) -> Vec<Survivor<'a>> {
    let luck = LUCK[random.random_range(0..LUCK.len())];
    let total: usize = writes.iter().map(|write| sectors(write).count()).sum();
    let middle = random.random_range(0..=total);
    let unlucky = random.random_range(0..writes.len().max(1));
    let mut left = Vec::new();
    let mut nth = 0;
    for (number, write) in writes.iter().enumerate() {
        let lucky = random.random_ratio(luck, 16);
        for (offset, data) in sectors(write) {
            let survives = match loss {
                Loss::All => false,
                Loss::None => true,
                Loss::Later => nth < middle,
                Loss::Earlier => nth >= middle,
                Loss::One => number != unlucky,
                Loss::Writes => lucky,
                Loss::Sectors => random.random_ratio(luck, 16),
            };
            nth += 1;
            if survives {
                left.push(Survivor {
                    write: number,
                    offset,
                    data,
                });
            }
        }
    }
    left
}

/// The sectors of a write, or parts of them.
fn sectors(write: &Write) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let offset = write.offset + at as u64;
        let rest = &write.data[at..];
        let within = (offset % SECTOR_BYTES as u64) as usize;
        let len = rest.len().min(SECTOR_BYTES - within);
        at += len;
        (len > 0).then_some((offset, &rest[..len]))
    })
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
