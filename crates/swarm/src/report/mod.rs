//! A run as one HTML page: the verdict, what ran and on what, tables, charts over time.
//!
//! The page needs nothing but itself: no script, no font, no address. Everything a chart shows is also in
//! a table. It tells what was measured and does not judge further than the verdict does.

mod chart;
mod charts;
mod tables;
mod text;

use std::fmt::Write as _;

use text::{escaped, mib, ms, short, utc, whole};

use crate::{Outcome, Percentiles, Point, Summary};

const NOT_KNOWN: &str = "–";
const STYLE: &str = include_str!("style.css");
/// Points of a line; a screen shows hardly more.
const CHART_POINTS_MAX: usize = 600;
/// Rows of the tables with the charts' figures.
const TABLE_ROWS_MAX: usize = 40;

/// What ran, and where.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The scenario's name.
    pub scenario: String,
    /// What is in it.
    pub scenario_text: String,
    /// The command that does it again.
    pub command: String,
    /// When it began, seconds since the Unix epoch.
    pub began_unix_s: u64,
    /// Where the server listens.
    pub server: String,
    /// Version of the swarm.
    pub version: String,
    /// What it ran on; see [`crate::machine`].
    pub machine: String,
}

/// The page.
pub fn html(about: &About, summary: &Summary, points: &[Point]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{} {}: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escaped(&about.scenario),
        word(summary.verdict.outcome),
        utc(about.began_unix_s),
    );
    head(&mut page, about, summary, points);
    tables::violations(&mut page, summary);
    tables::latencies(&mut page, summary);
    tables::findings(&mut page, summary);
    tables::chaos(&mut page, &summary.chaos);
    let some = thinned(points, CHART_POINTS_MAX);
    let axis = charts::axis(&some, &summary.chaos);
    page.push_str("<h2>Over time</h2>\n");
    let few = thinned(points, TABLE_ROWS_MAX);
    let few_axis = charts::axis(&few, &[]);
    for (chart, table) in charts::all(&some).iter().zip(charts::all(&few)) {
        tables::figure(&mut page, chart, &axis, &table, &few_axis);
    }
    if points.len() > CHART_POINTS_MAX || points.iter().any(|point| point.span_s > 1.9) {
        page.push_str(
            "<p class=\"about\">Several seconds share a point: rates are their mean, latencies and \
             gauges their worst.</p>\n",
        );
    }
    tables::sizing(&mut page, summary, points);
    tables::what_ran(&mut page, about, summary);
    page.push_str(
        "<footer>Latencies count from when a message was due, not from when it could be sent, unless the \
         load is a closed loop. How to read this page, and what each figure counts: \
         docs/load-testing.md.</footer>\n</main>\n</body>\n</html>\n",
    );
    page
}

fn thinned(points: &[Point], points_max: usize) -> Vec<Point> {
    crate::series::joined(points, points.len().div_ceil(points_max).max(1))
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "clean",
        Outcome::Broken => "broken",
        Outcome::Incomplete => "incomplete",
    }
}

/// The verdict in a sentence.
fn sentence(summary: &Summary) -> String {
    let totals = &summary.verdict.totals;
    match summary.verdict.outcome {
        Outcome::Clean if totals.accepted == 0 => {
            "Nobody wrote, and nothing came that should not have.".to_owned()
        }
        Outcome::Clean => format!(
            "All {} messages that were accepted came to every device they were for, once, in order, as \
             they were sent; every receipt is right.",
            whole(totals.accepted)
        ),
        Outcome::Broken => {
            let counts = &summary.verdict.violations.counts;
            let counts: Vec<String> = counts
                .iter()
                .map(|(kind, count)| format!("{} {kind}", whole(*count)))
                .collect();
            format!("The server broke its word: {}.", counts.join(", "))
        }
        Outcome::Incomplete => format!(
            "Nothing wrong was seen, but not everything could be checked: {} messages were accepted, {} \
             devices could not be reached at the end, {} sends are in doubt.",
            whole(totals.accepted),
            whole(summary.verdict.devices_unreached),
            whole(summary.verdict.sends_in_doubt)
        ),
    }
}

fn head(page: &mut String, about: &About, summary: &Summary, points: &[Point]) {
    let class = word(summary.verdict.outcome);
    let devices = match summary.devices {
        1 => "one device".to_owned(),
        devices => format!("{devices} devices"),
    };
    let _ = writeln!(
        page,
        "<h1>Swarm run: {}</h1>\n<p class=\"about\">{} · {} users with {} each · {} s · seed {}</p>\n\
         <div class=\"verdict {class}\" role=\"status\"><strong>Verdict: {class}</strong>{}</div>",
        escaped(&about.scenario),
        utc(about.began_unix_s),
        whole(summary.users.into()),
        devices,
        short(summary.duration_s),
        summary.seed,
        sentence(summary),
    );
    if summary.ended_early {
        page.push_str("<p class=\"warning\">Somebody ended this run before its time.</p>\n");
    }
    if summary.swarm_is_bottleneck {
        page.push_str(
            "<p class=\"warning\"><strong>The swarm was the bottleneck.</strong> In more than a tenth of all \
             seconds its thread was busy for more than 85% of the time, or its timers were late by more than \
             20 ms on average: rates and latencies are its own, not the server's. Take fewer users, a lower \
             rate, <code>--processes</code>, or another machine for the swarm.</p>\n",
        );
    }
    let most = points
        .iter()
        .map(|point| point.delivered as f64 / point.span_s.max(1e-3))
        .fold(0.0, f64::max);
    let latencies = &summary.latencies;
    let totals = &summary.verdict.totals;
    let known = |value: Option<String>| value.unwrap_or_else(|| NOT_KNOWN.to_owned());
    let p99 = |of: Percentiles| match of.count {
        0 => NOT_KNOWN.to_owned(),
        _ => ms(of.p99_us),
    };
    page.push_str("<dl class=\"tiles\">\n");
    for (name, value, unit) in [
        ("messages accepted", whole(totals.accepted), ""),
        ("delivered at most", short(most), "a second"),
        (
            "send to accepted, p99",
            p99(latencies.send_to_accepted),
            "ms",
        ),
        (
            "send to delivered, p99",
            p99(latencies.send_to_delivered),
            "ms",
        ),
        (
            "server memory, most",
            known(summary.server.rss_bytes_max.map(mib)),
            "MiB",
        ),
        (
            "server processor time",
            known(summary.server.cpu_s.map(short)),
            "s",
        ),
    ] {
        let unit = if value == NOT_KNOWN { "" } else { unit };
        let _ = writeln!(
            page,
            "<div><dt>{name}</dt><dd>{value} <small>{unit}</small></dd></div>"
        );
    }
    page.push_str("</dl>\n");
}

#[cfg(test)]
mod report_tests;
