//! Group 8: the upgrade request (docs/protocol.md, section 2.1).

use crate::case::{Case, Group, Start, Step, answer};
use crate::wire::{asks, ping, text};

/// Headers of a correct request; a case replaces one by name, or leaves it out.
const GOOD: &[(&str, &str)] = &[
    ("Host", "localhost"),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

const LINE: &str = "GET /v1/ws HTTP/1.1";

/// A request: its first line, and headers that replace, add, or (empty) leave out.
fn request(line: &str, changes: &[(&str, &str)]) -> Vec<u8> {
    let mut out = format!("{line}\r\n");
    let kept = GOOD
        .iter()
        .filter(|(name, _)| !changes.iter().any(|(other, _)| other == name));
    for (name, value) in kept.chain(changes.iter().filter(|(_, value)| !value.is_empty())) {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// The cases.
pub(crate) fn cases(into: &mut Vec<Case>) {
    upgraded(into);
    refused(into);
    broken(into);
    pipelined(into);
}

fn upgraded(into: &mut Vec<Case>) {
    let mut group = Group::new("8.1", into);
    let long = "x".repeat(8_000);
    let fine: &[(&str, &[(&str, &str)])] = &[
        ("as it should be", &[]),
        ("Upgrade: WebSocket", &[("Upgrade", "WebSocket")]),
        ("Connection: upgrade", &[("Connection", "upgrade")]),
        (
            "Connection: keep-alive, Upgrade",
            &[("Connection", "keep-alive, Upgrade")],
        ),
        ("a user agent", &[("User-Agent", "conformance")]),
        ("a header of 8,000 bytes", &[("X-Long", &long)]),
        (
            "our subprotocol",
            &[("Sec-WebSocket-Protocol", "stonechat.v1.json")],
        ),
        (
            "our subprotocol among others",
            &[("Sec-WebSocket-Protocol", "a, stonechat.v1.json")],
        ),
        ("Content-Length: 0", &[("Content-Length", "0")]),
        ("its own origin", &[("Origin", "http://localhost")]),
        (
            "a token in the header",
            &[("Authorization", "Bearer abc.def")],
        ),
    ];
    for (what, changes) in fine {
        let steps = vec![
            Step::Write(request(LINE, changes)),
            Step::Status(&[101]),
            Step::SignIn,
        ];
        group.case_from(Start::Tcp, *what, steps);
    }
    let steps = vec![
        Step::Dribble(request(LINE, &[])),
        Step::Status(&[101]),
        Step::SignIn,
    ];
    group.case_from(Start::Tcp, "byte by byte", steps);
    let steps = vec![
        Step::Write(request("GET /v1/ws?token=ignored HTTP/1.1", &[])),
        Step::Status(&[101]),
        Step::SignIn,
    ];
    group.case_from(Start::Tcp, "with a query", steps);
    for offer in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits, x-other",
    ] {
        let steps = vec![
            Step::Write(request(LINE, &[("Sec-WebSocket-Extensions", offer)])),
            Step::UpgradedWithout("sec-websocket-extensions"),
            Step::SignIn,
            Step::Write(vec![0xc1]),
            Step::Bye("protocol_error", 1002),
        ];
        group.case_from(Start::Tcp, format!("{offer} is not negotiated"), steps);
    }
}

fn refused(into: &mut Vec<Case>) {
    let mut group = Group::new("8.2", into);
    let mut case = |what: &str, line: &str, changes: &[(&str, &str)], status| {
        let steps = vec![Step::Write(request(line, changes)), Step::Status(status)];
        group.case_from(Start::Tcp, what, steps);
    };
    case("no Host", LINE, &[("Host", "")], &[400]);
    case("no Upgrade", LINE, &[("Upgrade", "")], &[426]);
    case("no Connection", LINE, &[("Connection", "")], &[426]);
    case(
        "Connection: close",
        LINE,
        &[("Connection", "close")],
        &[426],
    );
    case(
        "Connection: keep-alive",
        LINE,
        &[("Connection", "keep-alive")],
        &[426],
    );
    case("Upgrade: h2c", LINE, &[("Upgrade", "h2c")], &[426]);
    for version in ["0", "7", "8", "12", "14", "013", "13, 8", "x"] {
        let what = format!("version {version}");
        case(&what, LINE, &[("Sec-WebSocket-Version", version)], &[426]);
    }
    case("no version", LINE, &[("Sec-WebSocket-Version", "")], &[400]);
    for (what, key) in [
        ("no key", ""),
        ("a key of 5 bytes", "c2hvcnQ="),
        ("a key of 17 bytes", "dGhlIHNhbXBsZSBub25jZTE="),
        ("a key that is not base64", "!!!!!!!!!!!!!!!!!!!!!!=="),
        ("a key without padding", "dGhlIHNhbXBsZSBub25jZQ"),
    ] {
        case(what, LINE, &[("Sec-WebSocket-Key", key)], &[400]);
    }
    for method in ["POST", "PUT", "HEAD", "OPTIONS", "DELETE", "BREW"] {
        let line = format!("{method} /v1/ws HTTP/1.1");
        case(&line, &line, &[], &[405]);
    }
    for path in [
        "/",
        "/v1/ws/",
        "/v1",
        "/v2/ws",
        "/V1/WS",
        "//v1/ws",
        "/v1/ws/../ws",
        "/admin/v1/node",
    ] {
        let line = format!("GET {path} HTTP/1.1");
        case(&line, &line, &[], &[404]);
    }
    case("HTTP/1.0", "GET /v1/ws HTTP/1.0", &[], &[400, 426]);
    case("a body", LINE, &[("Content-Length", "5")], &[400]);
    case(
        "a chunked body",
        LINE,
        &[("Transfer-Encoding", "chunked")],
        &[400, 426],
    );
    for offer in [
        "stonechat.v2.json",
        "mqtt",
        "STONECHAT.V1.JSON",
        "stonechat.v1.jsonx",
        ",",
    ] {
        let what = format!("subprotocol {offer}");
        case(&what, LINE, &[("Sec-WebSocket-Protocol", offer)], &[400]);
    }
    for origin in [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "localhost",
    ] {
        let what = format!("origin {origin}");
        case(&what, LINE, &[("Origin", origin)], &[403]);
    }
    for given in ["Basic YTpi", "Bearer", "Bearer a b", "abc"] {
        let what = format!("authorization {given}");
        case(&what, LINE, &[("Authorization", given)], &[401]);
    }
    let long = format!("Bearer {}", "x".repeat(4_097));
    case(
        "a token of 4,097 bytes",
        LINE,
        &[("Authorization", &long)],
        &[401],
    );
}

fn broken(into: &mut Vec<Case>) {
    let mut group = Group::new("8.3", into);
    let raw = |text: &str| text.as_bytes().to_vec();
    let good = String::from_utf8(request(LINE, &[])).expect("ASCII");
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let cases = [
        (
            "binary noise",
            [vec![0, 1, 2, 0xff, 0xfe], raw("\r\n\r\n")].concat(),
        ),
        (
            "a TLS hello",
            [vec![0x16, 3, 1, 0, 200, 1, 0], vec![0xa5; 200]].concat(),
        ),
        ("HTTP/2", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
        ("HTTP/9.9", raw(&good.replace("HTTP/1.1", "HTTP/9.9"))),
        ("no version at all", raw(&good.replace(" HTTP/1.1", ""))),
        (
            "a NUL in a header",
            raw(&good.replace("localhost", "local\0host")),
        ),
        (
            "a blank before the colon",
            raw(&good.replace("Upgrade:", "Upgrade :")),
        ),
        (
            "a header without a colon",
            raw(&good.replace("Host:", "Host")),
        ),
        (
            "a folded header",
            raw(&good.replace("localhost", "local\r\n host")),
        ),
        (
            "two hosts",
            raw(&good.replace("Host:", "Host: other\r\nHost:")),
        ),
        (
            "200 headers",
            raw(&good.replace("\r\n\r\n", &format!("\r\n{many}\r\n"))),
        ),
        (
            "a bad length",
            raw(&good.replace("\r\n\r\n", "\r\nContent-Length: -1\r\n\r\n")),
        ),
        (
            "two lengths",
            raw(&good.replace(
                "\r\n\r\n",
                "\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
            )),
        ),
    ];
    for (what, bytes) in cases {
        let steps = vec![Step::Write(bytes), Step::Status(&[400, 431])];
        group.case_from(Start::Tcp, what, steps);
    }
    for (what, bytes) in [
        (
            "200 KB in one header",
            good.replace("localhost", &"x".repeat(200_000)),
        ),
        (
            "200 KB in the path",
            good.replace("/v1/ws", &format!("/{}", "x".repeat(200_000))),
        ),
        ("200 KB without a line end", "x".repeat(200_000)),
    ] {
        let steps = vec![
            Step::Write(bytes.into_bytes()),
            Step::Status(&[400, 414, 431]),
        ];
        group.case_from(Start::Tcp, what, steps);
    }
    let steps = vec![Step::HalfClose, Step::End];
    group.case_from(Start::Tcp, "the client hangs up at once", steps);
    let steps = vec![Step::Write(raw(&good[..60])), Step::HalfClose, Step::End];
    group.case_from(Start::Tcp, "the client hangs up within the request", steps);
}

/// The server may not lose, or look too early at, what stands right behind the request.
fn pipelined(into: &mut Vec<Case>) {
    let mut group = Group::new("8.4", into);
    let good = request(LINE, &[]);
    let steps = vec![
        Step::Write([good.clone(), ping("behind")].concat()),
        Step::Status(&[101]),
        Step::Pong(b"behind".into()),
        Step::SignIn,
    ];
    group.case_from(Start::Tcp, "a ping behind the request", steps);
    let steps = vec![
        Step::Write([good.clone(), ping("behind")[..3].to_vec()].concat()),
        Step::Status(&[101]),
        Step::Write(ping("behind")[3..].to_vec()),
        Step::Pong(b"behind".into()),
        Step::SignIn,
    ];
    group.case_from(Start::Tcp, "half a ping behind the request", steps);
    let steps = vec![
        Step::Write([good.clone(), vec![0x83]].concat()),
        Step::Status(&[101]),
        Step::Bye("protocol_error", 1002),
    ];
    group.case_from(Start::Tcp, "a breach behind the request", steps);
    let steps = vec![
        Step::Write([good.clone(), text(asks(1))].concat()),
        Step::Status(&[101]),
        Step::Error("unauthorized"),
        Step::Bye("unauthorized", 4003),
    ];
    group.case_from(
        Start::Tcp,
        "a frame behind the request, before hello",
        steps,
    );
    let pings: Vec<u8> = (0..2_000_u32).flat_map(|n| ping(n.to_be_bytes())).collect();
    let mut steps = vec![
        Step::Write([good.clone(), pings].concat()),
        Step::Status(&[101]),
    ];
    steps.extend((0..2_000_u32).map(|n| Step::Pong(n.to_be_bytes().to_vec())));
    steps.extend([Step::SignIn, Step::Write(text(asks(2))), answer(2)]);
    group.case_from(Start::Tcp, "2,000 pings behind the request", steps);
    let refused = request("GET /v2/ws HTTP/1.1", &[]);
    let steps = vec![
        Step::Write([refused, good].concat()),
        Step::Status(&[404]),
        Step::HalfClose,
    ];
    group.case_from(Start::Tcp, "a request behind one that is refused", steps);
}
