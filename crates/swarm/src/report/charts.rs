//! Which charts there are, and which figures are on them.

use super::chart::{Axis, Chart, Line, Scale};
use crate::{Event, Percentiles, Point};

/// Time, phases and events of all charts.
pub(super) fn axis<'a>(points: &[Point], events: &'a [Event]) -> Axis<'a> {
    let mut phases: Vec<(f64, String)> = Vec::new();
    for point in points {
        if phases.last().is_none_or(|(_, name)| *name != point.phase) {
            let began_s = (point.at_s - point.span_s).max(0.0);
            phases.push((began_s, point.phase.clone()));
        }
    }
    Axis {
        at_s: points.iter().map(|point| point.at_s).collect(),
        phases,
        events,
    }
}

fn line(name: &'static str, points: &[Point], of: impl Fn(&Point) -> Option<f64>) -> Line {
    let values = points.iter().map(of).collect();
    Line { name, values }
}

fn rate(name: &'static str, points: &[Point], of: impl Fn(&Point) -> u64) -> Line {
    line(name, points, |point| {
        Some(of(point) as f64 / point.span_s.max(1e-3))
    })
}

/// Median, 99th percentile and greatest.
fn latency(points: &[Point], of: impl Fn(&Point) -> Percentiles) -> Vec<Line> {
    let ms = |point: &Point, us: fn(Percentiles) -> u64| {
        let of = of(point);
        (of.count > 0).then(|| us(of) as f64 / 1000.0)
    };
    vec![
        line("p50", points, |point| ms(point, |of| of.p50_us)),
        line("p99", points, |point| ms(point, |of| of.p99_us)),
        line("max", points, |point| ms(point, |of| of.max_us)),
    ]
}

/// All charts on which there is something.
pub(super) fn all(points: &[Point]) -> Vec<Chart> {
    let chart = |id, title, unit, scale, lines| Chart {
        id,
        title,
        unit,
        scale,
        lines,
    };
    let counted = |name, of: fn(&Point) -> Option<u64>| {
        line(name, points, move |point| of(point).map(|n| n as f64))
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut charts = vec![
        chart(
            "users",
            "Devices signed in",
            "devices",
            Scale::Linear,
            vec![counted("signed in", |point| Some(point.online))],
        ),
        chart(
            "messages",
            "Messages",
            "a second",
            Scale::Linear,
            vec![
                rate("sent", points, |point| point.sent),
                rate("accepted", points, |point| point.accepted),
                rate("delivered", points, |point| point.delivered),
            ],
        ),
        chart(
            "accepted",
            "Send to accepted",
            "ms",
            Scale::Log,
            latency(points, |point| point.latencies.send_to_accepted),
        ),
        chart(
            "delivered",
            "Send to delivered",
            "ms",
            Scale::Log,
            latency(points, |point| point.latencies.send_to_delivered),
        ),
        chart(
            "welcome",
            "Connect to welcome",
            "ms",
            Scale::Log,
            latency(points, |point| point.latencies.connect_to_welcome),
        ),
        chart(
            "caught-up",
            "Reconnect to caught up",
            "ms",
            Scale::Log,
            latency(points, |point| point.latencies.reconnect_to_caught_up),
        ),
        chart(
            "trouble",
            "Refused, lost and back",
            "a second",
            Scale::Linear,
            vec![
                rate("sends refused", points, |point| point.refused),
                rate("connections lost", points, |point| point.lost_connections),
                rate("reconnects", points, |point| point.reconnects),
            ],
        ),
        chart(
            "memory",
            "Memory",
            "MiB",
            Scale::Linear,
            vec![
                line("server", points, |point| point.server.rss_bytes.map(mib)),
                line("swarm", points, |point| Some(mib(point.swarm_rss_bytes))),
            ],
        ),
        chart(
            "cpu",
            "Processor time",
            "cores",
            Scale::Linear,
            vec![
                line("server", points, |point| point.server.cpu_share),
                line("swarm", points, |point| Some(point.swarm_cpu_share)),
            ],
        ),
        chart(
            "waiting",
            "Deepest inbox, messages waiting for a commit",
            "messages",
            Scale::Linear,
            vec![
                counted("deepest inbox", |point| point.server.inbox_depth_max),
                counted("waiting for a commit", |point| point.server.commits_queued),
            ],
        ),
        chart(
            "mailboxes",
            "Messages in mailboxes",
            "messages",
            Scale::Linear,
            vec![counted("in mailboxes", |point| {
                point.server.mailbox_messages
            })],
        ),
        chart(
            "late",
            "How late the swarm's own timers fired",
            "ms",
            Scale::Linear,
            vec![line("mean", points, |point| {
                Some(point.swarm_late_us as f64 / 1000.0)
            })],
        ),
    ];
    // What never happened needs no chart.
    charts.retain(|chart| !chart.is_empty() && (chart.id != "trouble" || !chart.is_flat()));
    charts
}
