//! The fleet: many users, some with two devices, some mostly asleep, and the two phases of a round.
//!
//! In the load phase every device follows the manner drawn for it until its connection breaks. In
//! the settling phase all devices that are due connect, send again what is unanswered, and take
//! everything; what is missing then is lost.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::device::Device;
use super::manner::{Manner, Orders};
use super::truth::{Devices, Truth};
use crate::Node;

/// Every so many users one has a second device.
const TABLET_EVERY: usize = 3;
/// Every so many users one sleeps: is neither loaded nor settled in most rounds.
const SLEEPER_EVERY: usize = 6;
/// Rounds of which a sleeper is there in one.
const SLEEP_ROUNDS: u32 = 5;

/// How many, and how much.
#[derive(Debug, Clone, Copy)]
pub struct FleetOptions {
    /// Users; 2 to 48.
    pub users: usize,
    /// Sends of a device in a round, at most.
    pub sends_max: usize,
    /// Where the randomness comes from.
    pub seed: u64,
    /// The disk will fail.
    pub disk_fails: bool,
}

/// All devices and what is known of them.
#[derive(Debug)]
pub struct Fleet {
    devices: Vec<Device>,
    truth: Arc<Mutex<Truth>>,
    random: SmallRng,
    options: FleetOptions,
}

/// A phase under way.
#[derive(Debug)]
pub struct Phase {
    orders: Arc<Orders>,
    thread: JoinHandle<Vec<Device>>,
}

impl Fleet {
    /// Creates the users on a node, gets tokens, and has every device sign in once: one that was
    /// never there has no claim to what came and went.
    ///
    /// # Panics
    /// When the node does not play along.
    pub fn muster(node: &Node, options: FleetOptions) -> Self {
        let users: Vec<(String, Vec<&'static str>)> = (0..options.users)
            .map(|user| {
                let tablet = user.is_multiple_of(TABLET_EVERY);
                let devices = if tablet {
                    vec!["phone", "tablet"]
                } else {
                    vec!["phone"]
                };
                (format!("u{user}"), devices)
            })
            .collect();
        let truth = Truth::new(&users);
        let names: Arc<Vec<String>> =
            Arc::new(users.iter().map(|(name, _)| name.clone()).collect());
        let mut devices = Vec::new();
        for (user, (name, of_user)) in users.iter().enumerate() {
            let token = node.user(name);
            for device in of_user {
                let number = devices.len();
                let (names, token) = (Arc::clone(&names), token.clone());
                let seed = options.seed;
                devices.push(Device::new(number, user, names, device, token, seed));
            }
        }
        let mut fleet = Self {
            devices,
            truth: Arc::new(Mutex::new(truth)),
            random: SmallRng::seed_from_u64(options.seed),
            options,
        };
        let everybody = fleet.due(0, true);
        fleet.settle(node, everybody, Duration::from_secs(30));
        fleet
    }

    /// What is known.
    pub fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The devices that take part in a round; everybody in the last one.
    pub fn due(&self, round: u32, last: bool) -> Devices {
        let everybody = last || round % SLEEP_ROUNDS == SLEEP_ROUNDS - 1;
        let awake =
            |device: &&Device| everybody || device.user % SLEEPER_EVERY != SLEEPER_EVERY - 1;
        let awake = self.devices.iter().filter(awake);
        awake.fold(0, |set, device| set | device.bit())
    }

    fn begin(&mut self, node: &Node, orders: Orders, manners: Vec<Manner>) -> Phase {
        let address = node.endpoint().listen;
        let orders = Arc::new(orders);
        let devices: Vec<_> = std::mem::take(&mut self.devices)
            .into_iter()
            .zip(manners)
            .map(|(device, manner)| {
                let (truth, orders) = (Arc::clone(&self.truth), Arc::clone(&orders));
                device.live(address.clone(), manner, truth, orders)
            })
            .collect();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(futures_util::future::join_all(devices))
        });
        Phase { orders, thread }
    }

    fn end(&mut self, phase: Phase) {
        phase.orders.stop.store(true, Ordering::Relaxed);
        self.devices = phase.thread.join().expect("a device does not panic");
    }

    /// Lets everybody who is due behave as it comes.
    pub fn load(&mut self, node: &Node, due: Devices) -> Phase {
        let manners = self
            .devices
            .iter()
            .map(|device| {
                let mut manner = Manner::draw(&mut self.random, self.options.sends_max);
                manner.away |= device.bit() & due == 0;
                manner
            })
            .collect();
        let orders = Orders {
            disk_fails: self.options.disk_fails,
            ..Orders::default()
        };
        self.begin(node, orders, manners)
    }

    /// Ends the load with the server still there.
    pub fn stop(&mut self, phase: Phase) {
        self.end(phase);
    }

    /// Ends the load once the server is gone: what it had said is taken first.
    pub fn unload(&mut self, phase: Phase) {
        let devices = phase.thread.join().expect("a device does not panic");
        self.devices = devices;
    }

    /// Waits until everybody who is due has everything, then judges what is missing. Whether all
    /// was there.
    pub fn settle(&mut self, node: &Node, due: Devices, deadline: Duration) -> bool {
        let complete = self.gather(node, due, deadline, |truth| truth.awaited(due).is_none());
        self.truth().settle(due);
        complete
    }

    /// Waits until everybody who is due has got all messages accepted so far; whether they have.
    pub fn drain(&mut self, node: &Node, due: Devices, deadline: Duration) -> bool {
        self.gather(node, due, deadline, |truth| !truth.is_missing_any(due))
    }

    fn gather(
        &mut self,
        node: &Node,
        due: Devices,
        deadline: Duration,
        is_complete: impl Fn(&Truth) -> bool,
    ) -> bool {
        let manners = self
            .devices
            .iter()
            .map(|device| Manner {
                away: device.bit() & due == 0,
                ..Manner::settling()
            })
            .collect();
        let orders = Orders {
            come_back: true,
            disk_fails: self.options.disk_fails,
            ..Orders::default()
        };
        let phase = self.begin(node, orders, manners);
        let end = Instant::now() + deadline;
        let mut complete = false;
        while !phase.thread.is_finished() && Instant::now() < end {
            if !complete && is_complete(&self.truth()) {
                complete = true;
                phase.orders.done.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.end(phase);
        complete
    }

    /// A random moment of a span.
    pub fn moment(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_micros(self.random.random_range(from_ms * 1000..to_ms * 1000))
    }

    /// Whether one in `n`.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.random.random_ratio(1, n)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.random.random_range(0..n)
    }
}
