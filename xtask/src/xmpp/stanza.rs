//! Reads and writes the few stanzas that a load client needs.

use base64::Engine as _;
use memchr::memmem;
use stonechat_protocol::MessageId;
use stonechat_swarm::{MARK_BYTES_MIN, Mark};

/// The only domain.
pub(crate) const DOMAIN: &str = "localhost";
/// What the names of users start with; their number follows.
pub(crate) const PREFIX: &str = "u";
/// Everybody's password.
pub(crate) const PASSWORD: &str = "p";

pub(crate) const HEADER: &[u8] =
    b"<?xml version='1.0'?><stream:stream to='localhost' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
pub(crate) const BIND: &[u8] = b"<iq type='set' id='b'>\
    <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>d</resource></bind></iq>";
pub(crate) const ENABLE: &[u8] = b"<enable xmlns='urn:xmpp:sm:3'/>";
pub(crate) const PRESENCE: &[u8] = b"<presence/>";
pub(crate) const ASK: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";

/// The name of an element.
pub(crate) fn name(element: &[u8]) -> &[u8] {
    let rest = element.get(1..).unwrap_or_default();
    let end = rest
        .iter()
        .position(|b| b.is_ascii_whitespace() || matches!(b, b'>' | b'/'));
    &rest[..end.unwrap_or(rest.len())]
}

/// The value of an attribute of the element itself, as it stands.
pub(crate) fn attribute<'a>(element: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let mut rest = &element[1 + name(element).len()..];
    loop {
        let blank = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        rest = &rest[blank..];
        let equals = rest.iter().position(|b| matches!(b, b'=' | b'>' | b'/'))?;
        if rest[equals] != b'=' {
            return None;
        }
        let quote = *rest.get(equals + 1)?;
        if !matches!(quote, b'\'' | b'"') {
            return None;
        }
        let value = &rest[equals + 2..];
        let end = memchr::memchr(quote, value)?;
        if rest[..equals].trim_ascii() == wanted.as_bytes() {
            return Some(&value[..end]);
        }
        rest = &value[end + 1..];
    }
}

/// A number in an attribute.
pub(crate) fn number(element: &[u8], wanted: &str) -> Option<u32> {
    std::str::from_utf8(attribute(element, wanted)?)
        .ok()?
        .parse()
        .ok()
}

/// The mark in the body of a message.
pub(crate) fn mark(element: &[u8]) -> Option<Mark> {
    let start = memmem::find(element, b"<body>")? + 6;
    let body = element.get(start..)?;
    // A mark is read as it stands in JSON, in quotes; here it has none, for servers rewrite them.
    let mut quoted = [b'"'; MARK_BYTES_MIN];
    quoted[1..MARK_BYTES_MIN - 1].copy_from_slice(body.get(..MARK_BYTES_MIN - 2)?);
    Mark::read(&quoted)
}

/// Appends the authentication of a user.
pub(crate) fn write_auth(out: &mut Vec<u8>, user: u32) {
    let plain = format!("\0{PREFIX}{user}\0{PASSWORD}");
    let plain = base64::engine::general_purpose::STANDARD.encode(plain);
    let auth =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
    out.extend_from_slice(auth.as_bytes());
}

/// Appends a chat message with a body of `body_bytes` bytes.
pub(crate) fn write_message(out: &mut Vec<u8>, to: u32, mark: &Mark, body_bytes: usize) {
    use std::io::Write as _;
    let (sender, number) = (mark.sender, mark.number);
    write!(
        out,
        "<message to='{PREFIX}{to}@{DOMAIN}' type='chat' id='{sender}-{number}'><body>"
    )
    .expect("memory takes everything");
    let quote = out.len();
    // The seal is not looked at: XMPP has no id that all of a message's way keeps.
    mark.write(out, body_bytes + 2, to, MessageId::from_u128(0));
    out.remove(quote);
    out.pop();
    out.extend_from_slice(b"</body></message>");
}

/// Appends the answer to a request for acknowledgement.
pub(crate) fn write_answer(out: &mut Vec<u8>, stanzas: u32) {
    let answer = format!("<a xmlns='urn:xmpp:sm:3' h='{stanzas}'/>");
    out.extend_from_slice(answer.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_attributes_are_those_of_the_element_itself() {
        let element = b"<a h='12' x = \"it's /> so\" from='u1@localhost/d'><b type='inner'/></a>";
        assert_eq!(name(element), b"a");
        assert_eq!(number(element, "h"), Some(12));
        assert_eq!(
            attribute(element, "x"),
            None,
            "no quote right after the sign"
        );
        assert_eq!(attribute(b"<r/>", "h"), None);
        assert_eq!(name(b"<r/>"), b"r");
        let element = b"<a x=\"it's /> so\" from='u1'><b type='inner'/></a>";
        assert_eq!(attribute(element, "x"), Some(&b"it's /> so"[..]));
        assert_eq!(attribute(element, "from"), Some(&b"u1"[..]));
        assert_eq!(attribute(element, "type"), None);
    }

    #[test]
    fn a_body_has_the_length_asked_for_and_keeps_its_mark() {
        let mark = Mark {
            sender: 7,
            number: 99,
            at_us: 1_718_000_000_000_000,
        };
        let mut out = b"x".to_vec();
        write_message(&mut out, 3, &mark, 200);
        let text = String::from_utf8(out).unwrap();
        let body = text.split("<body>").nth(1).unwrap();
        assert_eq!(body.split('<').next().unwrap().len(), 200);
        assert!(text.starts_with("x<message to='u3@localhost' type='chat' id='7-99'>"));
        assert_eq!(super::mark(&text.as_bytes()[1..]), Some(mark));
        assert_eq!(super::mark(b"<message><body>hello</body></message>"), None);
    }
}
