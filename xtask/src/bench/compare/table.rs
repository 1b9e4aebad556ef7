//! What was found: a row a measure, a cell a server, and how they compare.

use std::fmt::Write as _;

use serde::Serialize;

use super::node::Kind;
use crate::bench::report::short;

/// What is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Better {
    Less,
    More,
}

/// A row's name, unit, and what is better in it.
pub(super) type Head<'a> = (&'a str, &'static str, Better);

/// One figure of one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) enum Cell {
    /// Not measured.
    Empty,
    Value(f64),
    /// How the measure failed.
    Failed(String),
}

/// One measure.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    unit: &'static str,
    pub(super) better: Better,
    pub(super) cells: [Cell; 3],
    /// Times better than ejabberd that ours is to be.
    goal: Option<f64>,
    /// Of the table of encrypted connections.
    pub(super) tls: bool,
}

/// All measures.
#[derive(Debug, Default, Serialize)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// What figures do not tell.
    pub(super) remarks: Vec<String>,
}

impl Row {
    /// How many times better ours is than another's; below 1 the other wins.
    pub(super) fn times(&self, other: Kind) -> Option<f64> {
        let (Cell::Value(ours), Cell::Value(theirs)) =
            (&self.cells[0], &self.cells[other as usize])
        else {
            return None;
        };
        let times = match self.better {
            Better::Less => theirs / ours,
            Better::More => ours / theirs,
        };
        times.is_finite().then_some(times)
    }

    fn against(&self, other: Kind) -> String {
        match self.times(other) {
            None => String::new(),
            Some(times) if times >= 1.0 => format!("{} times", short(times)),
            Some(times) => format!("{} is better, {} times", other.name(), short(1.0 / times)),
        }
    }

    fn verdict(&self) -> String {
        let Some(goal) = self.goal else {
            return String::new();
        };
        let met = self
            .times(Kind::Ejabberd)
            .is_some_and(|times| times >= goal);
        let verdict = if met { "met" } else { "MISSED" };
        format!("at least {} times ejabberd: {verdict}", short(goal))
    }

    fn cell(&self, kind: Kind) -> String {
        match &self.cells[kind as usize] {
            Cell::Empty => "–".to_owned(),
            Cell::Value(value) => format!("{} {}", short(*value), self.unit).trim().to_owned(),
            Cell::Failed(_) => "failed, see below".to_owned(),
        }
    }
}

impl Table {
    /// Adds a figure; the row is made at its first one.
    pub(super) fn put(
        &mut self,
        (name, unit, better): Head<'_>,
        tls: bool,
        kind: Kind,
        value: Result<f64, String>,
    ) {
        let at = self
            .rows
            .iter()
            .position(|row| row.name == name && row.tls == tls);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                name: name.to_owned(),
                unit,
                better,
                cells: [Cell::Empty, Cell::Empty, Cell::Empty],
                goal: None,
                tls,
            });
            self.rows.len() - 1
        });
        self.rows[at].cells[kind as usize] = match value {
            Ok(value) => Cell::Value(value),
            Err(why) => Cell::Failed(why),
        };
    }

    /// Sets what is to be reached in a row, if there is such a row.
    pub(super) fn goal(&mut self, name: &str, times: f64) {
        if let Some(row) = self
            .rows
            .iter_mut()
            .find(|row| row.name == name && !row.tls)
        {
            row.goal = Some(times);
        }
    }

    /// Adds what figures do not tell.
    pub(super) fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }

    /// How measures failed, each once.
    pub(super) fn failures(&self) -> Vec<String> {
        let mut all = Vec::new();
        for row in &self.rows {
            for kind in Kind::ALL {
                if let Cell::Failed(why) = &row.cells[kind as usize] {
                    let measure = row.name.split([':', ',']).next().unwrap_or_default();
                    let tls = if row.tls { ", encrypted" } else { "" };
                    let text = format!("{} failed ({measure}{tls}): {why}.", kind.name());
                    if !all.contains(&text) {
                        all.push(text);
                    }
                }
            }
        }
        all
    }

    /// The rows of one of the two tables, as Markdown.
    pub(super) fn markdown(&self, tls: bool) -> String {
        let mut text = String::from(
            "| | Stonechat | ejabberd | Prosody | better than ejabberd | better than Prosody | target |\n\
             |---|---:|---:|---:|---:|---:|---|\n",
        );
        for row in self.rows.iter().filter(|row| row.tls == tls) {
            let [ours, ejabberd, prosody] = Kind::ALL.map(|kind| row.cell(kind));
            let _ = writeln!(
                text,
                "| {} | {ours} | {ejabberd} | {prosody} | {} | {} | {} |",
                row.name,
                row.against(Kind::Ejabberd),
                row.against(Kind::Prosody),
                row.verdict()
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_say_who_wins_and_whether_it_is_enough() {
        let mut table = Table::default();
        let memory = ("memory", "bytes", Better::Less);
        table.put(memory, false, Kind::Ours, Ok(100.0));
        table.put(memory, false, Kind::Ejabberd, Ok(1_300.0));
        table.put(memory, false, Kind::Prosody, Err("it died".to_owned()));
        table.goal("memory", 12.0);
        let rate = ("rate", "/s", Better::More);
        table.put(rate, false, Kind::Ours, Ok(100.0));
        table.put(rate, false, Kind::Ejabberd, Ok(50.0));
        table.put(rate, false, Kind::Prosody, Ok(200.0));
        table.goal("rate", 5.0);
        let text = table.markdown(false);
        assert!(text.contains(
            "| memory | 100 bytes | 1,300 bytes | failed, see below | 13.0 times |  | \
             at least 12.0 times ejabberd: met |"
        ));
        assert!(text.contains(
            "| 2.00 times | Prosody is better, 2.00 times | at least 5.00 times ejabberd: MISSED |"
        ));
        assert_eq!(table.markdown(true).lines().count(), 2);
        assert_eq!(table.failures(), ["Prosody failed (memory): it died."]);
    }
}
