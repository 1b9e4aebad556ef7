//! The admin API as an operator's script would use it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Request;

use crate::DEADLINE;

/// A caller of the admin API of one node.
#[derive(Debug, Clone)]
pub struct Admin {
    base: String,
    secret: Option<String>,
    /// With it the API is reached by TLS: what is trusted, PEM.
    trusted: Option<String>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Media type, empty when absent.
    pub content_type: String,
    /// The body as text.
    pub text: String,
    /// The body as JSON, `null` when it is not.
    pub json: Value,
    headers: ureq::http::HeaderMap,
}

impl Reply {
    /// A header as text, empty when absent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Asserts the status; gives the body back.
    ///
    /// # Panics
    /// When the status is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json
    }

    /// Asserts that it is a problem document with this status.
    ///
    /// # Panics
    /// When it is something else.
    #[track_caller]
    pub fn expect_problem(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert!(
            self.content_type.starts_with("application/problem+json"),
            "{}: {}",
            self.content_type,
            self.text
        );
        assert_eq!(self.json["status"], status, "{}", self.text);
        for field in ["type", "title", "code", "detail"] {
            assert!(
                self.json[field]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{field} is missing: {}",
                self.text
            );
        }
        self.json
    }
}

fn tls_trusting(pem: &str) -> ureq::tls::TlsConfig {
    let root = ureq::tls::Certificate::from_pem(pem.as_bytes()).expect("a certificate in PEM");
    ureq::tls::TlsConfig::builder()
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[root]))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}

impl Admin {
    pub(crate) fn new(address: &str, secret: Option<String>) -> Self {
        Self {
            base: format!("http://{address}"),
            secret,
            trusted: None,
        }
    }

    /// The same API by TLS, trusting a certificate (PEM).
    #[must_use]
    pub fn trusting(mut self, pem: &str) -> Self {
        self.base = self.base.replacen("http://", "https://", 1);
        self.trusted = Some(pem.to_owned());
        self
    }

    /// The same API with other credentials.
    #[must_use]
    pub fn with_secret(&self, secret: Option<&str>) -> Self {
        Self {
            secret: secret.map(str::to_owned),
            ..self.clone()
        }
    }

    /// A new one each time: a node may have been restarted in between.
    fn agent(&self) -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(DEADLINE))
            .timeout_connect(Some(Duration::from_secs(5)));
        let config = match &self.trusted {
            Some(pem) => config.tls_config(tls_trusting(pem)),
            None => config,
        };
        config.build().into()
    }

    /// A GET whose answer is read as it comes, for as long as it takes.
    ///
    /// # Panics
    /// When no answer begins.
    #[track_caller]
    pub fn stream(&self, path: &str) -> impl std::io::Read + use<> {
        let secret = self.secret.as_deref().unwrap_or_default();
        let answer = self
            .agent()
            .get(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {secret}"))
            .config()
            .timeout_global(None)
            .build()
            .call();
        answer.expect("an answer begins").into_body().into_reader()
    }

    /// One request. `None` when no answer came at all.
    pub fn try_request(&self, method: &str, path: &str, body: Option<&str>) -> Option<Reply> {
        let agent = self.agent();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(secret) = &self.secret {
            request = request.header("authorization", format!("Bearer {secret}"));
        }
        let answer = match body {
            Some(body) => agent.run(
                request
                    .header("content-type", "application/json")
                    .body(body.to_owned())
                    .expect("a valid request"),
            ),
            None => agent.run(request.body(()).expect("a valid request")),
        };
        let mut answer = answer.ok()?;
        let content_type = answer
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let text = answer.body_mut().read_to_string().ok()?;
        Some(Reply {
            status: answer.status().as_u16(),
            content_type,
            headers: answer.headers().clone(),
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        })
    }

    /// One request.
    ///
    /// # Panics
    /// When no answer came.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let body = body.map(Value::to_string);
        self.try_request(method, path, body.as_deref())
            .unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// `GET`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, None)
    }

    /// `POST`.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, Some(body))
    }

    /// `PATCH`.
    #[track_caller]
    pub fn patch(&self, path: &str, body: &Value) -> Reply {
        self.request("PATCH", path, Some(body))
    }

    /// `DELETE`.
    #[track_caller]
    pub fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, None)
    }

    /// Creates a user; one that exists is fine.
    #[track_caller]
    pub fn create_user(&self, user: &str) {
        let reply = self.post("/admin/v1/users", &json!({"user": user}));
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text);
    }

    /// Issues a token, bound to a device when one is named.
    #[track_caller]
    pub fn token(&self, user: &str, device: Option<&str>) -> String {
        let body = device.map_or_else(|| json!({}), |device| json!({"device": device}));
        let issued = self
            .post(&format!("/admin/v1/users/{user}/tokens"), &body)
            .expect(201);
        issued["token"].as_str().expect("a token").to_owned()
    }

    /// What is known of a user.
    #[track_caller]
    pub fn user(&self, user: &str) -> Value {
        self.get(&format!("/admin/v1/users/{user}")).expect(200)
    }

    /// What is known of one device of a user; `null` when there is none.
    #[track_caller]
    pub fn device(&self, user: &str, device: &str) -> Value {
        self.user(user)["devices"]
            .as_array()
            .expect("devices is a list")
            .iter()
            .find(|entry| entry["device"] == device)
            .cloned()
            .unwrap_or(Value::Null)
    }

    /// Makes something panic.
    #[track_caller]
    pub fn inject_panic(&self, what: &Value) -> Reply {
        self.post("/admin/v1/faults/panic", what)
    }

    /// The value of a metric summed over its labels that contain `labels`; `None` when absent.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let page = self.get("/metrics");
        assert_eq!(page.status, 200, "{}", page.text);
        let values: Vec<f64> = page
            .text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}
