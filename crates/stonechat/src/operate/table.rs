//! Answers for people: a table of a list, or name and value of one thing.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// A column: its heading, and where its value is in an entry.
pub(crate) type Column = (&'static str, &'static str);

/// `list`: the key of the list in the answer; empty: the answer is one thing.
pub(crate) fn render(answer: &Value, list: &str, columns: &[Column]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    let entries = answer.get(list).and_then(Value::as_array);
    let Some(entries) = entries else {
        // An empty answer (204) has nothing to say but that it was done.
        let Value::Object(fields) = answer else {
            return "done\n".to_owned();
        };
        for (name, value) in fields {
            table.add_row([name.as_str(), &cell(name, value)]);
        }
        return trimmed(&table);
    };
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    for entry in entries {
        table.add_row(columns.iter().map(|(_, key)| {
            let value = key
                .split('.')
                .try_fold(entry, |value, part| value.get(part));
            value.map_or_else(String::new, |value| cell(key, value))
        }));
    }
    let mut text = trimmed(&table);
    if let Some(next) = answer["next"].as_str() {
        text += &format!("more follow: --after {next}\n");
    }
    text
}

fn trimmed(table: &Table) -> String {
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

fn cell(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if key.ends_with("_ms") => number
            .as_u64()
            .and_then(moment)
            .unwrap_or_else(|| number.to_string()),
        other => other.to_string(),
    }
}

/// Milliseconds since the Unix epoch as a time of day in UTC, unless they are a mere duration.
fn moment(ms: u64) -> Option<String> {
    const DAY_MS: u64 = 86_400_000;
    // 2001: no duration in this API is as long.
    if ms < 11_323 * DAY_MS {
        return None;
    }
    let (year, month, day) = date(ms / DAY_MS);
    let second = ms % DAY_MS / 1000;
    let (h, m, s) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!(
        "{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}Z"
    ))
}

/// Year, month and day of a day since the Unix epoch, in the Gregorian calendar.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is a year's last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn days_have_dates() {
        for (days, want) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_454, (2026, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), want);
        }
    }

    #[test]
    fn lists_become_tables_and_things_become_pairs() {
        let list = json!({"users": [{"user": "bob", "at": {"since_ms": 1_767_225_600_000_u64}},
            {"user": "a"}], "next": "a"});
        let text = render(
            &list,
            "users",
            &[("USER", "user"), ("SINCE", "at.since_ms")],
        );
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["USER", "SINCE"]
        );
        assert!(lines[1].ends_with("2026-01-01 00:00:00Z"), "{text}");
        assert_eq!(lines[3], "more follow: --after a");
        let one = render(&json!({"depth": 3, "retry_after_ms": 500}), "", &[]);
        assert!(one.contains("depth") && one.contains("500"), "{one}");
        assert_eq!(render(&Value::Null, "", &[]), "done\n");
    }
}
