//! Which web pages may connect.
//!
//! A browser sends cookies and lets any page open a WebSocket to anywhere; the
//! `Origin` header is what tells one page from another. This is a guard for
//! browsers only: other clients need not send the header, and can lie.

use actix_http::RequestHead;
use actix_http::header::{HOST, ORIGIN};

/// Whether a request may come from where it says it does.
pub(crate) fn is_allowed(head: &RequestHead, allowed: &[String]) -> bool {
    let mut origins = head.headers().get_all(ORIGIN);
    let Some(origin) = origins.next() else {
        return true;
    };
    if allowed.iter().any(|entry| entry == "*") {
        return true;
    }
    let (Ok(origin), None) = (origin.to_str(), origins.next()) else {
        return false;
    };
    let listed = |entry: &String| entry.trim_end_matches('/').eq_ignore_ascii_case(origin);
    allowed.iter().any(listed) || is_same_host(head, origin)
}

/// The page comes from the host and port it connects to.
fn is_same_host(head: &RequestHead, origin: &str) -> bool {
    let mut hosts = head.headers().get_all(HOST);
    let (Some(Ok(host)), None) = (hosts.next().map(|host| host.to_str()), hosts.next()) else {
        return false;
    };
    let Some((scheme, authority)) = origin.split_once("://") else {
        return false;
    };
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "http" => "80",
        "https" => "443",
        _ => return false,
    };
    let (origin_host, origin_port) = split_port(authority);
    let (host, port) = split_port(host);
    !host.is_empty()
        && origin_host.eq_ignore_ascii_case(host)
        && origin_port.unwrap_or(default_port) == port.unwrap_or(default_port)
}

/// Splits off the port; the colons of an IPv6 address stand inside brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use actix_http::test::TestRequest;

    use super::*;

    fn check(origin: Option<&str>, host: &str, allowed: &[&str]) -> bool {
        let mut request = TestRequest::default();
        request.insert_header((HOST, host.to_owned()));
        if let Some(origin) = origin {
            request.insert_header((ORIGIN, origin.to_owned()));
        }
        let allowed: Vec<String> = allowed.iter().map(|&entry| entry.to_owned()).collect();
        is_allowed(request.finish().head(), &allowed)
    }

    #[test]
    fn pages_of_other_hosts_are_kept_out_unless_listed() {
        assert!(check(None, "chat.example.org", &[]));
        assert!(check(
            Some("https://chat.example.org"),
            "chat.example.org",
            &[]
        ));
        assert!(check(
            Some("https://chat.example.org"),
            "Chat.Example.org:443",
            &[]
        ));
        assert!(check(Some("http://[::1]:8080"), "[::1]:8080", &[]));
        assert!(check(Some("http://[::1]"), "[::1]", &[]));
        assert!(!check(
            Some("https://chat.example.org"),
            "chat.example.org:8443",
            &[]
        ));
        assert!(!check(
            Some("https://evil.example"),
            "chat.example.org",
            &[]
        ));
        assert!(!check(
            Some("https://chat.example.org.evil.example"),
            "chat.example.org",
            &[]
        ));
        assert!(!check(Some("null"), "chat.example.org", &[]));
        assert!(!check(Some("file://"), "", &[]));
        assert!(!check(Some("http://"), "", &[]));
        let listed = ["https://app.example.org"];
        assert!(check(
            Some("https://app.example.org"),
            "chat.example.org",
            &listed
        ));
        assert!(check(
            Some("https://APP.example.org"),
            "chat.example.org",
            &listed
        ));
        assert!(!check(
            Some("http://app.example.org"),
            "chat.example.org",
            &listed
        ));
        assert!(!check(
            Some("https://app.example.org:444"),
            "chat.example.org",
            &listed
        ));
        assert!(check(Some("null"), "chat.example.org", &["*"]));
    }
}
