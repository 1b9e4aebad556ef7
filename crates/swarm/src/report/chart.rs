//! A chart of values over time as inline SVG: lines, a scale, phases, and what was done to the server.
//!
//! Colours come from the page's style sheet, so that the same SVG is right in the light, in the dark and
//! on paper; lines also differ by their dashes. It knows nothing of what the values mean.

use std::fmt::Write as _;

use super::text::{escaped, short};
use crate::Event;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 232.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 26.0;
/// Marks of events that are nearer than this are not numbered.
const MARK_APART: f64 = 17.0;
/// A name of a phase needs about so much for each letter.
const LETTER: f64 = 6.2;
/// So many steps on a scale, about.
const STEPS: f64 = 5.0;
/// Steps on the axis of time.
const TIME_STEPS_S: [f64; 15] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 14_400.0,
    86_400.0,
];

/// How values are spread over the height.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten, for what spans several.
    Log,
}

/// Values over time; a value that is absent leaves a gap.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

/// A chart.
#[derive(Debug)]
pub(super) struct Chart {
    /// For links and labels; one word.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) scale: Scale,
    pub(super) lines: Vec<Line>,
}

/// What all charts of a report share.
#[derive(Debug)]
pub(super) struct Axis<'a> {
    /// When each value was measured.
    pub(super) at_s: Vec<f64>,
    /// When each phase began, and its name.
    pub(super) phases: Vec<(f64, String)>,
    /// What was done to the server.
    pub(super) events: &'a [Event],
}

impl Axis<'_> {
    fn end_s(&self) -> f64 {
        self.at_s.last().copied().unwrap_or(1.0).max(1.0)
    }

    fn x(&self, at_s: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at_s / self.end_s()).clamp(0.0, 1.0)
    }
}

/// The ends of a scale and the values that are written on it.
#[derive(Debug, PartialEq)]
struct Ticks {
    low: f64,
    high: f64,
    at: Vec<f64>,
}

impl Ticks {
    fn linear(max: f64) -> Self {
        let max = if max > 0.0 { max } else { 1.0 };
        let rough = max / STEPS;
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0];
        let fits = steps.into_iter().find(|step| step * power >= rough * 0.999);
        let step = power * fits.unwrap_or(10.0);
        let count = (max / step).ceil();
        Self {
            low: 0.0,
            high: step * count,
            at: (0..=count as u32).map(|n| step * f64::from(n)).collect(),
        }
    }

    fn log(min: f64, max: f64) -> Self {
        let low = min.log10().floor();
        let high = max.log10().ceil().max(low + 1.0);
        let powers = (0..=(high - low) as u32).map(|n| 10_f64.powf(low + f64::from(n)));
        Self {
            low: 10_f64.powf(low),
            high: 10_f64.powf(high),
            at: powers.collect(),
        }
    }
}

impl Chart {
    /// Whether there is anything on it.
    pub(super) fn is_empty(&self) -> bool {
        self.values().next().is_none()
    }

    /// Whether it shows nothing but zero.
    pub(super) fn is_flat(&self) -> bool {
        self.values().all(|value| value == 0.0)
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        let all = self.lines.iter().flat_map(|line| &line.values);
        all.copied().flatten()
    }

    fn ticks(&self) -> Ticks {
        let max = self.values().fold(0.0, f64::max);
        let positive = self.values().filter(|value| *value > 0.0);
        let min = positive.fold(f64::INFINITY, f64::min);
        match self.scale {
            Scale::Log if min.is_finite() => Ticks::log(min, max),
            _ => Ticks::linear(max),
        }
    }

    /// How high a value stands.
    fn y(&self, ticks: &Ticks, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Log if ticks.low > 0.0 => {
                (value.max(ticks.low) / ticks.low).log10() / (ticks.high / ticks.low).log10()
            }
            _ => value / ticks.high,
        };
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share.clamp(0.0, 1.0)
    }

    /// The chart.
    pub(super) fn svg(&self, axis: &Axis<'_>) -> String {
        let ticks = self.ticks();
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n\
             <title id=\"{id}-title\">{}, {}</title>\n<desc id=\"{id}-desc\">{}</desc>\n",
            self.title,
            self.unit,
            escaped(&self.description(axis)),
            id = self.id,
        );
        self.grid(&mut svg, &ticks, axis);
        events(&mut svg, axis);
        for (place, line) in self.lines.iter().enumerate() {
            let path = self.path(line, &ticks, axis);
            let _ = writeln!(svg, "<path class=\"line l{place}\" d=\"{path}\"/>");
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// What the chart shows, in words.
    fn description(&self, axis: &Axis<'_>) -> String {
        let mut text = format!("Over {} seconds.", short(axis.end_s()));
        for line in &self.lines {
            let values = || line.values.iter().copied().flatten();
            let count = values().count();
            if count == 0 {
                continue;
            }
            let mean = values().sum::<f64>() / count as f64;
            let max = values().fold(0.0, f64::max);
            let (name, unit) = (line.name, self.unit);
            let (mean, max) = (short(mean), short(max));
            let _ = write!(text, " {name}: mean {mean}, most {max} {unit}.");
        }
        if !axis.events.is_empty() {
            let _ = write!(text, " {} disturbances are marked.", axis.events.len());
        }
        text
    }

    fn grid(&self, svg: &mut String, ticks: &Ticks, axis: &Axis<'_>) {
        for &tick in &ticks.at {
            let y = self.y(ticks, tick);
            let (from, to, label) = (LEFT, WIDTH - RIGHT, short(tick));
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{from}\" x2=\"{to}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 7.0,
                y + 4.0
            );
        }
        let end_s = axis.end_s();
        let fits = TIME_STEPS_S.into_iter().find(|step| end_s / step <= 12.0);
        let step_s = fits.unwrap_or(end_s);
        let seconds = (0..=(end_s / step_s) as u32).map(|n| f64::from(n) * step_s);
        for at_s in seconds {
            let (x, y, label) = (axis.x(at_s), HEIGHT - BOTTOM + 17.0, short(at_s));
            let _ = writeln!(
                svg,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label} s</text>"
            );
        }
        for (place, (at_s, name)) in axis.phases.iter().enumerate() {
            let x = axis.x(*at_s);
            let (top, bottom) = (TOP, HEIGHT - BOTTOM);
            let _ = writeln!(
                svg,
                "<line class=\"phase\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>"
            );
            // A name that would run into the next one is left out; the line still stands.
            let next_x = axis
                .phases
                .get(place + 1)
                .map_or(WIDTH, |next| axis.x(next.0));
            if next_x - x >= LETTER * name.chars().count() as f64 {
                let name = escaped(name);
                let _ = writeln!(
                    svg,
                    "<text class=\"name\" x=\"{x:.1}\" y=\"12\">{name}</text>"
                );
            }
        }
    }

    fn path(&self, line: &Line, ticks: &Ticks, axis: &Axis<'_>) -> String {
        let mut path = String::new();
        let values = &line.values;
        let known = |place: usize| values.get(place).copied().flatten().is_some();
        for (place, (at_s, value)) in axis.at_s.iter().zip(values).enumerate() {
            let Some(value) = value else { continue };
            let (x, y) = (axis.x(*at_s), self.y(ticks, *value));
            let joined = place > 0 && known(place - 1);
            let command = if joined { "L" } else { "M" };
            let _ = write!(path, "{command}{x:.1} {y:.1}");
            if !joined && !known(place + 1) {
                // A point that stands alone is a ring: a line needs two.
                path.push_str("m-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0");
            }
        }
        path
    }
}

/// Bands from the beginning to the end of each event, paler ones until messages went through again.
fn events(svg: &mut String, axis: &Axis<'_>) {
    let (top, height) = (TOP, HEIGHT - TOP - BOTTOM);
    let mut last_x = -MARK_APART;
    for (place, event) in axis.events.iter().enumerate() {
        let at_s = |ms: u64| ms as f64 / 1000.0;
        let end_ms = event.at_ms + event.for_ms;
        let from = axis.x(at_s(event.at_ms));
        let to = axis.x(at_s(end_ms)).max(from + 1.5);
        let whole = axis
            .x(at_s(end_ms + event.recovery_ms.unwrap_or(0)))
            .max(to);
        let (number, title) = (place + 1, escaped(&title(event)));
        let _ = writeln!(
            svg,
            "<g class=\"event\"><title>{number}. {title}</title>\
             <rect class=\"recovery\" x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{height}\"/>\
             <rect class=\"done\" x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{height}\"/>",
            whole - from,
            to - from
        );
        if from - last_x >= MARK_APART {
            last_x = from;
            let x = from + 1.0;
            let _ = writeln!(
                svg,
                "<text class=\"mark\" x=\"{x:.1}\" y=\"27\">{number}</text>"
            );
        }
        svg.push_str("</g>\n");
    }
}

/// An event in a line.
fn title(event: &Event) -> String {
    let mut text = format!("{} at {} s", event.kind, short(event.at_ms as f64 / 1000.0));
    if event.for_ms > 0 {
        let _ = write!(text, " for {} s", short(event.for_ms as f64 / 1000.0));
    }
    match event.recovery_ms {
        Some(ms) => {
            let _ = write!(text, ", recovered after {} s", short(ms as f64 / 1000.0));
        }
        None => text.push_str(", not recovered"),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_where_the_values_do_and_have_few_steps() {
        for (max, high, steps) in [
            (0.0, 1.0, 5),
            (1.0, 1.0, 5),
            (7.3, 8.0, 4),
            (1234.0, 1500.0, 3),
            (99_999.0, 100_000.0, 5),
        ] {
            let ticks = Ticks::linear(max);
            assert!((ticks.high - high).abs() < 1e-6, "{max}: {ticks:?}");
            assert_eq!(ticks.at.len(), steps + 1, "{max}: {ticks:?}");
        }
        let ticks = Ticks::log(0.3, 45.0);
        assert_eq!(ticks.at.len(), 4, "{ticks:?}");
        assert!(ticks.low <= 0.3 && ticks.high >= 45.0);
        assert_eq!(Ticks::log(1.0, 1.0).at.len(), 2, "one value has a scale");
    }

    #[test]
    fn lines_have_gaps_where_nothing_was_measured() {
        let axis = Axis {
            at_s: vec![1.0, 2.0, 3.0, 4.0],
            phases: Vec::new(),
            events: &[],
        };
        let line = |values: [Option<f64>; 4]| Line {
            name: "x",
            values: values.to_vec(),
        };
        let chart = Chart {
            id: "x",
            title: "X",
            unit: "ms",
            scale: Scale::Linear,
            lines: vec![line([Some(1.0), None, Some(2.0), Some(0.0)])],
        };
        let path = chart.path(&chart.lines[0], &chart.ticks(), &axis);
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 1, "{path}");
        let svg = chart.svg(&axis);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("mean 1, most 2 ms"), "{svg}");
        let nothing = Chart {
            lines: vec![line([None; 4])],
            ..chart
        };
        assert!(nothing.is_empty());
    }
}
