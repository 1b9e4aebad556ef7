//! What stands around the figures: how it was measured, and what one has to know to be fair.

use std::fmt::Write as _;
use std::path::Path;

use super::node::Kind;
use super::table::Table;
use super::{Plan, Setup, ejabberd, prosody};
use crate::bench::all;

/// The measured part of the page.
pub(super) fn page(setup: &Setup, table: &Table, command: &str) -> String {
    let mut text = format!("`{command}`, {}\n\n", all::machine());
    let versions = Kind::ALL.map(|kind| format!("{} {}", kind.name(), kind.version()));
    let _ = writeln!(text, "{}. {}\n", versions.join(", "), loads(&setup.plan));
    text.push_str(&table.markdown(false));
    if table.rows.iter().any(|row| row.tls) {
        text.push_str("\nAll connections encrypted (TLS 1.3, one certificate for all):\n\n");
        text.push_str(&table.markdown(true));
    }
    let failures = table.failures();
    text.push('\n');
    for remark in failures.iter().chain(&table.remarks) {
        let _ = writeln!(text, "- {}", remark.replace('\n', " "));
    }
    let _ = write!(
        text,
        "\n<details><summary>Configuration of ejabberd and Prosody</summary>\n\n\
         ```yaml\n{}```\n\n```lua\n{}```\n\n</details>\n",
        ejabberd::config(5222, None),
        prosody::config(Path::new("DIR"), 5222, None)
    );
    text
}

fn loads(plan: &Plan) -> String {
    format!(
        "{} pairs relay rounds of {} s and mailboxes are filled for {} s, {} rounds each by turns, medians; \
         bodies of {} bytes.",
        plan.pairs,
        plan.seconds,
        plan.seconds,
        plan.rounds,
        super::BODY_BYTES
    )
}
