//! Calls the admin API of the running node on behalf of local commands, with
//! the secret from the data directory.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use stonechat_gateway::admin::{Secret, SecretError};
use stonechat_protocol::{DeviceId, UserId};
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body};

use crate::config::Settings;
use crate::exit::{Exit, Failure};
use crate::node_file::{self, NodeFile};

/// A call takes no longer than this.
const DEADLINE: Duration = Duration::from_secs(15);

/// Knows the running node's admin API.
pub(crate) struct AdminClient {
    agent: Agent,
    address: SocketAddr,
    secret: Secret,
}

impl AdminClient {
    /// Finds the node: at `address` when given, else where the running node of the data
    /// directory says, else where the configuration says.
    pub(crate) fn find(settings: &Settings, address: Option<SocketAddr>) -> Result<Self, Failure> {
        let data_dir = &settings.server.data_dir;
        let secret = Secret::load(data_dir).map_err(|error| {
            let missing = matches!(&error, SecretError::Io { source, .. } if source.kind() == ErrorKind::NotFound);
            let failure = Failure::from(error);
            let exit = if missing { Exit::Unavailable } else { failure.exit() };
            let hint = "is `stonechat serve` running with this --data-dir, as this user?";
            Failure::new(exit, format!("{failure}; {hint}"))
        })?;
        let address = address
            .or_else(|| NodeFile::read(data_dir).map(|node| node.admin_listen))
            .unwrap_or(settings.admin.listen);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(DEADLINE))
            .proxy(None)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            address: node_file::reachable(address),
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
            .uri(format!("http://{}/admin/v1{path}", self.address))
            .header("authorization", format!("Bearer {}", self.secret.expose()))
    }

    fn silent(&self, error: &ureq::Error) -> Failure {
        let text = format!(
            "the admin API at {} does not answer ({error}); is `stonechat serve` running? \
             --data-dir or --admin-listen say which one is meant",
            self.address
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
