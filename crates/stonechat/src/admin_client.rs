//! Calls the admin API on behalf of commands: that of the node on this machine,
//! with the secret from its data directory, or another's (`--admin-url`), with
//! what the environment holds.

mod trust;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use stonechat_gateway::admin::{Secret, SecretError};
use stonechat_protocol::{DeviceId, UserId};
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use crate::cli::ConfigArgs;
use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::node_file::{self, NodeFile};

/// A call takes no longer than this.
const DEADLINE: Duration = Duration::from_secs(15);

/// The environment variable of a secret or an admin token.
const SECRET_VARIABLE: &str = "STONECHAT_ADMIN_SECRET";

/// Knows the running node's admin API.
pub(crate) struct AdminClient {
    agent: Agent,
    /// Scheme, host and port.
    url: String,
    secret: String,
}

impl AdminClient {
    /// Finds the node: where the command line says, else where the running node of the data
    /// directory says, else where the configuration says.
    pub(crate) fn find(settings: &Settings, args: &ConfigArgs) -> Result<Self, Failure> {
        let secret = secret(settings.data_dir())?;
        let url = match &args.admin_url {
            Some(url) => checked(url)?,
            None => {
                let node = NodeFile::read(settings.data_dir());
                let tls = settings.admin.tls_cert.is_some();
                let tls = node.as_ref().map_or(tls, |node| node.admin_tls);
                let running = node.map(|node| node.admin_listen);
                let address = args.admin_listen.or(running);
                node_file::admin_url(address.unwrap_or(settings.admin.listen), tls)
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(DEADLINE))
            .proxy(None);
        let config = if url.starts_with("https://") {
            let own = settings.admin.tls_cert.as_deref();
            // Of a node elsewhere nothing is known, whatever is configured here.
            let own = own.filter(|file| args.admin_url.is_none() && file.exists());
            let files: Vec<&Path> = own.into_iter().chain(args.ca.as_deref()).collect();
            config.tls_config(trust::trusting(&files)?)
        } else {
            config
        };
        Ok(Self {
            agent: config.build().new_agent(),
            url,
            secret,
        })
    }

    /// Creates a user; `false` when it existed.
    pub(crate) fn add_user(&self, user: &UserId) -> Result<bool, Failure> {
        let (status, _) = self.call(Method::POST, "/users", Some(&json!({"user": user})))?;
        Ok(status == 201)
    }

    /// All users.
    pub(crate) fn users(&self) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        let mut path = "/users?limit=1000".to_owned();
        loop {
            let (_, mut page) = self.call(Method::GET, &path, None)?;
            if let Value::Array(users) = page["users"].take() {
                all.extend(users);
            }
            match page["next"].as_str() {
                // The only character of a name with a meaning in a query.
                Some(next) => {
                    path = format!("/users?limit=1000&after={}", next.replace('+', "%2B"));
                }
                None => return Ok(all),
            }
        }
    }

    /// Removes a user.
    pub(crate) fn remove_user(&self, user: &UserId) -> Result<(), Failure> {
        self.call(Method::DELETE, &format!("/users/{user}"), None)?;
        Ok(())
    }

    /// Lets a user sign in or not.
    pub(crate) fn set_disabled(&self, user: &UserId, disabled: bool) -> Result<(), Failure> {
        let body = json!({"disabled": disabled});
        self.call(Method::PATCH, &format!("/users/{user}"), Some(&body))?;
        Ok(())
    }

    /// Issues a token.
    pub(crate) fn issue_token(
        &self,
        user: &UserId,
        device: Option<&DeviceId>,
        ttl_s: Option<u64>,
    ) -> Result<String, Failure> {
        let body = json!({"device": device, "ttl_s": ttl_s});
        let (_, answer) = self.call(Method::POST, &format!("/users/{user}/tokens"), Some(&body))?;
        match answer["token"].as_str() {
            Some(token) => Ok(token.to_owned()),
            None => Err(Failure::general("the admin API answered without a token")),
        }
    }

    /// Revokes all tokens of a user.
    pub(crate) fn revoke_all(&self, user: &UserId) -> Result<(), Failure> {
        self.call(Method::DELETE, &format!("/users/{user}/tokens"), None)?;
        Ok(())
    }

    /// Revokes one token.
    pub(crate) fn revoke(&self, id: &str) -> Result<(), Failure> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        if !id.bytes().all(plain) {
            return Err(Failure::general("this is not the id of a token"));
        }
        self.call(Method::DELETE, &format!("/tokens/{id}"), None)?;
        Ok(())
    }

    /// Figures of the node.
    pub(crate) fn node(&self) -> Result<Value, Failure> {
        Ok(self.call(Method::GET, "/node", None)?.1)
    }

    /// Any request; the answer.
    pub(crate) fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        Ok(self.call(method.clone(), path, body)?.1)
    }

    /// The answer to a GET as it comes, for as long as it takes.
    pub(crate) fn reader(&self, path: &str) -> Result<impl std::io::Read, Failure> {
        let request = self.prepared(Method::GET, path).body(());
        let request = self
            .agent
            .configure_request(request.map_err(Failure::general)?);
        let request = request.timeout_global(None).build();
        let answer = self
            .agent
            .run(request)
            .map_err(|error| self.silent(&error))?;
        if answer.status().as_u16() >= 400 {
            let refused = || Failure::general("the admin API refused");
            return Err(read(answer).err().unwrap_or_else(refused));
        }
        Ok(answer.into_body().into_reader())
    }

    /// Sends a file, for as long as it takes; the answer.
    pub(crate) fn upload(&self, path: &str, file: std::fs::File) -> Result<Value, Failure> {
        let request = self.prepared(Method::POST, path).body(file);
        let request = self
            .agent
            .configure_request(request.map_err(Failure::general)?);
        let request = request.timeout_global(None).build();
        let answer = self
            .agent
            .run(request)
            .map_err(|error| self.silent(&error))?;
        Ok(read(answer)?.1)
    }

    fn prepared(&self, method: Method, path: &str) -> ureq::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}/admin/v1{path}", self.url))
            .header("authorization", format!("Bearer {}", self.secret))
    }

    fn silent(&self, error: &ureq::Error) -> Failure {
        let hint = if self.url.starts_with("https://") {
            "; of certificates, --ca names one to trust and --admin-url the host it is for"
        } else {
            ""
        };
        let text = format!(
            "the admin API at {} does not answer ({error}); is `stonechat serve` running? \
             --data-dir, --admin-listen or --admin-url say which one is meant{hint}",
            self.url
        );
        Failure::new(Exit::Unavailable, text)
    }

    fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Failure> {
        let request = self
            .prepared(method, path)
            .header("content-type", "application/json");
        let answer = match body {
            Some(body) => request
                .body(body.to_string())
                .map(|request| self.agent.run(request)),
            None => request.body(()).map(|request| self.agent.run(request)),
        };
        let answer = answer.map_err(Failure::general)?;
        read(answer.map_err(|error| self.silent(&error))?)
    }
}

/// The secret or token of the environment, else the secret of the data directory.
fn secret(data_dir: &Path) -> Result<String, Failure> {
    if let Ok(secret) = std::env::var(SECRET_VARIABLE)
        && !secret.trim().is_empty()
    {
        return Ok(secret.trim().to_owned());
    }
    let loaded = Secret::load(data_dir).map_err(|error| {
        let missing = matches!(&error, SecretError::Io { source, .. } if source.kind() == ErrorKind::NotFound);
        let failure = Failure::from(error);
        let exit = if missing { Exit::Unavailable } else { failure.exit() };
        let hint = "is `stonechat serve` running with this --data-dir, as this user? For a node elsewhere STONECHAT_ADMIN_SECRET holds its secret or an admin token";
        Failure::new(exit, format!("{failure}; {hint}"))
    })?;
    Ok(loaded.expose().to_owned())
}

/// Scheme, host and port of an address somebody typed.
fn checked(url: &str) -> Result<String, Failure> {
    let base = url.trim_end_matches('/').trim_end_matches("/admin/v1");
    let rest = base
        .strip_prefix("https://")
        .or_else(|| base.strip_prefix("http://"));
    if rest.is_none_or(|host| host.is_empty() || host.contains(['/', '@', '?', '#'])) {
        let text = format!("--admin-url {url}: expected https://HOST:PORT");
        return Err(Failure::new(Exit::Config, text));
    }
    Ok(base.to_owned())
}

fn read(mut answer: Response<Body>) -> Result<(u16, Value), Failure> {
    let status = answer.status().as_u16();
    let text = answer
        .body_mut()
        .read_to_string()
        .map_err(Failure::general)?;
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    if status < 400 {
        return Ok((status, value));
    }
    let detail = value["detail"].as_str().unwrap_or("no detail given");
    let exit = if status == 503 {
        Exit::Unavailable
    } else {
        Exit::General
    };
    Err(Failure::new(exit, format!("{detail} (HTTP {status})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port() {
        for (typed, taken) in [
            (
                "https://chat.example.org:8081",
                "https://chat.example.org:8081",
            ),
            (
                "https://chat.example.org/admin/v1/",
                "https://chat.example.org",
            ),
            ("http://[::1]:8081/", "http://[::1]:8081"),
        ] {
            assert_eq!(checked(typed).unwrap(), taken);
        }
        for bad in [
            "chat.example.org",
            "ftp://x",
            "https://",
            "https://a@b",
            "https://a/b",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
