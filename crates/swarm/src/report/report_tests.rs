use super::*;
use crate::checker::{Kind, Totals, Verdict, Violation, Violations};
use crate::{Event, LatencySummary, Percentiles, ServerLook, ServerUse};

/// A run of two minutes with a dip at each event, made up.
fn made_up(outcome: Outcome) -> (About, Summary, Vec<Point>) {
    let about = About {
        scenario: "chatter".to_owned(),
        scenario_text: "about = \"<people>\"".to_owned(),
        command: "stonechat swarm run chatter".to_owned(),
        began_unix_s: 1_900_000_000,
        server: "ws://127.0.0.1:8080".to_owned(),
        version: "1".to_owned(),
        machine: "2 × made up".to_owned(),
    };
    let event = |kind: &str, at_ms, for_ms, recovery_ms| Event {
        kind: kind.to_owned(),
        at_ms,
        for_ms,
        recovery_ms,
        detail: format!("a {kind} & more"),
    };
    let chaos = vec![
        event("kill", 20_000, 0, Some(2_300)),
        event("pause", 50_000, 4_000, Some(150)),
        event("cut", 85_000, 0, Some(900)),
        event("kill", 104_000, 0, None),
    ];
    let mut violations = Violations::default();
    if outcome == Outcome::Broken {
        violations.counts.insert(Kind::Lost, 3);
        violations.first.push(Violation {
            kind: Kind::Lost,
            at_ms: 1_900_000_050_000,
            user: "swarm-7".to_owned(),
            device: "swarm".to_owned(),
            from: Some("swarm-9".to_owned()),
            from_device: Some("swarm".to_owned()),
            id: Some("01890000-0000-7000-8000-000000000000".to_owned()),
            seq: Some(17),
            number: None,
            what: "1 of 2 <accepted> messages came".to_owned(),
        });
    }
    let summary = Summary {
        processes: 1,
        ended_early: false,
        seed: 7,
        users: 1000,
        devices: 1,
        duration_s: 110.0,
        settled_after_s: 1.5,
        connections: 4123,
        reconnects: 3123,
        resends_known: 4,
        latencies: LatencySummary::default(),
        refusals: [("rate_limited".to_owned(), 12)].into(),
        ends: [("closed".to_owned(), 2000)].into(),
        cpu_s: 12.0,
        cpu_share_max: 0.4,
        rss_bytes_max: 30 << 20,
        rss_bytes_before: 10 << 20,
        late_us_max: 900,
        swarm_is_bottleneck: outcome == Outcome::Incomplete,
        server: ServerUse {
            rss_bytes_first: Some(20 << 20),
            rss_bytes_max: Some(64 << 20),
            cpu_s: Some(31.0),
            ..ServerUse::default()
        },
        chaos: chaos.clone(),
        chaos_left_out: Vec::new(),
        chaos_seed: None,
        server_log: None,
        verdict: Verdict {
            outcome,
            totals: Totals {
                sent: 55_000,
                accepted: 55_000,
                delivered: 55_000,
                ..Totals::default()
            },
            violations,
            devices_unreached: 0,
            sends_in_doubt: 0,
        },
    };
    let points = (0..120_u64)
        .map(|second| {
            let at_ms = second * 1000;
            let hit = chaos.iter().any(|event| {
                (event.at_ms..event.at_ms + event.for_ms + event.recovery_ms.unwrap_or(9000))
                    .contains(&at_ms)
            });
            let phase = ["signing in", "run", "settling"]
                [usize::from(second > 5) + usize::from(second > 115)];
            let count = if hit || phase != "run" {
                0
            } else {
                480 + second * 37 % 60
            };
            let latency = |base: u64| Percentiles {
                count,
                p50_us: base + second * 13 % 300,
                p90_us: base * 2,
                p99_us: base * 4 + second * 977 % 2000,
                p999_us: base * 9,
                max_us: base * 10 + second * 7919 % 30_000,
            };
            Point {
                at_s: second as f64 + 1.0,
                span_s: 1.0,
                phase: phase.to_owned(),
                online: if hit { 0 } else { 1000.min(second * 250) },
                sent: count,
                accepted: count,
                delivered: count,
                lost_connections: if hit { 500 } else { 0 },
                latencies: LatencySummary {
                    send_to_accepted: latency(900),
                    send_to_delivered: latency(1100),
                    ..LatencySummary::default()
                },
                swarm_cpu_share: 0.1,
                swarm_rss_bytes: 30 << 20,
                swarm_late_us: 80 + second * 31 % 90,
                server: ServerLook {
                    rss_bytes: (!hit).then_some((40 << 20) + second * 100_000),
                    cpu_share: (!hit).then_some(0.3 + (second % 7) as f64 / 50.0),
                    inbox_depth_max: Some(second % 9),
                    mailbox_messages: Some(second * 3),
                    ..ServerLook::default()
                },
                ..Point::default()
            }
        })
        .collect();
    (about, summary, points)
}

/// Every tag that is opened is closed, in its order.
fn is_well_formed(page: &str) -> Result<(), String> {
    let mut open = Vec::new();
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').ok_or(part)?;
        let name = tag.split_whitespace().next().unwrap_or("");
        if tag.ends_with('/') || ["!doctype", "meta"].contains(&name) {
            continue;
        }
        match name.strip_prefix('/') {
            Some(name) => {
                let last = open.pop().ok_or(format!("</{name}> ends nothing"))?;
                if last != name {
                    return Err(format!("</{name}> ends <{last}>"));
                }
            }
            None => open.push(name.to_owned()),
        }
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(format!("open: {open:?}"))
    }
}

#[test]
fn the_page_stands_alone_and_says_what_happened() {
    for (outcome, words) in [
        (Outcome::Clean, "All 55,000 messages"),
        (Outcome::Broken, "broke its word: 3 lost"),
        (Outcome::Incomplete, "The swarm was the bottleneck"),
    ] {
        let (about, summary, points) = made_up(outcome);
        let page = html(&about, &summary, &points);
        assert_eq!(is_well_formed(&page), Ok(()));
        assert!(page.contains(words), "{words}");
        assert!(page.contains(&format!("class=\"verdict {}\"", word(outcome))));
        for outside in ["<script", "http://", "https://", "<link", "@import", "url("] {
            assert!(!page.contains(outside), "it needs nothing else: {outside}");
        }
        for escaped in ["<people>", "<accepted>", "a kill & more"] {
            assert!(!page.contains(escaped), "{escaped} is markup");
        }
        assert_eq!(page.matches("NaN").count(), 0);
    }
}

#[test]
fn every_chart_has_its_events_its_words_and_its_table() {
    let (about, summary, points) = made_up(Outcome::Broken);
    let page = html(&about, &summary, &points);
    let charts = page.matches("<figure").count();
    assert!(charts >= 9, "{charts}");
    for (each, count) in [
        ("<desc", 1),
        ("role=\"img\"", 1),
        ("class=\"event\"", 4),
        ("same as a table", 1),
    ] {
        assert_eq!(page.matches(each).count(), charts * count, "{each}");
    }
    assert!(page.contains("kill at 20 s, recovered after 2.3 s"));
    assert!(page.contains("kill at 104 s, not recovered"));
    // A violation with everything it takes to find it in a log.
    for traced in [
        "swarm-7/swarm",
        "swarm-9 swarm",
        "01890000-0000-7000",
        "seq 17",
        "1900000050000",
    ] {
        assert!(page.contains(traced), "{traced}");
    }
}

#[test]
fn a_long_run_makes_no_longer_page() {
    let (about, summary, points) = made_up(Outcome::Clean);
    let long: Vec<Point> = points.iter().cycle().take(3600).cloned().collect();
    let page = html(&about, &summary, &long);
    assert!(page.len() < 700_000, "{}", page.len());
    assert!(page.contains("Several seconds share a point"));
}

/// Without a single point there is still a page: a run that broke off at once.
#[test]
fn a_run_without_a_second_has_a_page() {
    let (about, summary, _) = made_up(Outcome::Incomplete);
    assert_eq!(is_well_formed(&html(&about, &summary, &[])), Ok(()));
}

/// Writes the made-up page where `SWARM_REPORT_SAMPLE` says, to be looked at.
#[test]
fn the_sample_can_be_looked_at() {
    if let Some(path) = std::env::var_os("SWARM_REPORT_SAMPLE") {
        let (about, summary, points) = made_up(Outcome::Broken);
        std::fs::write(path, html(&about, &summary, &points)).unwrap();
    }
}

/// The page that people read and scripts are written from has every field of the summary, and no other.
#[test]
fn the_fields_of_the_summary_are_those_of_the_page() {
    let page = include_str!("../../../../docs/load-testing.md");
    let (_, section) = page.split_once("### The summary as JSON").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let told: std::collections::BTreeSet<_> = rows
        .flat_map(|row| row.split(", "))
        .map(|field| field.trim_matches('`').to_owned())
        .collect();
    let (_, summary, _) = made_up(Outcome::Clean);
    let summary = serde_json::to_value(&summary).unwrap();
    let known: std::collections::BTreeSet<_> =
        summary.as_object().unwrap().keys().cloned().collect();
    assert_eq!(told, known);
    let server = section
        .lines()
        .find(|line| line.starts_with("| `server`"))
        .unwrap();
    for field in summary["server"].as_object().unwrap().keys() {
        assert!(server.contains(&format!("`{field}`")), "{field}");
    }
}
