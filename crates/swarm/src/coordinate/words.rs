//! What the coordinating process and its workers say to each other: a JSON object a line, over pipes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::run::Finished;
use crate::{Admin, Scenario, Second, Sources};

/// What a worker is to do; the first line it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Its share of the scenario.
    pub scenario: Scenario,
    /// Where the server listens.
    pub server: SocketAddr,
    /// Where users are made.
    pub admin: Admin,
    /// What the names of its users start with.
    pub prefix: String,
    /// What their devices are called.
    pub device: String,
    /// Its source addresses.
    pub sources: Option<Sources>,
}

/// What a worker is told afterwards. That nobody is there any more to tell it anything stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// All users of all workers are signed in.
    Begin,
    /// End before the time.
    End,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// Its users are signed in.
    Ready,
    /// A second is over.
    Second(Box<Second>),
    /// It has come to its end.
    Finished(Box<Finished>),
    /// It cannot go on.
    Failed(String),
}

impl Scenario {
    /// Splits the users over several processes, each with its share and choices of its own. Whom they
    /// write to is always in the same share: pairs stay together, each share has contacts among
    /// themselves, and a celebrity of its own.
    ///
    /// `None` when there are too few users for so many.
    pub fn split(&self, processes: u32) -> Option<Vec<Self>> {
        // Pairs are two, and everyone needs somebody to write to.
        let unit = if self.traffic.is_some() { 2 } else { 1 };
        let units = self.users / unit;
        if processes == 0 || units < processes {
            return None;
        }
        if processes == 1 {
            return Some(vec![self.clone()]);
        }
        let share = |process: u32| {
            let (from, to) = (
                u64::from(units) * u64::from(process) / u64::from(processes),
                u64::from(units) * u64::from(process + 1) / u64::from(processes),
            );
            let mut users = u32::try_from(to - from).unwrap_or(0) * unit;
            if process + 1 == processes {
                users += self.users % unit;
            }
            // TOML has no numbers beyond 63 bits.
            let seed = crate::mark::mix(self.seed, u64::from(process)) >> 1;
            Self {
                users,
                seed,
                ..self.clone()
            }
        };
        Some((0..processes).map(share).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_keep_pairs_and_choose_for_themselves() {
        for (name, users) in [("pairs", 1000), ("chatter", 1001), ("idle", 7)] {
            let mut scenario = Scenario::load(name).unwrap();
            scenario.users = users;
            for processes in 1..=5 {
                let shares = scenario.split(processes).unwrap();
                assert_eq!(shares.len(), processes as usize);
                assert_eq!(shares.iter().map(|share| share.users).sum::<u32>(), users);
                for share in &shares {
                    share.check("a share").unwrap();
                }
                let seeds: std::collections::BTreeSet<_> = shares.iter().map(|s| s.seed).collect();
                assert_eq!(seeds.len(), shares.len());
            }
        }
        let mut few = Scenario::load("pairs").unwrap();
        few.users = 4;
        assert!(few.split(2).is_some() && few.split(3).is_none() && few.split(0).is_none());
    }
}
