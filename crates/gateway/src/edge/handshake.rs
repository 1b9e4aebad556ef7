//! The HTTP side of an upgrade: what is accepted, what is refused and how.
//!
//! Credentials are taken from the `Authorization` header only; the query
//! string is never read. The token is not checked here: whose it is depends on
//! the device, which `hello` names.

use actix_http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use actix_http::{RequestHead, Response, StatusCode, Version, ws};
use stonechat_protocol::SUBPROTOCOL;

use super::origin;

/// Where the WebSocket is.
pub(crate) const PATH: &str = "/v1/ws";

/// Longest token in the `Authorization` header, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;

/// Why there will be no WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is nothing here; the WebSocket is at {PATH}")]
    NotFound,
    #[error("use GET")]
    Method,
    #[error("this is a WebSocket endpoint; send an upgrade request of WebSocket version 13")]
    NotAnUpgrade,
    #[error("bad upgrade request: {0}")]
    BadRequest(&'static str),
    #[error("none of the subprotocols offered is {SUBPROTOCOL}")]
    Subprotocol,
    #[error("pages of this origin may not connect")]
    Origin,
    #[error("the Authorization header is not a bearer token")]
    Credentials,
    #[error("no room for more connections at the moment")]
    Full,
    #[error("the server is stopping")]
    Draining {
        /// When to come back.
        retry_after_ms: u64,
    },
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAnUpgrade => StatusCode::UPGRADE_REQUIRED,
            Self::BadRequest(_) | Self::Subprotocol => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::Credentials => StatusCode::UNAUTHORIZED,
            Self::Full | Self::Draining { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The response without its body, which is the refusal's text.
    pub(crate) fn response(self) -> Response<()> {
        let mut response = Response::build(self.status());
        response.insert_header((CONTENT_TYPE, "text/plain; charset=utf-8"));
        match self {
            Self::Method => {
                response.insert_header(("allow", "GET"));
            }
            Self::NotAnUpgrade => {
                response.insert_header((UPGRADE, "websocket"));
                response.insert_header((SEC_WEBSOCKET_VERSION, "13"));
            }
            Self::Credentials => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer"));
            }
            Self::Full => {
                response.insert_header((RETRY_AFTER, "1"));
            }
            Self::Draining { retry_after_ms } => {
                let seconds = retry_after_ms.div_ceil(1000).max(1);
                response.insert_header((RETRY_AFTER, seconds.to_string()));
            }
            _ => {}
        }
        response.force_close();
        response
            .message_body(())
            .expect("static headers and a number are valid")
    }
}

/// An upgrade that may go ahead.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) response: Response<()>,
    /// From the `Authorization` header.
    pub(crate) token: Option<Box<str>>,
}

/// Judges an upgrade request.
pub(crate) fn negotiate(
    head: &RequestHead,
    origins_allowed: &[String],
) -> Result<Upgrade, Refusal> {
    if head.uri.path() != PATH {
        return Err(Refusal::NotFound);
    }
    ws::verify_handshake(head).map_err(not_websocket)?;
    let headers = head.headers();
    if head.version < Version::HTTP_11 || !headers.contains_key(HOST) {
        return Err(Refusal::BadRequest("HTTP/1.1 with a Host header is needed"));
    }
    let has_body = headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    if has_body {
        return Err(Refusal::BadRequest("an upgrade request has no body"));
    }
    if !origin::is_allowed(head, origins_allowed) {
        return Err(Refusal::Origin);
    }
    let token = bearer(head)?;
    let mut response = ws::handshake_response(head);
    if choose_subprotocol(head)? {
        response.insert_header((SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL));
    }
    let response = response
        .message_body(())
        .map_err(|_| Refusal::BadRequest("Sec-WebSocket-Key"))?;
    Ok(Upgrade { response, token })
}

fn not_websocket(error: ws::HandshakeError) -> Refusal {
    use ws::HandshakeError as E;
    match error {
        E::GetMethodRequired => Refusal::Method,
        E::NoWebsocketUpgrade | E::NoConnectionUpgrade | E::UnsupportedVersion => {
            Refusal::NotAnUpgrade
        }
        E::NoVersionHeader => Refusal::BadRequest("Sec-WebSocket-Version is missing"),
        E::BadWebsocketKey => {
            Refusal::BadRequest("Sec-WebSocket-Key is missing or not 16 bytes in base64")
        }
    }
}

/// Whether the client offered our subprotocol; offering none at all is fine.
fn choose_subprotocol(head: &RequestHead) -> Result<bool, Refusal> {
    let mut offered_any = false;
    for value in head.headers().get_all(SEC_WEBSOCKET_PROTOCOL) {
        offered_any = true;
        let value = value.to_str().map_err(|_| Refusal::Subprotocol)?;
        if value.split(',').any(|name| name.trim() == SUBPROTOCOL) {
            return Ok(true);
        }
    }
    if offered_any {
        Err(Refusal::Subprotocol)
    } else {
        Ok(false)
    }
}

fn bearer(head: &RequestHead) -> Result<Option<Box<str>>, Refusal> {
    let mut values = head.headers().get_all(AUTHORIZATION);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let (Ok(value), None) = (value.to_str(), values.next()) else {
        return Err(Refusal::Credentials);
    };
    let (scheme, token) = value.split_once(' ').ok_or(Refusal::Credentials)?;
    let token = token.trim();
    let well_formed = scheme.eq_ignore_ascii_case("bearer")
        && (1..=TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|b| b.is_ascii_graphic());
    if well_formed {
        Ok(Some(token.into()))
    } else {
        Err(Refusal::Credentials)
    }
}

#[cfg(test)]
mod tests {
    use actix_http::header::HeaderMap;
    use actix_http::test::TestRequest;
    use actix_http::{Method, Request};

    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("host", "localhost"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut request = TestRequest::with_uri(uri);
        for &(name, value) in GOOD {
            if !headers.iter().any(|(other, _)| *other == name) {
                request.insert_header((name, value));
            }
        }
        for &(name, value) in headers {
            if !value.is_empty() {
                request.append_header((name, value));
            }
        }
        let mut request = request.finish();
        if request.head().headers().contains_key(UPGRADE) {
            request
                .head_mut()
                .set_connection_type(actix_http::ConnectionType::Upgrade);
        }
        request
    }

    fn outcome(uri: &str, headers: &[(&str, &str)]) -> Result<Upgrade, Refusal> {
        negotiate(request(uri, headers).head(), &[])
    }

    fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn a_proper_request_is_upgraded() {
        let upgrade = outcome(PATH, &[]).unwrap();
        assert_eq!(upgrade.response.status(), 101);
        let headers = upgrade.response.headers();
        // The example of RFC 6455, section 1.3.
        assert_eq!(
            header(headers, "sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert_eq!(header(headers, "sec-websocket-protocol"), None);
        assert!(upgrade.token.is_none());
    }

    #[test]
    fn the_subprotocol_is_echoed_and_others_alone_are_refused() {
        let name = "sec-websocket-protocol";
        for offers in [
            vec![(name, "stonechat.v1.json")],
            vec![(name, "mqtt, stonechat.v1.json")],
            vec![(name, "mqtt"), (name, "stonechat.v1.json")],
        ] {
            let upgrade = outcome(PATH, &offers).unwrap();
            assert_eq!(header(upgrade.response.headers(), name), Some(SUBPROTOCOL));
        }
        let refused = outcome(PATH, &[(name, "mqtt, stonechat.v2.json")]).unwrap_err();
        assert_eq!(refused, Refusal::Subprotocol);
        assert_eq!(refused.status(), 400);
    }

    #[test]
    fn bad_requests_are_told_apart() {
        let status =
            |headers: &[(&str, &str)]| outcome(PATH, headers).unwrap_err().status().as_u16();
        assert_eq!(outcome("/v1/other", &[]).unwrap_err(), Refusal::NotFound);
        assert_eq!(status(&[("sec-websocket-version", "8")]), 426);
        assert_eq!(status(&[("sec-websocket-version", "")]), 400);
        assert_eq!(status(&[("sec-websocket-key", "")]), 400);
        assert_eq!(status(&[("sec-websocket-key", "c2hvcnQ=")]), 400);
        assert_eq!(status(&[("upgrade", "h2c")]), 426);
        assert_eq!(status(&[("host", "")]), 400);
        assert_eq!(status(&[("content-length", "5")]), 400);
        assert_eq!(status(&[("transfer-encoding", "chunked")]), 400);
        assert_eq!(status(&[("origin", "https://evil.example")]), 403);
        let mut post = request(PATH, &[]);
        post.head_mut().method = Method::POST;
        assert_eq!(negotiate(post.head(), &[]).unwrap_err(), Refusal::Method);
    }

    #[test]
    fn tokens_come_from_the_header_only() {
        let token =
            |uri, headers: &[(&str, &str)]| outcome(uri, headers).map(|upgrade| upgrade.token);
        let good = token(PATH, &[("authorization", "Bearer st1.abc")]).unwrap();
        assert_eq!(good.as_deref(), Some("st1.abc"));
        let good = token(PATH, &[("authorization", "bearer  st1.abc ")]).unwrap();
        assert_eq!(good.as_deref(), Some("st1.abc"));
        assert_eq!(token("/v1/ws?token=st1.abc", &[]).unwrap(), None);
        let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
        for bad in ["Bearer", "Bearer ", "Basic YTpi", "Bearer a b", &long] {
            assert_eq!(
                token(PATH, &[("authorization", bad)]).unwrap_err(),
                Refusal::Credentials
            );
        }
    }

    #[test]
    fn refusals_say_when_to_come_back() {
        let response = Refusal::Draining {
            retry_after_ms: 2_500,
        }
        .response();
        assert_eq!(response.status(), 503);
        assert_eq!(header(response.headers(), "retry-after"), Some("3"));
        assert_eq!(
            header(Refusal::Full.response().headers(), "retry-after"),
            Some("1")
        );
        assert_eq!(
            header(Refusal::NotAnUpgrade.response().headers(), "upgrade"),
            Some("websocket")
        );
    }
}
