//! The collector: OTLP over HTTP, as protobuf. One request at a time, bounded in time
//! and in what is read back; no redirect is followed, for the headers may hold a secret.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use ureq::Agent;
use ureq::http::uri::PathAndQuery;
use ureq::http::{HeaderName, HeaderValue, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config::TraceSettings;

/// What is read of an answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Where spans go when the endpoint has no path of its own.
const PATH: &str = "/v1/traces";
/// Answers after which the same batch may be sent again.
const PASSING: [u16; 4] = [429, 502, 503, 504];

/// An export that did not work out.
#[derive(Debug)]
pub(super) struct Refused {
    /// For the log: nothing of the headers.
    pub(super) why: String,
    /// Another attempt may work.
    pub(super) passes: bool,
}

/// Where spans go.
pub(super) struct Collector {
    agent: Agent,
    address: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Reads an endpoint such as `http://127.0.0.1:4318`.
pub(crate) fn address(endpoint: &str) -> Result<Uri, &'static str> {
    const EXPECTED: &str =
        "is not an address such as http://127.0.0.1:4318 or https://collector.example.org";
    let uri: Uri = endpoint.parse().map_err(|_| EXPECTED)?;
    let mut parts = uri.into_parts();
    let scheme = parts.scheme.as_ref().map(ToString::to_string);
    let authority = parts.authority.as_ref().ok_or(EXPECTED)?;
    if !matches!(scheme.as_deref(), Some("http" | "https")) {
        return Err(EXPECTED);
    }
    if authority.as_str().contains('@') {
        return Err(
            "has a name or a password in it: put what the collector wants into traces.headers",
        );
    }
    if parts.path_and_query.as_ref().is_none_or(|path| path == "/") {
        parts.path_and_query = Some(PathAndQuery::from_static(PATH));
    }
    Uri::from_parts(parts).map_err(|_| EXPECTED)
}

/// Reads headers given as `name=value`. What is wrong with them is told without their values.
pub(crate) fn headers(given: &[String]) -> Result<Vec<(HeaderName, HeaderValue)>, &'static str> {
    let read = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .ok_or("has an entry that is not \"name=value\"")?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| "has an entry whose name is none of an HTTP header")?;
        let mut value = HeaderValue::from_str(value.trim())
            .map_err(|_| "has an entry whose value cannot be an HTTP header's")?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    given.iter().map(read).collect()
}

impl Collector {
    pub(super) fn new(settings: &TraceSettings) -> Result<Self, String> {
        let wrong = |key: &'static str| move |why: &'static str| format!("traces.{key} {why}");
        let address = address(&settings.endpoint).map_err(wrong("endpoint"))?;
        let headers = headers(&settings.headers).map_err(wrong("headers"))?;
        let mut config = Agent::config_builder()
            .timeout_global(Some(Duration::from_millis(settings.timeout_ms)))
            .max_redirects(0)
            .http_status_as_error(false)
            .proxy(None)
            .user_agent(concat!("stonechat/", env!("CARGO_PKG_VERSION")));
        if address.scheme_str() == Some("https") {
            config = config.tls_config(tls()?);
        }
        Ok(Self {
            agent: config.build().into(),
            address,
            headers,
        })
    }

    /// For the log: the rest of the address may be nobody's business.
    pub(super) fn host(&self) -> &str {
        self.address.host().unwrap_or_default()
    }

    /// Sends one request; returns how many of its spans the collector rejected.
    pub(super) fn send(&self, request: &[u8]) -> Result<u64, Refused> {
        let mut post = self
            .agent
            .post(&self.address)
            .content_type("application/x-protobuf");
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        let mut answer = post.send(request).map_err(|error| Refused {
            why: error.to_string(),
            passes: true,
        })?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(Refused {
                why: format!("it answered {status}"),
                passes: PASSING.contains(&status),
            });
        }
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        // It has them: what it says beyond that is a courtesy.
        let rejected = body
            .read_to_vec()
            .ok()
            .and_then(|body| ExportTraceServiceResponse::decode(&body[..]).ok())
            .and_then(|response| response.partial_success)
            .map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }
}

/// The system's certificates, and the one TLS stack there is.
fn tls() -> Result<TlsConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(
            "traces.endpoint is https, and this system has no certificates to trust; install \
             ca-certificates"
                .to_owned(),
        );
    }
    let roots: Vec<_> = found
        .certs
        .iter()
        .map(|cert| Certificate::from_der(cert).to_owned())
        .collect();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_without_secrets() {
        let read = |text: &str| address(text).map(|uri| uri.to_string());
        for (given, meant) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            (
                "https://c.example/otlp/v1/traces",
                "https://c.example/otlp/v1/traces",
            ),
        ] {
            assert_eq!(read(given).unwrap(), meant);
        }
        for bad in [
            "",
            "127.0.0.1:4318",
            "/v1/traces",
            "ftp://c.example",
            "grpc://c:4317",
            "http://",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let told = read("http://me:hunter2@c.example").unwrap_err();
        assert!(told.contains("traces.headers") && !told.contains("hunter2"));
    }

    #[test]
    fn headers_are_read_and_never_repeated() {
        let given = [
            "authorization = Bearer a=b".to_owned(),
            "x-scope=7".to_owned(),
        ];
        let read = headers(&given).unwrap();
        assert_eq!(read[0].0, "authorization");
        assert_eq!(read[0].1, "Bearer a=b");
        assert!(!format!("{read:?}").contains("Bearer"));
        for bad in ["hunter2", "a b=hunter2", "=hunter2", "x=hunter2\r\ny: z"] {
            let why = headers(&[bad.to_owned()]).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
