//! Choices by chance: gaps, sizes, contacts. The same seed makes the same choices.

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::mark::mix;
use crate::scenario::{BodyBytes, Contacts};
use crate::{MARK_BYTES_MIN, Scenario};

/// Chance of one device, which no other device's luck changes.
pub(super) fn chance(seed: u64, device: u32) -> SmallRng {
    SmallRng::seed_from_u64(mix(seed, u64::from(device)))
}

/// A time with this mean, as between events that do not know of each other.
pub(super) fn exponential_us(random: &mut SmallRng, mean_s: f64) -> u64 {
    let uniform: f64 = random.random();
    let us = -(1.0 - uniform).ln() * mean_s * 1e6;
    // A cast of what is too large gives the largest.
    us as u64
}

/// Sizes and contacts of a scenario, prepared.
#[derive(Debug)]
pub(super) struct Dice {
    seed: u64,
    users: u32,
    contacts: Contacts,
    body_bytes: BodyBytes,
    /// Of each contact the probability that it or one before it is meant.
    cumulated: Vec<f64>,
}

impl Dice {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let traffic = scenario.traffic.as_ref();
        let contacts = traffic.map_or(Contacts::Pairs, |traffic| traffic.contacts);
        let mut cumulated = Vec::new();
        if let Contacts::Zipf { count, exponent } = contacts {
            let weight = |k: u32| f64::from(k).powf(-exponent);
            let all: f64 = (1..=count).map(weight).sum();
            let mut so_far = 0.0;
            for k in 1..=count {
                so_far += weight(k) / all;
                cumulated.push(so_far);
            }
        }
        Self {
            seed: scenario.seed,
            users: scenario.users,
            contacts,
            body_bytes: traffic.map_or_else(BodyBytes::default, |traffic| traffic.body_bytes),
            cumulated,
        }
    }

    /// Whether a user writes at all.
    pub(super) fn writes(&self, user: u32) -> bool {
        self.contacts != Contacts::Celebrity || user != 0
    }

    /// Whom a user writes to next: never itself.
    pub(super) fn contact(&self, user: u32, random: &mut SmallRng) -> u32 {
        match self.contacts {
            Contacts::Pairs => user ^ 1,
            Contacts::Celebrity => 0,
            Contacts::Zipf { .. } => {
                let uniform: f64 = random.random();
                let k = self.cumulated.partition_point(|upto| *upto < uniform);
                let friend = mix(mix(self.seed, u64::from(user)), k as u64);
                let others = u64::from(self.users - 1);
                let step = 1 + u32::try_from(friend % others).unwrap_or(0);
                (user + step) % self.users
            }
        }
    }

    /// How long the next body is.
    pub(super) fn body_bytes(&self, random: &mut SmallRng) -> usize {
        match self.body_bytes {
            BodyBytes::Fixed { bytes } => bytes,
            BodyBytes::Uniform { min, max } => random.random_range(min..=max),
            BodyBytes::LogNormal { median, sigma, max } => {
                // Box and Muller's way to a normal distribution.
                let (a, b): (f64, f64) = (random.random(), random.random());
                let normal = (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos();
                let bytes = (median * (sigma * normal).exp()) as usize;
                bytes.clamp(MARK_BYTES_MIN, max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(name: &str, seed: u64) -> Vec<(u32, usize, u64)> {
        let mut scenario = Scenario::load(name).unwrap();
        scenario.seed = seed;
        let dice = Dice::new(&scenario);
        let mut random = chance(scenario.seed, 3);
        (0..2000)
            .map(|_| {
                let to = dice.contact(3, &mut random);
                let bytes = dice.body_bytes(&mut random);
                (to, bytes, exponential_us(&mut random, 2.0))
            })
            .collect()
    }

    #[test]
    fn the_seed_makes_the_choices() {
        assert_eq!(draws("chatter", 1), draws("chatter", 1));
        assert_ne!(draws("chatter", 1), draws("chatter", 2));
    }

    #[test]
    fn choices_have_the_distribution_asked_for() {
        let draws = draws("chatter", 1);
        assert!(
            draws.iter().all(|(to, ..)| *to != 3),
            "nobody writes to itself"
        );
        let mut counts = std::collections::BTreeMap::<u32, usize>::new();
        for (to, ..) in &draws {
            *counts.entry(*to).or_default() += 1;
        }
        // 20 contacts, exponent 1: the first gets 1/3.6 of all.
        let most = counts.values().max().copied().unwrap();
        assert!(
            counts.len() <= 20 && (450..660).contains(&most),
            "{counts:?}"
        );
        let below = draws.iter().filter(|(_, bytes, _)| *bytes < 120).count();
        assert!(
            (850..1150).contains(&below),
            "half are below the median: {below}"
        );
        let mean_us = draws.iter().map(|(.., us)| us).sum::<u64>() / 2000;
        assert!((1_800_000..2_200_000).contains(&mean_us), "{mean_us}");
    }
}
