//! Many talkers in pairs, and the checker that holds their ledgers against each other.
//!
//! The talkers run on a thread of their own, so that a suite can kill and restart the node in the
//! meantime.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::talker::{Ledger, Orders, Progress, Role, Talker};
use crate::{Node, POLL_EVERY, eventually_within};

/// How much traffic.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Users; an even number.
    pub users: usize,
    /// Sends of a user that may be unanswered at a time.
    pub window: usize,
    /// Pause of a user between two sends.
    pub pace: Duration,
    /// Whether panics will be injected.
    pub panics: bool,
    /// Whether each user has a second device, which only listens.
    pub tablets: bool,
}

/// Running traffic.
#[derive(Debug)]
pub struct Traffic {
    names: Vec<String>,
    progress: Vec<Arc<Progress>>,
    orders: Arc<Orders>,
    thread: Option<JoinHandle<Vec<Ledger>>>,
}

/// What all talkers saw, by name.
#[derive(Debug)]
pub struct Report {
    /// User and ledger of each phone; users `2k` and `2k + 1` are partners.
    pub ledgers: Vec<(String, Ledger)>,
    /// Ledgers of the tablets, in the same order; none when there are none.
    pub tablets: Vec<Ledger>,
    /// Whether everything had arrived before the deadline.
    pub complete: bool,
}

impl Traffic {
    /// Creates the users `u0`, `u1`… and lets each talk to its partner.
    ///
    /// # Panics
    /// When a user cannot be created.
    pub fn start(node: &Node, load: Load) -> Self {
        assert!(load.users.is_multiple_of(2), "users talk in pairs");
        let names: Vec<String> = (0..load.users).map(|n| format!("u{n}")).collect();
        let tokens: Vec<String> = names.iter().map(|name| node.user(name)).collect();
        let progress: Vec<Arc<Progress>> = names.iter().map(|_| Arc::default()).collect();
        let roles = if load.tablets {
            &[Role::Talks, Role::Listens][..]
        } else {
            &[Role::Talks]
        };
        let orders = Arc::new(Orders {
            devices: roles.len() * load.users,
            ..Orders::default()
        });
        let talkers: Vec<Talker> = roles
            .iter()
            .flat_map(|role| (0..load.users).map(|n| (*role, n)))
            .map(|(role, n)| Talker {
                role,
                user: names[n].clone(),
                token: tokens[n].clone(),
                partner: names[n ^ 1].clone(),
                window: load.window,
                pace: load.pace,
                panics: load.panics,
                endpoint: node.endpoint_cell(),
                orders: Arc::clone(&orders),
                own: Arc::clone(&progress[n]),
                other: Arc::clone(&progress[n ^ 1]),
            })
            .collect();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(futures_util::future::join_all(
                talkers.into_iter().map(Talker::run),
            ))
        });
        Self {
            names,
            progress,
            orders,
            thread: Some(thread),
        }
    }

    fn delivered(&self) -> Vec<u64> {
        self.progress
            .iter()
            .map(|own| own.delivered.load(Ordering::Acquire))
            .collect()
    }

    /// Waits until every user has received `n` more messages than now.
    ///
    /// # Panics
    /// When that does not happen within `deadline`.
    pub fn wait_progress(&self, n: u64, deadline: Duration) {
        let before = self.delivered();
        let end = Instant::now() + deadline;
        loop {
            let now = self.delivered();
            let behind: Vec<&String> = (0..now.len())
                .filter(|&user| now[user] < before[user] + n)
                .map(|user| &self.names[user])
                .collect();
            if behind.is_empty() {
                return;
            }
            assert!(
                Instant::now() < end,
                "no progress within {deadline:?} for {behind:?}: {before:?} then {now:?}"
            );
            std::thread::sleep(POLL_EVERY);
        }
    }

    /// Stops sending, waits until everything has arrived, and collects the ledgers.
    ///
    /// # Panics
    /// When a talker panicked.
    pub fn finish(mut self, deadline: Duration) -> Report {
        self.orders.finish.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("finished once");
        let end = Instant::now() + deadline;
        while !thread.is_finished() && Instant::now() < end {
            std::thread::sleep(POLL_EVERY);
        }
        let complete = thread.is_finished();
        self.orders.abort.store(true, Ordering::Relaxed);
        let mut ledgers = thread.join().expect("the talkers do not panic");
        let tablets = ledgers.split_off(self.names.len());
        Report {
            tablets,
            ledgers: std::mem::take(&mut self.names)
                .into_iter()
                .zip(ledgers)
                .collect(),
            complete,
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.orders.abort.store(true, Ordering::Relaxed);
            // Only reached when the suite failed already; a talker's panic adds nothing.
            let _ = thread.join();
        }
    }
}

impl Report {
    /// Messages accepted by all.
    pub fn accepted(&self) -> usize {
        self.ledgers
            .iter()
            .map(|(_, ledger)| ledger.accepted.len())
            .sum()
    }

    /// Sends refused to all.
    pub fn refused(&self) -> Vec<&(String, String)> {
        self.ledgers
            .iter()
            .flat_map(|(_, ledger)| &ledger.refused)
            .collect()
    }

    /// Holds every conversation to the contract: what was accepted arrived once, in the order
    /// sent, under increasing seqs; nothing else arrived.
    ///
    /// # Panics
    /// When a promise was broken.
    pub fn verify(&self) {
        let violations: Vec<&String> = self
            .ledgers
            .iter()
            .map(|(_, ledger)| ledger)
            .chain(&self.tablets)
            .flat_map(|ledger| &ledger.violations)
            .take(20)
            .collect();
        assert!(violations.is_empty(), "violations: {violations:#?}");
        for pair in self.ledgers.chunks(2) {
            let [one, two] = pair else {
                unreachable!("users talk in pairs")
            };
            conversation(one, two);
            conversation(two, one);
        }
        for (n, tablet) in self.tablets.iter().enumerate() {
            let (user, phone) = &self.ledgers[n];
            assert_eq!(
                tablet.delivered, phone.delivered,
                "{user}: both devices receive the same under the same seqs"
            );
            let copies: Vec<&String> = tablet.copies.iter().map(|(_, id)| id).collect();
            let sent: Vec<&String> = phone.accepted.iter().collect();
            assert_eq!(
                copies, sent,
                "{user}: the tablet has a copy of all that was sent"
            );
        }
        assert!(self.complete, "not everything had arrived by the deadline");
    }
}

fn conversation((sender, sent): &(String, Ledger), (recipient, got): &(String, Ledger)) {
    let way = format!("{sender} → {recipient}");
    assert_eq!(
        sent.unanswered, 0,
        "{way}: sends without an answer at the end"
    );
    for two in got.delivered.windows(2) {
        assert!(two[0].0 < two[1].0, "{way}: seq does not increase: {two:?}");
    }
    let delivered: Vec<&String> = got.delivered.iter().map(|(_, id)| id).collect();
    let accepted: Vec<&String> = sent.accepted.iter().collect();
    if delivered == accepted {
        return;
    }
    let lost: Vec<_> = accepted
        .iter()
        .filter(|id| !delivered.contains(id))
        .take(5)
        .collect();
    let strange: Vec<_> = delivered
        .iter()
        .filter(|id| !accepted.contains(id))
        .take(5)
        .collect();
    let at = delivered
        .iter()
        .zip(&accepted)
        .position(|(got, sent)| got != sent);
    panic!(
        "{way}: accepted {} but delivered {}; first difference at {at:?}; lost (first 5): {lost:?}; \
         delivered without being accepted: {strange:?}; refused: {:?}",
        accepted.len(),
        delivered.len(),
        sent.refused.iter().take(5).collect::<Vec<_>>()
    );
}

/// Waits until the node's admin API reports at least `n` panics.
///
/// # Panics
/// When it does not.
pub fn wait_panics(node: &Node, n: u64) {
    eventually_within(
        Duration::from_secs(60),
        &format!("{n} panics counted"),
        || {
            let panics = node.admin().get("/admin/v1/node").expect(200)["panics"].as_u64();
            (panics.expect("panics is a number") >= n).then_some(())
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(accepted: &[&str], delivered: &[(u64, &str)]) -> Report {
        let sender = Ledger {
            accepted: accepted.iter().map(|id| (*id).to_owned()).collect(),
            ..Ledger::default()
        };
        let recipient = Ledger {
            delivered: delivered
                .iter()
                .map(|(seq, id)| (*seq, (*id).to_owned()))
                .collect(),
            ..Ledger::default()
        };
        Report {
            ledgers: vec![("a".to_owned(), sender), ("b".to_owned(), recipient)],
            tablets: Vec::new(),
            complete: true,
        }
    }

    /// Whether the checker finds fault.
    fn found(report: Report) -> bool {
        std::panic::catch_unwind(move || report.verify()).is_err()
    }

    #[test]
    fn the_checker_finds_every_broken_promise() {
        let sent = ["x", "y", "z"];
        assert!(
            !found(report(&sent, &[(1, "x"), (2, "y"), (5, "z")])),
            "all is well"
        );
        for (what, delivered) in [
            ("lost at the end", &[(1, "x"), (2, "y")][..]),
            ("lost within", &[(1, "x"), (3, "z")]),
            ("twice", &[(1, "x"), (2, "y"), (3, "y"), (4, "z")]),
            ("out of order", &[(1, "y"), (2, "x"), (3, "z")]),
            ("a seq used twice", &[(1, "x"), (1, "y"), (3, "z")]),
            ("a seq that steps back", &[(2, "x"), (1, "y"), (3, "z")]),
            ("never accepted", &[(1, "x"), (2, "y"), (3, "z"), (4, "w")]),
        ] {
            assert!(found(report(&sent, delivered)), "not found: {what}");
        }
        let good = || report(&sent, &[(1, "x"), (2, "y"), (3, "z")]);
        let mut late = good();
        late.complete = false;
        let mut unanswered = good();
        unanswered.ledgers[0].1.unanswered = 1;
        let mut violated = good();
        violated.ledgers[1]
            .1
            .violations
            .push("something".to_owned());
        let mut uncopied = good();
        uncopied.tablets = vec![Ledger::default(), uncopied.ledgers[1].1.clone()];
        for report in [late, unanswered, violated, uncopied] {
            assert!(found(report));
        }
    }
}
