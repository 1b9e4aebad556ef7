//! The table of breaks in `docs/durability.md`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use stonechat_delivery::sim::Sabotage;

const PAGE: &str = "docs/durability.md";
const BEGIN: &str = "<!-- mutants: begin, written by `cargo xtask mutants --write` -->\n";
const END: &str = "<!-- mutants: end -->";

/// What came of one break.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) promise: String,
    pub(super) why: String,
    /// The test that found it, and after how long.
    pub(super) found: Option<(String, Duration)>,
}

impl Row {
    /// For the terminal.
    pub(super) fn line(&self) -> String {
        match &self.found {
            Some((test, after)) => format!(
                "found    {:>5.1} s  {:<34} {test}",
                after.as_secs_f64(),
                self.name
            ),
            None => format!("MISSED           {:<34} {}", self.name, self.why),
        }
    }
}

impl Row {
    /// For the page.
    fn markdown(&self) -> String {
        let (test, after) = match &self.found {
            Some((test, after)) => (test.as_str(), format!("{:.1}", after.as_secs_f64())),
            None => ("**nothing**", String::new()),
        };
        format!(
            "| `{}` | {} | {} | {test} | {after} |",
            self.name, self.why, self.promise
        )
    }
}

/// Name of a switch of the simulation.
pub(super) fn switch(how: Sabotage) -> String {
    let mut name = "sim".to_owned();
    for c in format!("{how:?}").chars() {
        if c.is_uppercase() {
            name.push('-');
        }
        name.extend(c.to_lowercase());
    }
    name
}

/// Puts the table between its marks, in the order of `names`. What was not tried this time stays as it was.
pub(super) fn write(root: &Path, rows: &[Row], names: &[String]) -> Result<()> {
    let path = root.join(PAGE);
    let page = std::fs::read_to_string(&path)?;
    let (before, old, after) = split(&page)?;
    let mut table =
        String::from("| break | what it does | promise | found by | s |\n|---|---|---|---|---|\n");
    for name in names {
        if let Some(row) = rows.iter().find(|row| row.name == *name) {
            writeln!(table, "{}", row.markdown())?;
        } else if let Some(line) = old.lines().find(|line| name_of(line) == Some(name)) {
            writeln!(table, "{line}")?;
        }
    }
    std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}"))?;
    Ok(())
}

/// The break a line of the table is about.
fn name_of(line: &str) -> Option<&str> {
    Some(line.strip_prefix("| `")?.split_once('`')?.0)
}

/// The page before, between and after the marks.
fn split(page: &str) -> Result<(&str, &str, &str)> {
    let (before, rest) = page
        .split_once(BEGIN)
        .context("the page has no mark to begin at")?;
    let (table, after) = rest
        .split_once(END)
        .context("the page has no mark to end at")?;
    Ok((before, table, after))
}

/// Names in the table, in its order.
#[cfg(test)]
pub(super) fn names(root: &Path) -> Result<Vec<String>> {
    let page = std::fs::read_to_string(root.join(PAGE))?;
    let (_, table, _) = split(&page)?;
    Ok(table
        .lines()
        .filter_map(name_of)
        .map(str::to_owned)
        .collect())
}
