//! The cache loses what it may lose, keeps what it must keep, and shows what was written.

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;

const DISK_SECTORS: usize = 16;
const DISK_BYTES: usize = DISK_SECTORS * SECTOR_BYTES;

/// A disk whose every sector is filled with one number: 0, or that of the write that was there last.
#[derive(Debug)]
struct Model {
    medium: Vec<u8>,
    cache: WriteCache,
    /// What each sector may hold after a cut.
    possible: Vec<Vec<u8>>,
    latest: Vec<u8>,
    writes: u8,
}

impl Model {
    fn new() -> Self {
        Self {
            medium: vec![0; DISK_BYTES],
            cache: WriteCache::new(1 << 20),
            possible: vec![vec![0]; DISK_SECTORS],
            latest: vec![0; DISK_SECTORS],
            writes: 0,
        }
    }

    fn write(&mut self, sector: usize, sectors: usize) {
        self.writes += 1;
        let sectors = sectors.min(DISK_SECTORS - sector);
        let data = vec![self.writes; sectors * SECTOR_BYTES];
        let taken = self.cache.write((sector * SECTOR_BYTES) as u64, &data);
        taken.expect("it fits");
        for sector in sector..sector + sectors {
            self.possible[sector].push(self.writes);
            self.latest[sector] = self.writes;
        }
    }

    fn flush(&mut self) {
        for write in self.cache.writes() {
            lay_over(0, &mut self.medium, write.offset, &write.data);
        }
        self.cache.flushed();
        for (possible, latest) in self.possible.iter_mut().zip(&self.latest) {
            *possible = vec![*latest];
        }
    }

    /// What each sector holds after a cut.
    fn cut(&self, loss: Loss, seed: u64) -> Vec<u8> {
        let mut medium = self.medium.clone();
        let mut random = SmallRng::seed_from_u64(seed);
        for survivor in survivors(self.cache.writes(), loss, &mut random) {
            lay_over(0, &mut medium, survivor.offset, survivor.data);
        }
        numbers(&medium)
    }
}

/// The number in each sector; none of them is torn.
fn numbers(medium: &[u8]) -> Vec<u8> {
    let of = |sector: &[u8]| {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "torn");
        sector[0]
    };
    medium.chunks(SECTOR_BYTES).map(of).collect()
}

fn model() -> impl Strategy<Value = Model> {
    // One in five is a flush.
    let step = (0..DISK_SECTORS, 1..6_usize, 0..5_u8);
    proptest::collection::vec(step, 0..40).prop_map(|steps| {
        let mut model = Model::new();
        for (sector, sectors, kind) in steps {
            match kind {
                0 => model.flush(),
                _ => model.write(sector, sectors),
            }
        }
        model
    })
}

proptest! {
    #[test]
    fn reads_see_what_was_written(model in model()) {
        let mut seen = model.medium.clone();
        model.cache.overlay(0, &mut seen);
        prop_assert_eq!(&numbers(&seen), &model.latest);
        let mut part = model.medium[700..2000].to_vec();
        model.cache.overlay(700, &mut part);
        prop_assert_eq!(&part, &seen[700..2000]);
    }

    #[test]
    fn a_cut_leaves_what_was_flushed_or_something_written_since(model in model(), seed: u64) {
        for loss in Loss::ALL {
            for (sector, left) in model.cut(loss, seed).iter().enumerate() {
                prop_assert!(model.possible[sector].contains(left), "{loss:?}, sector {sector}");
            }
        }
    }

    #[test]
    fn all_and_none_are_what_they_say(model in model(), seed: u64) {
        prop_assert_eq!(model.cut(Loss::All, seed), numbers(&model.medium));
        prop_assert_eq!(&model.cut(Loss::None, seed), &model.latest);
    }

    /// By write and sector: what is lost is one end, one write, or whole writes.
    #[test]
    fn a_loss_has_its_shape(model in model(), seed: u64) {
        let writes = model.cache.writes();
        let every: Vec<_> = survivors(writes, Loss::None, &mut SmallRng::seed_from_u64(seed));
        let left = |loss| survivors(writes, loss, &mut SmallRng::seed_from_u64(seed));
        let later = left(Loss::Later);
        prop_assert_eq!(&later[..], &every[..later.len()]);
        let earlier = left(Loss::Earlier);
        prop_assert_eq!(&earlier[..], &every[every.len() - earlier.len()..]);
        let one = left(Loss::One);
        let lost: Vec<_> = every.iter().filter(|sector| !one.contains(sector)).collect();
        prop_assert!(lost.iter().all(|sector| sector.write == lost[0].write));
        prop_assert_eq!(lost.is_empty(), writes.is_empty());
        for (number, write) in writes.iter().enumerate() {
            let of = left(Loss::Writes).iter().filter(|sector| sector.write == number).count();
            prop_assert!(of == 0 || of == sectors(write).count());
        }
    }
}

/// Not only allowed: it happens. A write torn, an earlier one lost with a later one kept, an earlier
/// one kept where a later one was.
#[test]
fn every_outcome_of_two_writes_comes_about() {
    let mut model = Model::new();
    model.write(0, 2);
    model.write(1, 2);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..2000 {
        for loss in Loss::ALL {
            seen.insert(model.cut(loss, seed)[..3].to_vec());
        }
    }
    // Two values of the first sector, three of the second, two of the third.
    assert_eq!(seen.len(), 12, "{seen:?}");
}

#[test]
fn the_same_seed_loses_the_same() {
    let mut model = Model::new();
    for sector in 0..DISK_SECTORS - 4 {
        model.write(sector, 4);
    }
    for loss in Loss::ALL {
        assert_eq!(model.cut(loss, 7), model.cut(loss, 7), "{loss:?}");
    }
    let others =
        (0..50).filter(|seed| model.cut(Loss::Sectors, *seed) != model.cut(Loss::Sectors, 7));
    assert!(others.count() > 40);
}

#[test]
fn sectors_are_cut_where_the_disks_are() {
    let write = Write {
        offset: 500,
        data: vec![1; 600].into(),
    };
    let parts: Vec<(u64, usize)> = sectors(&write).map(|(at, data)| (at, data.len())).collect();
    assert_eq!(parts, [(500, 12), (512, 512), (1024, 76)]);
}

#[test]
fn a_full_cache_says_so_and_takes_nothing() {
    let mut cache = WriteCache::new(1000);
    cache.write(0, &[1; 600]).expect("it fits");
    assert_eq!(cache.write(0, &[2; 600]), Err(Overfull { bytes_max: 1000 }));
    assert_eq!((cache.bytes(), cache.writes().len()), (600, 1));
    cache.flushed();
    cache.write(0, &[2; 600]).expect("there is room again");
}
