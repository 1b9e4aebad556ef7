//! The tables of the page, and each chart with the table of its figures.

use std::fmt::Write as _;

use super::About;
use super::chart::{Axis, Chart};
use super::text::{escaped, mib, ms, short, utc, whole};
use crate::{Event, Percentiles, Point, Summary};

fn row(page: &mut String, name: &str, value: &str) {
    let value = escaped(value);
    let _ = writeln!(
        page,
        "<tr><th scope=\"row\">{name}</th><td class=\"wide\">{value}</td></tr>"
    );
}

/// The head of a table; columns after the first `left` ones are numbers.
fn header(page: &mut String, caption: &str, columns: &[&str], left: usize) {
    page.push_str("<div class=\"scroll\"><table>");
    if !caption.is_empty() {
        let _ = write!(page, "<caption>{caption}</caption>");
    }
    if !columns.is_empty() {
        page.push_str("<thead><tr>");
        for (place, column) in columns.iter().enumerate() {
            let class = if place < left { "" } else { " class=\"n\"" };
            let _ = write!(page, "<th scope=\"col\"{class}>{column}</th>");
        }
        page.push_str("</tr></thead>");
    }
    page.push_str("<tbody>\n");
}

const END: &str = "</tbody></table></div>\n";

pub(super) fn latencies(page: &mut String, summary: &Summary) {
    page.push_str("<h2>Latencies</h2>\n");
    let columns = ["ms", "count", "p50", "p90", "p99", "p99.9", "max"];
    header(page, "Of the whole run", &columns, 1);
    let of = &summary.latencies;
    for (name, of) in [
        ("connect to welcome", of.connect_to_welcome),
        ("send to accepted", of.send_to_accepted),
        ("send to delivered", of.send_to_delivered),
        ("reconnect to caught up", of.reconnect_to_caught_up),
    ] {
        let _ = write!(page, "<tr><th scope=\"row\">{name}</th>");
        for cell in cells(of) {
            let _ = write!(page, "<td class=\"n\">{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str(END);
}

fn cells(of: Percentiles) -> [String; 6] {
    let values = [of.p50_us, of.p90_us, of.p99_us, of.p999_us, of.max_us];
    let [p50, p90, p99, p999, max] = values.map(|us| match of.count {
        0 => "–".to_owned(),
        _ => ms(us),
    });
    [whole(of.count), p50, p90, p99, p999, max]
}

/// What was counted.
pub(super) fn findings(page: &mut String, summary: &Summary) {
    page.push_str("<h2>What was counted</h2>\n");
    header(page, "", &[], 0);
    let totals = &summary.verdict.totals;
    for (name, count) in [
        ("sent", totals.sent),
        ("accepted", totals.accepted),
        ("refused", totals.refused),
        ("delivered, all devices", totals.delivered),
        (
            "came again, marked so, and were dropped",
            totals.redelivered,
        ),
        ("receipts", totals.receipts),
        ("sign-ins", summary.connections),
        ("of these, reconnects", summary.reconnects),
        (
            "resends that the server knew already",
            summary.resends_known,
        ),
    ] {
        let count = whole(count);
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\">{name}</th><td class=\"n\">{count}</td></tr>"
        );
    }
    for (what, reasons) in [
        ("refused", &summary.refusals),
        ("connections lost", &summary.ends),
    ] {
        for (reason, count) in reasons {
            let (reason, count) = (escaped(reason), whole(*count));
            let _ = writeln!(
                page,
                "<tr><th scope=\"row\">{what}: {reason}</th><td class=\"n\">{count}</td></tr>"
            );
        }
    }
    page.push_str(END);
}

/// The first violations, with what it takes to trace them.
pub(super) fn violations(page: &mut String, summary: &Summary) {
    let violations = &summary.verdict.violations;
    if violations.first.is_empty() {
        return;
    }
    page.push_str("<h2>Violations</h2>\n");
    let columns = [
        "kind",
        "time, Unix ms",
        "user, device",
        "from",
        "id, seq, number",
        "what",
    ];
    let caption =
        "The first of each kind; users, ids and times are what to look for in the server's log";
    header(page, caption, &columns, columns.len());
    for violation in &violations.first {
        let text = |text: &Option<String>| text.as_deref().unwrap_or("").to_owned();
        let mut which = text(&violation.id);
        for (name, number) in [("seq", violation.seq), ("number", violation.number)] {
            if let Some(number) = number {
                let _ = write!(which, " {name} {number}");
            }
        }
        let who = format!("{}/{}", violation.user, violation.device);
        let from = format!("{} {}", text(&violation.from), text(&violation.from_device));
        let _ = write!(
            page,
            "<tr><th scope=\"row\">{}</th><td>{}</td>",
            violation.kind, violation.at_ms
        );
        for cell in [&who, &from, &which, &violation.what] {
            let _ = write!(page, "<td class=\"wide\">{}</td>", escaped(cell.trim()));
        }
        page.push_str("</tr>\n");
    }
    page.push_str(END);
}

/// What was done to the server; the numbers are those in the charts.
pub(super) fn chaos(page: &mut String, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    page.push_str("<h2>Chaos</h2>\n");
    let columns = [
        "number in the charts",
        "kind",
        "what",
        "at, s",
        "for, s",
        "recovered after, s",
    ];
    let caption = "Recovered: from its end until messages went through again";
    header(page, caption, &columns, 3);
    let s = |ms: u64| short(ms as f64 / 1000.0);
    for (place, event) in events.iter().enumerate() {
        let recovered = event.recovery_ms.map_or_else(|| "not".to_owned(), s);
        let _ = writeln!(
            page,
            "<tr><td>{}</td><th scope=\"row\">{}</th><td class=\"wide\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{recovered}</td></tr>",
            place + 1,
            escaped(&event.kind),
            escaped(&event.detail),
            s(event.at_ms),
            s(event.for_ms),
        );
    }
    page.push_str(END);
}

/// A chart, and a table of the same figures in fewer steps.
pub(super) fn figure(
    page: &mut String,
    chart: &Chart,
    axis: &Axis<'_>,
    table: &Chart,
    table_axis: &Axis<'_>,
) {
    let (title, unit) = (chart.title, chart.unit);
    let _ = write!(
        page,
        "<figure id=\"{}\"><header><h3>{title}</h3><span class=\"unit\">{unit}</span>",
        chart.id
    );
    if chart.lines.len() > 1 {
        for (place, line) in chart.lines.iter().enumerate() {
            let _ = write!(
                page,
                "<span class=\"key\"><svg viewBox=\"0 0 36 14\" aria-hidden=\"true\">\
                 <path class=\"line l{place}\" d=\"M2 7H34\"/></svg>{}</span>",
                line.name
            );
        }
    }
    page.push_str("</header>\n");
    page.push_str(&chart.svg(axis));
    page.push_str("<details><summary>The same as a table</summary>\n");
    let mut columns = vec!["at, s"];
    columns.extend(table.lines.iter().map(|line| line.name));
    header(page, &format!("{title}, {unit}"), &columns, 0);
    for (place, at_s) in table_axis.at_s.iter().enumerate() {
        let _ = write!(
            page,
            "<tr><th scope=\"row\" class=\"n\">{}</th>",
            short(*at_s)
        );
        for line in &table.lines {
            let value = line.values[place].map_or_else(|| "–".to_owned(), short);
            let _ = write!(page, "<td class=\"n\">{value}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str(END);
    page.push_str("</details></figure>\n");
}

/// What it takes to think further: each figure for one connection or a million messages.
pub(super) fn sizing(page: &mut String, summary: &Summary, points: &[Point]) {
    let server = &summary.server;
    let devices = points.iter().map(|point| point.online).max().unwrap_or(0);
    let totals = &summary.verdict.totals;
    let mut rows = Vec::new();
    if let (Some(first), Some(most)) = (server.rss_bytes_first, server.rss_bytes_max)
        && devices > 0
    {
        let each = most.saturating_sub(first) / devices;
        rows.push((
            "server memory for each device, everything included",
            format!("{} bytes", whole(each)),
        ));
    }
    if let Some(cpu_s) = server.cpu_s.filter(|_| totals.accepted > 0) {
        let each = cpu_s * 1e6 / totals.accepted as f64;
        rows.push((
            "server processor time for 1M accepted messages",
            format!("{} s", short(each)),
        ));
    }
    let most = |of: fn(&Point) -> Option<f64>| points.iter().filter_map(of).reduce(f64::max);
    if let Some(cores) = most(|point| point.server.cpu_share) {
        rows.push((
            "server processor time, most in a second",
            format!("{} cores", short(cores)),
        ));
    }
    if let Some(bytes) = server.disk_bytes_max {
        rows.push((
            "journal and database on disk, most",
            format!("{} MiB", mib(bytes)),
        ));
    }
    let (busy, late) = (summary.cpu_share_max * 100.0, ms(summary.late_us_max));
    rows.push((
        "swarm: its thread, busiest second",
        format!("{}% of a core", short(busy)),
    ));
    rows.push((
        "swarm: its timers, most late in a second",
        format!("{late} ms on average"),
    ));
    page.push_str("<h2>For sizing</h2>\n");
    header(
        page,
        "How to think further from these is in docs/load-testing.md",
        &[],
        0,
    );
    for (name, value) in rows {
        row(page, name, &value);
    }
    page.push_str(END);
}

pub(super) fn what_ran(page: &mut String, about: &About, summary: &Summary) {
    page.push_str("<h2>What ran</h2>\n");
    header(page, "", &[], 0);
    let version = summary.server.version.as_deref();
    let server = format!(
        "{}, version {}",
        about.server,
        version.unwrap_or("not known")
    );
    let processes = summary.processes.to_string();
    for (name, value) in [
        ("command", &about.command),
        ("began", &utc(about.began_unix_s)),
        ("server", &server),
        ("swarm", &format!("version {}", about.version)),
        ("processes of the swarm", &processes),
        ("machine of the swarm", &about.machine),
    ] {
        row(page, name, value);
    }
    page.push_str(END);
    let text = escaped(about.scenario_text.trim());
    let _ = writeln!(
        page,
        "<details><summary>The scenario</summary><pre>{text}</pre></details>"
    );
}
