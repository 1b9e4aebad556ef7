//! What a benchmark found: figures, each with its target, as JSON, as text, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

/// What a benchmark found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Which benchmark.
    pub(crate) bench: &'static str,
    /// The command that does it again.
    pub(crate) command: String,
    /// What it ran with.
    pub(crate) settings: BTreeMap<&'static str, String>,
    /// What it found.
    pub(crate) figures: Vec<Figure>,
    /// How things went over time, where that matters. Only in JSON.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) series: Vec<Sample>,
}

/// A look at the server while it was under load.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// What was being done to it.
    pub(crate) phase: &'static str,
    /// Seconds since that began.
    pub(crate) at_s: f64,
    /// Messages accepted since that began.
    pub(crate) accepted: u64,
    /// Its resident memory.
    pub(crate) rss_bytes: u64,
    /// Its journal on disk.
    pub(crate) journal_bytes: u64,
    /// Its database on disk.
    pub(crate) database_bytes: u64,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
}

impl Target {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("at most {}", short(most)),
            Self::AtLeast(least) => format!("at least {}", short(least)),
        }
    }
}

impl Report {
    pub(crate) fn new(bench: &'static str) -> Self {
        Self {
            bench,
            command: format!("cargo xtask bench {bench}"),
            settings: BTreeMap::new(),
            figures: Vec::new(),
            series: Vec::new(),
        }
    }

    pub(crate) fn setting(&mut self, name: &'static str, value: &impl ToString) {
        self.settings.insert(name, value.to_string());
    }

    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.add(name.into(), value, unit, None);
    }

    pub(crate) fn aimed(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Target,
    ) {
        self.add(name.into(), value, unit, Some(target));
    }

    fn add(&mut self, name: String, value: f64, unit: &'static str, target: Option<Target>) {
        self.figures.push(Figure {
            name,
            value,
            unit,
            target,
            met: target.map(|target| target.met(value)),
        });
    }

    /// For people at a terminal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}: {}\n", self.bench, self.command);
        let settings: Vec<String> = self
            .settings
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let _ = writeln!(text, "  {}", settings.join(", "));
        for figure in &self.figures {
            let _ = writeln!(
                text,
                "  {:<52} {:>10} {:<9} {}",
                figure.name,
                short(figure.value),
                figure.unit,
                figure.verdict()
            );
        }
        text
    }

    /// For docs/performance.md.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "`{}`\n\n| | measured | target |\n|---|---:|---|\n",
            self.command
        );
        for figure in &self.figures {
            let (value, verdict) = (short(figure.value), figure.verdict());
            let _ = writeln!(
                text,
                "| {} | {value} {} | {verdict} |",
                figure.name, figure.unit
            );
        }
        text
    }
}

impl Figure {
    fn verdict(&self) -> String {
        let Some(target) = self.target else {
            return String::new();
        };
        let verdict = if self.met == Some(true) {
            "met"
        } else {
            "MISSED"
        };
        format!("{}: {verdict}", target.text())
    }
}

/// A number with as many digits as say something.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v == 0.0 || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if digits > 0 {
        return text;
    }
    // Thousands apart.
    let (sign, number) = text.strip_prefix('-').map_or(("", &*text), |n| ("-", n));
    let mut out = String::from(sign);
    for (i, digit) in number.chars().enumerate() {
        if i > 0 && (number.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (1_234_567.0, "1,234,567"),
            (12.34, "12.3"),
            (1.789, "1.79"),
            (0.0123, "0.012"),
            (999.0, "999"),
        ];
        for (value, text) in cases {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn targets_are_held_against_values() {
        assert!(Target::AtMost(1.8).met(1.8) && !Target::AtMost(1.8).met(1.81));
        assert!(Target::AtLeast(3.0).met(3.0) && !Target::AtLeast(3.0).met(2.9));
    }
}
