//! What several processes found, as one.
//!
//! Counts are added up and histograms put together, so that percentiles are those of all users. A verdict
//! is as good as the worst of them. Of what is a most at a time (memory, busiest second) processes that ran
//! at the same time are added where they add up, and the worst is taken where they do not.

use std::collections::BTreeMap;

use crate::run::Finished;
use crate::{LatencySummary, Outcome, Summary};

/// One run out of several that went at the same time; `None` when there was none.
pub fn merged(parts: Vec<Finished>) -> Option<Finished> {
    let mut parts = parts.into_iter();
    let mut all = parts.next()?;
    for part in parts {
        all.latencies.add(&part.latencies);
        add(&mut all.summary, part.summary);
    }
    all.summary.latencies = LatencySummary::of(&all.latencies);
    Some(all)
}

fn add(all: &mut Summary, part: Summary) {
    all.processes += part.processes;
    all.ended_early |= part.ended_early;
    all.settled_after_s = all.settled_after_s.max(part.settled_after_s);
    add_reasons(&mut all.refusals, part.refusals);
    add_reasons(&mut all.ends, part.ends);
    all.cpu_s += part.cpu_s;
    all.cpu_share_max = all.cpu_share_max.max(part.cpu_share_max);
    all.late_us_max = all.late_us_max.max(part.late_us_max);
    all.swarm_is_bottleneck |= part.swarm_is_bottleneck;
    all.chaos.extend(part.chaos);
    let (verdict, more) = (&mut all.verdict, part.verdict);
    verdict.outcome = match (verdict.outcome, more.outcome) {
        (Outcome::Broken, _) | (_, Outcome::Broken) => Outcome::Broken,
        (Outcome::Incomplete, _) | (_, Outcome::Incomplete) => Outcome::Incomplete,
        (Outcome::Clean, Outcome::Clean) => Outcome::Clean,
    };
    verdict.violations.merge(more.violations);
    let (totals, more_totals) = (&mut verdict.totals, more.totals);
    for (own, more) in [
        (&mut totals.sent, more_totals.sent),
        (&mut totals.accepted, more_totals.accepted),
        (&mut totals.refused, more_totals.refused),
        (&mut totals.delivered, more_totals.delivered),
        (&mut totals.redelivered, more_totals.redelivered),
        (&mut totals.receipts, more_totals.receipts),
        (&mut verdict.devices_unreached, more.devices_unreached),
        (&mut verdict.sends_in_doubt, more.sends_in_doubt),
        (&mut all.connections, part.connections),
        (&mut all.reconnects, part.reconnects),
        (&mut all.resends_known, part.resends_known),
        (&mut all.rss_bytes_max, part.rss_bytes_max),
        (&mut all.rss_bytes_before, part.rss_bytes_before),
    ] {
        *own += more;
    }
    all.users += part.users;
}

fn add_reasons(all: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>) {
    for (reason, count) in more {
        *all.entry(reason).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{Kind, Totals, Verdict, Violation, Violations};
    use crate::people::Latencies;
    use crate::{Percentiles, ServerUse, VIOLATIONS_MAX_EACH};

    fn part(n: u64, outcome: Outcome) -> Finished {
        let mut latencies = Latencies::default();
        (0..100).for_each(|us| latencies.accepted.record_us(n * 1000 + us));
        let mut violations = Violations::default();
        if outcome == Outcome::Broken {
            for seq in 0..15 {
                violations.add(Violation {
                    kind: Kind::Lost,
                    at_ms: 1,
                    user: format!("p{n}"),
                    device: "d".to_owned(),
                    from: None,
                    from_device: None,
                    id: None,
                    seq: Some(seq),
                    number: None,
                    what: String::new(),
                });
            }
        }
        let summary = Summary {
            processes: 1,
            ended_early: false,
            seed: 1,
            users: 10,
            devices: 2,
            duration_s: 1.0,
            settled_after_s: n as f64,
            connections: 20,
            reconnects: 1,
            resends_known: 0,
            latencies: LatencySummary::of(&latencies),
            refusals: [("rate_limited".to_owned(), n)].into(),
            ends: BTreeMap::new(),
            cpu_s: 1.0,
            cpu_share_max: 0.1 * n as f64,
            rss_bytes_max: 100,
            rss_bytes_before: 10,
            late_us_max: n,
            swarm_is_bottleneck: n == 2,
            server: ServerUse::default(),
            chaos: Vec::new(),
            chaos_left_out: Vec::new(),
            chaos_seed: None,
            server_log: None,
            verdict: Verdict {
                outcome,
                totals: Totals {
                    accepted: 100,
                    ..Totals::default()
                },
                violations,
                devices_unreached: 0,
                sends_in_doubt: 0,
            },
        };
        Finished { summary, latencies }
    }

    #[test]
    fn one_out_of_several_is_as_good_as_the_worst() {
        use Outcome::{Broken, Clean, Incomplete};
        for (outcomes, worst) in [
            ([Clean, Clean], Clean),
            ([Clean, Incomplete], Incomplete),
            ([Broken, Incomplete], Broken),
            ([Incomplete, Broken], Broken),
        ] {
            let parts = vec![part(1, outcomes[0]), part(2, outcomes[1])];
            assert_eq!(merged(parts).unwrap().summary.verdict.outcome, worst);
        }
        assert!(merged(Vec::new()).is_none());
    }

    #[test]
    fn counts_add_up_and_percentiles_are_those_of_all() {
        let parts = (1..=3).map(|n| part(n, Outcome::Broken)).collect();
        let all = merged(parts).unwrap().summary;
        assert_eq!((all.processes, all.users, all.connections), (3, 30, 60));
        assert_eq!(all.verdict.totals.accepted, 300);
        assert_eq!(all.refusals["rate_limited"], 6);
        assert_eq!((all.rss_bytes_max, all.late_us_max), (300, 3));
        assert!(all.swarm_is_bottleneck);
        let Percentiles {
            count,
            p50_us,
            max_us,
            ..
        } = all.latencies.send_to_accepted;
        assert_eq!(count, 300);
        assert!((2000..2100).contains(&p50_us), "{p50_us}");
        assert!(max_us >= 3099, "{max_us}");
        let violations = all.verdict.violations;
        assert_eq!(violations.count(Kind::Lost), 45);
        assert_eq!(violations.first.len(), VIOLATIONS_MAX_EACH);
    }
}
