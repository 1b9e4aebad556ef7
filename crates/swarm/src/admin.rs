//! Users and tokens in bulk, through the admin API, several requests at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Roster, SwarmError};

const THREADS: usize = 8;
/// A call to a server that may be in trouble takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where and how to reach the admin API of a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admin {
    /// `http://HOST:PORT/admin/v1`.
    pub base: String,
    /// The value of the `Authorization` header.
    pub bearer: String,
}

impl Admin {
    fn error(&self, what: &impl ToString) -> SwarmError {
        SwarmError::Admin {
            base: self.base.clone(),
            what: what.to_string(),
        }
    }

    fn post(&self, agent: &ureq::Agent, path: &str, body: &Value) -> Result<Value, SwarmError> {
        let answer = agent
            .post(format!("{}{path}", self.base))
            .header("Authorization", &self.bearer)
            .send_json(body);
        let answer = answer.and_then(|mut answer| answer.body_mut().read_json());
        answer.map_err(|e| self.error(&e))
    }

    fn user(
        &self,
        agent: &ureq::Agent,
        user: &str,
        with_token: bool,
    ) -> Result<String, SwarmError> {
        self.post(agent, "/users", &json!({ "user": user }))?;
        if !with_token {
            return Ok(String::new());
        }
        let issued = self.post(agent, &format!("/users/{user}/tokens"), &json!({}))?;
        let token = issued["token"].as_str();
        Ok(token
            .ok_or_else(|| self.error(&"it gave no token"))?
            .to_owned())
    }

    /// Does something for each number below `count`, several at a time; the results are in order.
    fn each<T: Send>(
        &self,
        count: usize,
        act: impl Fn(&ureq::Agent, usize) -> Result<T, SwarmError> + Sync,
    ) -> Result<Vec<T>, SwarmError> {
        let share = count.div_ceil(THREADS).max(1);
        std::thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = (0..count)
                .step_by(share)
                .map(|from| {
                    scope.spawn(move || {
                        let agent = ureq::Agent::new_with_defaults();
                        (from..count.min(from + share))
                            .map(|number| act(&agent, number))
                            .collect::<Result<Vec<T>, SwarmError>>()
                    })
                })
                .collect();
            let mut all = Vec::with_capacity(count);
            for thread in threads {
                let some = thread
                    .join()
                    .map_err(|_| self.error(&"a thread panicked"))?;
                all.extend(some?);
            }
            Ok(all)
        })
    }

    /// Creates the users `{prefix}0` to `{prefix}{count - 1}`, the first `with_tokens` of them with a
    /// token, with a device called `device`.
    ///
    /// # Errors
    /// When the API does not answer, or refuses.
    pub fn create(
        &self,
        (prefix, device): (&str, &str),
        count: usize,
        with_tokens: usize,
    ) -> Result<Roster, SwarmError> {
        let tokens = self.each(count, |agent, number| {
            self.user(agent, &format!("{prefix}{number}"), number < with_tokens)
        })?;
        Ok(Roster::new(prefix, device, tokens))
    }

    fn agent() -> ureq::Agent {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .new_agent()
    }

    /// Whether the server says that it takes users and messages.
    pub(crate) fn is_ready(&self) -> bool {
        let root = self.base.trim_end_matches("/admin/v1");
        let answer = Self::agent().get(format!("{root}/readyz")).call();
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// Asks for a panic of a part of the server. Status and body of the answer.
    pub(crate) fn inject_panic(&self, fault: &Value) -> Result<(u16, Value), SwarmError> {
        let answer = Self::agent()
            .post(format!("{}/faults/panic", self.base))
            .header("Authorization", &self.bearer)
            .send_json(fault);
        let mut answer = answer.map_err(|e| self.error(&e))?;
        let status = answer.status().as_u16();
        Ok((status, answer.body_mut().read_json().unwrap_or_default()))
    }

    /// Removes users that were created so, with everything that waits for them.
    ///
    /// # Errors
    /// When the API does not answer, or refuses.
    pub fn remove(&self, prefix: &str, count: usize) -> Result<(), SwarmError> {
        self.each(count, |agent, number| {
            let removed = agent
                .delete(format!("{}/users/{prefix}{number}", self.base))
                .header("Authorization", &self.bearer)
                .call();
            removed.map(drop).map_err(|e| self.error(&e))
        })
        .map(drop)
    }
}
