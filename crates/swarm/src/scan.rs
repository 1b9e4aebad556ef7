//! The fields of a JSON object, found without parsing what is in them.
//!
//! One pass, nothing allocated. Names and values are slices as they stand in the text. It checks no
//! more than it needs to find where things end: it is for frames of a server, whose JSON other
//! suites check.

/// Iterates over the fields of an object: name without its quotes, value as it stands.
pub(crate) struct Fields<'a> {
    text: &'a [u8],
    at: usize,
    first: bool,
}

/// Name and value of a field.
pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// The text is not a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAnObject;

impl<'a> Fields<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Result<Self, NotAnObject> {
        let at = skip_space(text, 0);
        if text.get(at) != Some(&b'{') {
            return Err(NotAnObject);
        }
        Ok(Self {
            text,
            at: at + 1,
            first: true,
        })
    }

    /// The next field; `None` after the last.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, NotAnObject> {
        let text = self.text;
        let mut at = skip_space(text, self.at);
        match (text.get(at), self.first) {
            (Some(b'}'), _) => return Ok(None),
            (Some(b','), false) => at = skip_space(text, at + 1),
            (Some(_), true) => self.first = false,
            _ => return Err(NotAnObject),
        }
        let name_end = string_end(text, at)?;
        let name = &text[at + 1..name_end - 1];
        let colon = skip_space(text, name_end);
        if text.get(colon) != Some(&b':') {
            return Err(NotAnObject);
        }
        let start = skip_space(text, colon + 1);
        let end = value_end(text, start)?;
        self.at = end;
        Ok(Some((name, &text[start..end])))
    }
}

#[inline]
fn skip_space(text: &[u8], mut at: usize) -> usize {
    while matches!(text.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Where the string that starts at `at` ends, closing quote included.
#[inline]
fn string_end(text: &[u8], at: usize) -> Result<usize, NotAnObject> {
    if text.get(at) != Some(&b'"') {
        return Err(NotAnObject);
    }
    let mut at = at + 1;
    loop {
        let found = memchr::memchr2(b'"', b'\\', text.get(at..).ok_or(NotAnObject)?);
        at += found.ok_or(NotAnObject)?;
        if text[at] == b'"' {
            return Ok(at + 1);
        }
        at += 2;
    }
}

#[inline]
fn value_end(text: &[u8], start: usize) -> Result<usize, NotAnObject> {
    match text.get(start).ok_or(NotAnObject)? {
        b'"' => string_end(text, start),
        b'{' | b'[' => {
            let (mut at, mut depth) = (start, 0_usize);
            loop {
                match text.get(at).ok_or(NotAnObject)? {
                    b'"' => {
                        at = string_end(text, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
        }
        _ => {
            let rest = &text[start..];
            let length = rest
                .iter()
                .position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'))
                .ok_or(NotAnObject)?;
            if length == 0 {
                return Err(NotAnObject);
            }
            Ok(start + length)
        }
    }
}

/// What is between the quotes of a string value; `None` for another value, or with escapes.
#[inline]
pub(crate) fn plain_string(value: &[u8]) -> Option<&[u8]> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    (!inner.contains(&b'\\')).then_some(inner)
}

/// A whole number.
#[inline]
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |n, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        n.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<(String, String)>, NotAnObject> {
        let mut fields = Fields::new(text.as_bytes())?;
        let mut found = Vec::new();
        while let Some((name, value)) = fields.next()? {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            found.push((text(name), text(value)));
        }
        Ok(found)
    }

    #[test]
    fn fields_are_what_serde_finds() {
        let hard = r#" { "a" : 1 , "b":{"x":"}\"]","y":[1,{"z":null}]},"c":"q\\\"u","d":[],"e":true,"f":"" } "#;
        let map: serde_json::Map<String, serde_json::Value> = serde_json::from_str(hard).unwrap();
        let found = all(hard).unwrap();
        assert_eq!(found.len(), map.len());
        for (name, value) in found {
            let value: serde_json::Value = serde_json::from_str(&value).unwrap();
            assert_eq!(map[&name], value, "{name}");
        }
        assert_eq!(all("{}").unwrap(), []);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = r#"{"a":"b\"c","d":{"e":[1,2]},"f":3}"#;
        for end in 0..whole.len() {
            assert_eq!(all(&whole[..end]), Err(NotAnObject), "{}", &whole[..end]);
        }
        for bad in [
            "",
            "[]",
            "{a:1}",
            r#"{"a" 1}"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":}"#,
        ] {
            assert_eq!(all(bad), Err(NotAnObject), "{bad}");
        }
    }

    #[test]
    fn scalars() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616"), None);
        assert_eq!(number(b""), None);
        assert_eq!(number(b"-1"), None);
        assert_eq!(plain_string(b"\"x\""), Some(&b"x"[..]));
        assert_eq!(plain_string(b"\"x\\n\""), None);
        assert_eq!(plain_string(b"1"), None);
    }
}
