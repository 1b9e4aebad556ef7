//! Cuts a stream of bytes into the elements directly below `<stream:stream>`.
//!
//! Not an XML parser: it counts tags, minds quotes, and leaves names and text alone. What XMPP forbids
//! (comments, document types, instructions inside the stream) it refuses, and so does it elements that
//! are too long or too deep. It may be given bytes in pieces of any size.

use memchr::memchr;

/// Bytes of one element, at most.
pub(crate) const ELEMENT_BYTES_MAX: usize = 256 * 1024;
/// Elements inside each other, at most.
const DEPTH_MAX: u32 = 32;

/// What stands at the beginning of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// `<stream:stream …>`, with what stood before it.
    Start,
    /// A whole element.
    Element(&'a [u8]),
    /// `</stream:stream>`.
    End,
}

/// Why bytes are not what an XMPP server may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("an element longer than {ELEMENT_BYTES_MAX} bytes")]
    TooLong,
    #[error("elements more than {DEPTH_MAX} deep")]
    TooDeep,
    #[error("comments, document types and instructions have no place in a stream")]
    Forbidden,
    #[error("text between the elements of a stream")]
    Text,
    #[error("a stream that does not begin with its header")]
    NoStream,
}

/// Where the scanner stands.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Scanner {
    in_stream: bool,
    /// Open elements below the stream.
    depth: u32,
    /// Where the element under way begins, and how far it need not be looked at again.
    start: usize,
    at: usize,
}

impl Scanner {
    /// Takes the next piece from the beginning of `bytes`, and says how many bytes it has used. When
    /// there is no whole piece, call again with the same bytes and more behind them.
    pub(crate) fn next<'a>(
        &mut self,
        bytes: &'a [u8],
    ) -> Result<Option<(Piece<'a>, usize)>, ScanError> {
        loop {
            if self.depth == 0 {
                // White space between elements keeps connections alive; it is of no element.
                let rest = &bytes[self.at..];
                let blank = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
                self.at += blank;
                self.start = self.at;
                match bytes.get(self.at) {
                    None => return self.wait(bytes),
                    Some(b'<') => {}
                    Some(_) => return Err(ScanError::Text),
                }
            } else {
                match memchr(b'<', &bytes[self.at..]) {
                    Some(text) => self.at += text,
                    None => {
                        self.at = bytes.len();
                        return self.wait(bytes);
                    }
                }
            }
            let Some(length) = tag(&bytes[self.at..]) else {
                return self.wait(bytes);
            };
            let tag = &bytes[self.at..self.at + length];
            self.at += length;
            if let Some(piece) = self.step(tag, &bytes[self.start..self.at])? {
                let used = std::mem::take(&mut self.at);
                return Ok(Some((piece, used)));
            }
        }
    }

    /// Takes a whole tag into account; `element` reaches from its element's beginning to its end.
    fn step<'a>(&mut self, tag: &[u8], element: &'a [u8]) -> Result<Option<Piece<'a>>, ScanError> {
        let whole = Ok(Some(Piece::Element(element)));
        match tag[1] {
            b'?' if !self.in_stream => Ok(None),
            b'?' | b'!' => Err(ScanError::Forbidden),
            _ if !self.in_stream => {
                if !tag.starts_with(b"<stream:stream") {
                    return Err(ScanError::NoStream);
                }
                self.in_stream = true;
                Ok(Some(Piece::Start))
            }
            b'/' if self.depth == 0 => {
                self.in_stream = false;
                Ok(Some(Piece::End))
            }
            b'/' => {
                self.depth -= 1;
                if self.depth == 0 { whole } else { Ok(None) }
            }
            _ if tag[tag.len() - 2] == b'/' => {
                if self.depth == 0 {
                    whole
                } else {
                    Ok(None)
                }
            }
            _ => {
                self.depth += 1;
                if self.depth > DEPTH_MAX {
                    return Err(ScanError::TooDeep);
                }
                Ok(None)
            }
        }
    }

    fn wait<'a>(&self, bytes: &[u8]) -> Result<Option<(Piece<'a>, usize)>, ScanError> {
        if bytes.len() > ELEMENT_BYTES_MAX {
            return Err(ScanError::TooLong);
        }
        Ok(None)
    }
}

/// Length of the tag that `bytes` start with; `None` while it is incomplete.
fn tag(bytes: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, &byte) in bytes.iter().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'>') => return Some(at + 1),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "<?xml version='1.0'?>\n<stream:stream id='>' from=\"a'b\" \
        xmlns:stream='http://etherx.jabber.org/streams'><stream:features><sm xmlns='urn:xmpp:sm:3'/>\
        </stream:features> \n<r xmlns='urn:xmpp:sm:3'/><message from='a/b'><body>a &lt; b /></body>\
        <x/></message><presence></presence> </stream:stream>";

    /// What comes out when the bytes arrive in pieces of `size`.
    fn pieces(text: &str, size: usize) -> Result<Vec<String>, ScanError> {
        let mut scanner = Scanner::default();
        let (mut buffer, mut out) = (Vec::new(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            buffer.extend_from_slice(piece);
            while let Some((piece, used)) = scanner.next(&buffer)? {
                out.push(match piece {
                    Piece::Start => "start".to_owned(),
                    Piece::End => "end".to_owned(),
                    Piece::Element(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                });
                buffer.drain(..used);
            }
        }
        Ok(out)
    }

    #[test]
    fn however_the_bytes_are_split_the_elements_are_the_same() {
        let expected = [
            "start",
            "<stream:features><sm xmlns='urn:xmpp:sm:3'/></stream:features>",
            "<r xmlns='urn:xmpp:sm:3'/>",
            "<message from='a/b'><body>a &lt; b /></body><x/></message>",
            "<presence></presence>",
            "end",
        ];
        for size in 1..=STREAM.len() {
            assert_eq!(pieces(STREAM, size).unwrap(), expected, "pieces of {size}");
        }
    }

    #[test]
    fn what_has_no_place_in_a_stream_is_refused() {
        let open = "<stream:stream>";
        for (text, error) in [
            ("<message/>".to_owned(), ScanError::NoStream),
            (format!("{open}text"), ScanError::Text),
            (format!("{open}<!-- x -->"), ScanError::Forbidden),
            (format!("{open}<?x?>"), ScanError::Forbidden),
            (format!("{open}<a><!DOCTYPE b></a>"), ScanError::Forbidden),
            (format!("{open}{}", "<a>".repeat(33)), ScanError::TooDeep),
            (
                format!("{open}<a>{}", "x".repeat(ELEMENT_BYTES_MAX)),
                ScanError::TooLong,
            ),
        ] {
            for size in [1, 7, text.len()] {
                assert_eq!(pieces(&text, size), Err(error), "{error} by {size}");
            }
        }
    }
}
