//! Text for a terminal: what others sent is shown, never obeyed.

use serde_json::Value;
use serde_json::value::RawValue;

/// Characters of an own message repeated beside its ticks.
const QUOTE_CHARS_MAX: usize = 40;

/// Control characters could move the cursor or change the terminal: they are shown, not obeyed.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            // Invisible characters that reorder or hide what stands beside them count as well.
            c if c.is_control()
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                '\u{fffd}'
            }
            c => c,
        })
        .collect()
}

pub(super) fn quote(text: &str) -> String {
    let mut chars = text.chars();
    let short: String = chars.by_ref().take(QUOTE_CHARS_MAX).collect();
    let dots = if chars.next().is_some() {
        "\u{2026}"
    } else {
        ""
    };
    clean(&short) + dots
}

/// A string, or an object's `text`; any other body as it came.
pub(super) fn body_text(body: &RawValue) -> String {
    match serde_json::from_str::<Value>(body.get()) {
        Ok(Value::String(text)) => clean(&text),
        Ok(Value::Object(fields)) => match fields.get("text") {
            Some(Value::String(text)) => clean(text),
            _ => clean(body.get()),
        },
        _ => clean(body.get()),
    }
}

/// Hours and minutes in UTC: the standard library knows no time zones.
pub(super) fn clock(unix_ms: u64) -> String {
    let minutes = unix_ms / 60_000;
    format!("{:02}:{:02}Z", minutes / 60 % 24, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_shown_and_not_obeyed() {
        for (body, shown) in [
            (r#""plain""#, "plain"),
            (r#"{"text":"in an object"}"#, "in an object"),
            (r#"{"n":1}"#, r#"{"n":1}"#),
            ("[1,2]", "[1,2]"),
            ("\"\\u001b[2J\\nx\"", "\u{fffd}[2J x"),
            ("\"a\\u202eb\"", "a\u{fffd}b"),
        ] {
            let body = RawValue::from_string(body.to_owned()).unwrap();
            assert_eq!(body_text(&body), shown);
        }
    }

    #[test]
    fn quotes_are_short() {
        assert_eq!(quote("short"), "short");
        let long = quote(&"ä".repeat(41));
        assert_eq!(long, "ä".repeat(40) + "\u{2026}");
    }

    #[test]
    fn the_clock_is_utc() {
        assert_eq!(clock(0), "00:00Z");
        assert_eq!(clock((25 * 60 + 7) * 60_000 + 59_999), "01:07Z");
    }
}
