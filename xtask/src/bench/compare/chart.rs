//! The table as a picture: how many times our cost the others have, on a logarithmic axis.

use std::fmt::Write as _;

use super::node::Kind;
use super::table::Table;
use crate::bench::report::short;

const WIDTH: f64 = 1000.0;
const LABELS: f64 = 540.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 11.0;
const ROW: f64 = 34.0;
const TOP: f64 = 70.0;
/// Powers of ten: from a tenth to a thousand times.
const FROM: f64 = -1.0;
const TO: f64 = 3.0;
const COLOURS: [&str; 3] = ["#2b6cb0", "#c05621", "#6b46c1"];

/// Draws all rows in which others can be compared.
pub(super) fn svg(table: &Table) -> String {
    let rows: Vec<_> = table
        .rows
        .iter()
        .filter(|row| {
            [Kind::Ejabberd, Kind::Prosody]
                .iter()
                .any(|kind| usable(row.times(*kind)))
        })
        .collect();
    let height = TOP + rows.len() as f64 * ROW + 20.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"16\">Times what Stonechat takes \
         (memory, CPU, time for the same work)</text>\n"
    );
    for (place, kind) in [Kind::Ejabberd, Kind::Prosody].into_iter().enumerate() {
        let (x, colour) = (LABELS + 110.0 * place as f64, COLOURS[kind as usize]);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"34\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"43\">{}</text>",
            x + 14.0,
            kind.name()
        );
    }
    for exponent in FROM as i32..=TO as i32 {
        let x = at(10f64.powi(exponent));
        let colour = if exponent == 0 { COLOURS[0] } else { "#ddd" };
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"{colour}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\">{}</text>",
            TOP - 2.0,
            height - 16.0,
            TOP - 8.0,
            10f64.powi(exponent)
        );
    }
    for (number, row) in rows.iter().enumerate() {
        let y = TOP + number as f64 * ROW + 4.0;
        let tls = if row.tls { " (TLS)" } else { "" };
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}{tls}</text>",
            LABELS - 8.0,
            y + BAR + 4.0,
            row.name
        );
        for (place, kind) in [Kind::Ejabberd, Kind::Prosody].into_iter().enumerate() {
            let Some(times) = row.times(kind).filter(|times| usable(Some(*times))) else {
                continue;
            };
            let (one, end) = (at(1.0), at(times));
            let top = y + place as f64 * (BAR + 2.0);
            let _ = writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                one.min(end),
                (end - one).abs().max(1.0),
                COLOURS[kind as usize],
                one.max(end) + 4.0,
                top + BAR - 1.0,
                short(times)
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn usable(times: Option<f64>) -> bool {
    times.is_some_and(|times| times > 0.0)
}

fn at(times: f64) -> f64 {
    let share = (times.log10().clamp(FROM, TO) - FROM) / (TO - FROM);
    LABELS + share * (WIDTH - LABELS - RIGHT)
}

#[cfg(test)]
mod tests {
    use super::super::table::Better;
    use super::*;

    #[test]
    fn a_bar_for_each_server_that_can_be_compared() {
        let mut table = Table::default();
        let row = ("memory", "bytes", Better::Less);
        table.put(row, false, Kind::Ours, Ok(1.0));
        table.put(row, false, Kind::Ejabberd, Ok(10.0));
        table.put(row, false, Kind::Prosody, Err("died".to_owned()));
        let none = ("nothing", "bytes", Better::Less);
        table.put(none, false, Kind::Ours, Ok(0.0));
        table.put(none, false, Kind::Ejabberd, Ok(0.0));
        let drawn = svg(&table);
        assert!(drawn.contains(">memory</text>") && !drawn.contains(">nothing</text>"));
        assert!(drawn.contains(">10.0</text>"));
        for tick in [">0.1<", ">1<", ">10<", ">100<", ">1000<"] {
            assert!(drawn.contains(tick), "{tick}");
        }
        // Ten times is a quarter of the axis.
        assert!((at(10.0) - at(1.0) - (WIDTH - LABELS - RIGHT) / 4.0).abs() < 0.01);
    }
}
