//! One run by several processes: the users split over them, one report out of all.

mod merge;

pub use merge::merged;
