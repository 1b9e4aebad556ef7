//! Finds the members of a JSON object in one pass, without a parser's generality.
//!
//! It takes the plain forms that clients send and gives up on the rest (`None`), which is then
//! read by `serde_json`; it never takes what `serde_json` would refuse. The tests and a fuzzer
//! hold it to that. It copies nothing, decodes nothing and reports no errors.

/// Levels of nested values taken.
const DEPTH_MAX: u8 = 16;

/// Shows each member of the object `json` to `member`: the name and the value as they stand.
/// `None` when the text, or `member`, asks for the general reader.
pub(crate) fn members<'a>(
    json: &'a str,
    mut member: impl FnMut(&'a str, &'a str) -> Option<()>,
) -> Option<()> {
    let mut scan = Scan { json, at: 0 };
    scan.skip_space();
    scan.object(DEPTH_MAX, &mut member)?;
    scan.skip_space();
    (scan.at == json.len()).then_some(())
}

struct Scan<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn object(
        &mut self,
        depth: u8,
        member: &mut impl FnMut(&'a str, &'a str) -> Option<()>,
    ) -> Option<()> {
        self.expect(b'{')?;
        self.skip_space();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.at + 1;
            self.string()?;
            let name = &self.json[name..self.at - 1];
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let value = self.at;
            self.value(depth)?;
            member(name, &self.json[value..self.at])?;
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
            self.skip_space();
        }
    }

    fn array(&mut self, depth: u8) -> Option<()> {
        self.expect(b'[')?;
        self.skip_space();
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            self.value(depth)?;
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
            self.skip_space();
        }
    }

    fn value(&mut self, depth: u8) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b'0'..=b'9' => self.integer(),
            b'{' => self.object(depth.checked_sub(1)?, &mut |_, _| Some(())),
            b'[' => self.array(depth.checked_sub(1)?),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => None,
        }
    }

    fn literal(&mut self, word: &str) -> Option<()> {
        self.json.as_bytes()[self.at..]
            .starts_with(word.as_bytes())
            .then(|| self.at += word.len())
    }

    /// Digits without a sign, a fraction or an exponent.
    fn integer(&mut self) -> Option<()> {
        let first = self.peek()?;
        self.at += 1;
        while let Some(b'0'..=b'9') = self.peek() {
            if first == b'0' {
                return None;
            }
            self.at += 1;
        }
        (!matches!(self.peek(), Some(b'.' | b'e' | b'E'))).then_some(())
    }

    /// A string whose escapes, if any, are of one character.
    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        let bytes = self.json.as_bytes();
        loop {
            while let Some((eight, _)) = bytes[self.at..].split_first_chunk() {
                let notable = notable(u64::from_le_bytes(*eight));
                self.at += (notable.trailing_zeros() / 8) as usize;
                if notable != 0 {
                    break;
                }
            }
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => match bytes.get(self.at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
                    _ => return None,
                },
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }
}

/// Marks, by its highest bit, the first of eight bytes that ends a string or interrupts it: a
/// quote, a backslash, or one below space. Bytes behind the first may be marked wrongly.
///
/// "Determine if a word has a byte less than n" and "... equal to n" of Sean Eron Anderson's Bit
/// Twiddling Hacks.
fn notable(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & HIGHS;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(json: &str) -> Option<Vec<(&str, &str)>> {
        let mut all = Vec::new();
        members(json, |name, value| {
            all.push((name, value));
            Some(())
        })?;
        Some(all)
    }

    #[test]
    fn plain_forms_are_taken_as_they_stand() {
        assert_eq!(found("{}"), Some(vec![]));
        assert_eq!(
            found(" {\"a\" : \"x\\n\u{e4}\" ,\n\"b\":12,\"c\":[1, {\"d\":null},[]], \"e\":true}\t"),
            Some(vec![
                ("a", "\"x\\n\u{e4}\""),
                ("b", "12"),
                ("c", "[1, {\"d\":null},[]]"),
                ("e", "true"),
            ])
        );
    }

    #[test]
    fn what_is_unusual_or_wrong_is_left_to_others() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(17), "]".repeat(17));
        let texts = [
            "",
            "{",
            "[]",
            "{}x",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{\"a\":01}",
            "{\"a\":1.5}",
            "{\"a\":-1}",
            "{\"a\":1e3}",
            "{\"a\":\"\\u0041\"}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":\"12345678\u{1f}\"}",
            "{\"a\":\"x}",
            "{\"a\":tru}",
            "{\"a\":[1,]}",
            "{\"a\":[1}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\",
            &deep,
        ];
        for text in texts {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_notable_byte_is_found() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                let mut eight = [b'x'; 8];
                eight[place] = byte;
                // What follows may not distract from it.
                eight[place + 1..].fill(b'"');
                let first = (notable(u64::from_le_bytes(eight)).trailing_zeros() / 8) as usize;
                let is_notable = byte < 0x20 || byte == b'"' || byte == b'\\';
                let expected = if is_notable {
                    place
                } else {
                    (place + 1).min(8)
                };
                assert_eq!(first, expected, "{byte:#x} at {place}");
            }
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[a-z\"\\\\\n\u{0}\u{1f}äß€ ]{0,20}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[a-z\"\n]{0,9}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever is taken, the general reader takes too.
        #[test]
        fn nothing_is_taken_that_is_no_json(
            value in json(),
            pretty: bool,
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>()), 0..3),
        ) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let mut text: Vec<char> = text.expect("a value can be written").chars().collect();
            for (at, with) in edits {
                let at = at.index(text.len());
                text[at] = with;
            }
            let text: String = text.into_iter().collect();
            if let Some(found) = found(&text) {
                let read: serde_json::Value = serde_json::from_str(&text)
                    .map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
                for (name, value) in found {
                    let name: String = serde_json::from_str(&format!("\"{name}\"")).expect("a string");
                    let value: serde_json::Value = serde_json::from_str(value).expect("a value");
                    // The last of several of the same name is the one that is read.
                    prop_assert!(read.get(&name).is_some(), "{name} in {text}");
                    prop_assert!(read[&name] == value || text.matches(&name).count() > 1);
                }
            }
        }
    }
}
