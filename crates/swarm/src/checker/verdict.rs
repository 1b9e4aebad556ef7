//! The end: what is missing, and the verdict.

use serde::{Deserialize, Serialize};
use stonechat_protocol::MessageId;

use super::{Arrived, Checker, Kind, Outgoing, Totals, Violation, Violations, Way};

/// Numbers of lost messages that are named for one pair and device.
const NUMBERS_MAX: usize = 8;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The server kept its word.
    Clean,
    /// It did not.
    Broken,
    /// Nothing wrong was seen, but not everything could be checked.
    Incomplete,
}

/// What the checker decides at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// In one word.
    pub outcome: Outcome,
    /// What was counted.
    pub totals: Totals,
    /// What was found.
    pub violations: Violations,
    /// Devices that were not connected at the end, so that what they lack is not held against the server.
    pub devices_unreached: u64,
    /// Sends of such devices that were never answered.
    pub sends_in_doubt: u64,
}

/// Something that is missing.
enum Missing<'a> {
    /// Of the pair's messages this device got fewer or others than were accepted.
    Messages(Way, &'a Outgoing, Arrived),
    /// Sends without an answer.
    Answers((u32, u32), u32),
    /// A device does not know how far the other user has got.
    Receipt((u32, u32), &'static str, u128, u128),
}

impl Checker {
    /// How much is missing at this moment: messages, answers, receipts. 0 when all is settled.
    pub fn outstanding(&self) -> u64 {
        let mut count = 0;
        self.missing(&|_| true, |missing| {
            count += match missing {
                Missing::Messages(_, pair, arrived) => {
                    u64::from(pair.accepted.abs_diff(arrived.count)).max(1)
                }
                Missing::Answers(_, unanswered) => u64::from(unanswered),
                Missing::Receipt(..) => 1,
            }
        });
        count
    }

    /// Decides. Whatever is missing at a device that is `reached` is missing for good.
    pub fn verdict(mut self, reached: impl Fn(u32) -> bool) -> Verdict {
        let mut found = Vec::new();
        self.missing(&reached, |missing| found.push(self.describe(&missing)));
        self.compare_mailboxes(&reached, &mut found);
        for violation in found {
            self.violations.add(violation);
        }
        let devices = 0..u32::try_from(self.mailboxes.len()).unwrap_or(u32::MAX);
        let devices_unreached = devices.filter(|device| !reached(*device)).count() as u64;
        let in_doubt = self.pairs.iter().filter(|((by, _), _)| !reached(*by));
        let sends_in_doubt = in_doubt.map(|(_, pair)| u64::from(pair.in_doubt())).sum();
        Verdict {
            outcome: if self.violations.total() > 0 {
                Outcome::Broken
            } else if devices_unreached > 0 {
                Outcome::Incomplete
            } else {
                Outcome::Clean
            },
            totals: self.totals,
            violations: self.violations,
            devices_unreached,
            sends_in_doubt,
        }
    }

    /// Devices whose user has read more of `from` than `from` was told, with `from`.
    pub(crate) fn reads_behind(&self) -> Vec<(u32, u32)> {
        let mut behind = Vec::new();
        self.missing(&|_| true, |missing| {
            if let Missing::Receipt((device, to), "read", ..) = missing {
                let by = self.names.user_of(device);
                behind.extend(self.devices_of(to).map(|reader| (reader, by)));
            }
        });
        behind
    }

    fn devices_of(&self, user: u32) -> std::ops::Range<u32> {
        let each = self.names.devices_each();
        user * each..(user + 1) * each
    }

    /// Goes through everything that should have come to an end.
    fn missing<'a>(&'a self, reached: &dyn Fn(u32) -> bool, mut found: impl FnMut(Missing<'a>)) {
        for (&(by, to), pair) in &self.pairs {
            let own = self.names.user_of(by);
            let copies = self.devices_of(own).filter(|device| *device != by);
            for device in self.devices_of(to).chain(copies) {
                let way = (device, by, to);
                let arrived = self.arrived.get(&way).copied().unwrap_or_default();
                if reached(device) && !fits(pair, arrived) {
                    found(Missing::Messages(way, pair, arrived));
                }
            }
            if reached(by) && pair.in_doubt() > 0 {
                found(Missing::Answers((by, to), pair.in_doubt()));
            }
        }
        for (&(by, to), conversation) in &self.conversations {
            if conversation.last_id == 0 || !self.devices_of(to).any(reached) {
                continue;
            }
            for device in self.devices_of(by).filter(|device| reached(*device)) {
                let pair = self.pairs.get(&(device, to)).copied().unwrap_or_default();
                let mut due = |what, told, due| {
                    if told != due {
                        found(Missing::Receipt((device, to), what, told, due));
                    }
                };
                due("delivered", pair.delivered, conversation.last_id);
                due("read", pair.read, conversation.read_id);
            }
        }
    }

    fn describe(&self, missing: &Missing<'_>) -> Violation {
        match *missing {
            Missing::Messages(way, pair, arrived) => {
                let (device, by, to) = way;
                let (accepted, count) = (pair.accepted, arrived.count);
                let to = self.names.user(to);
                let (kind, what) = if count > accepted {
                    let what = format!("{count} messages to {to} came, {accepted} were accepted");
                    (Kind::Phantom, what)
                } else {
                    let numbers = self.lost_numbers(way, pair, arrived);
                    let what = format!(
                        "{count} of {accepted} accepted messages to {to} came; missing are the numbers {numbers}"
                    );
                    (Kind::Lost, what)
                };
                Violation {
                    from: Some(self.names.user(self.names.user_of(by))),
                    from_device: Some(self.names.device(by)),
                    ..self.about(kind, device, what)
                }
            }
            Missing::Answers((by, to), unanswered) => {
                let to = self.names.user(to);
                let what = format!("{unanswered} sends to {to} were neither accepted nor refused");
                self.about(Kind::Unanswered, by, what)
            }
            Missing::Receipt((device, with), of, told, due) => {
                let shown = |id| match id {
                    0 => "nothing".to_owned(),
                    id => MessageId::from_u128(id).to_string(),
                };
                let what = format!("{of} up to {}, told {}", shown(due), shown(told));
                Violation {
                    from: Some(self.names.user(with)),
                    id: (due > 0).then(|| shown(due)),
                    ..self.about(Kind::ReceiptMissing, device, what)
                }
            }
        }
    }

    /// The first numbers that were accepted, as far as known, and did not come.
    fn lost_numbers(&self, way: Way, pair: &Outgoing, arrived: Arrived) -> String {
        let (_, by, to) = way;
        let gaps = self.gaps.get(&way).map(Vec::as_slice).unwrap_or_default();
        let mut gaps = gaps.to_vec();
        gaps.push(arrived.next..pair.next);
        gaps.sort_unstable_by_key(|gap| gap.start);
        let numbers = gaps.into_iter().flatten();
        let lost = numbers.filter(|number| !self.refusals.contains(&(by, to, *number)));
        let mut named: Vec<String> = lost
            .take(NUMBERS_MAX + 1)
            .map(|number| number.to_string())
            .collect();
        if named.len() > NUMBERS_MAX {
            named[NUMBERS_MAX] = "…".to_owned();
        }
        named.join(", ")
    }

    /// All devices of a user have read the same mailbox.
    fn compare_mailboxes(&self, reached: &dyn Fn(u32) -> bool, found: &mut Vec<Violation>) {
        let users = self.mailboxes.len() / self.names.devices_each() as usize;
        for user in 0..u32::try_from(users).unwrap_or(u32::MAX) {
            let mut devices = self.devices_of(user).filter(|device| reached(*device));
            let Some(first) = devices.next() else {
                continue;
            };
            for device in devices {
                if self.mailboxes[device as usize] != self.mailboxes[first as usize] {
                    let other = self.names.device(first);
                    let what = format!("it did not get the same under the same seqs as {other}");
                    found.push(self.about(Kind::Mailbox, device, what));
                }
            }
        }
    }
}

/// Whether a device got what was accepted. What is in doubt may have come or not.
fn fits(pair: &Outgoing, arrived: Arrived) -> bool {
    if pair.in_doubt() == 0 {
        return (arrived.count, arrived.sum) == (pair.accepted, pair.sum);
    }
    (pair.accepted..=pair.accepted + pair.in_doubt()).contains(&arrived.count)
}
