//! Users and tokens in bulk, through the admin API, several requests at a time.

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use stonechat_swarm::Roster;

/// What the names of simulated users start with, and the name of their only device.
pub(crate) const PREFIX: &str = "u";
pub(crate) const DEVICE: &str = "d";
const THREADS: usize = 8;

/// Where and how to reach the admin API of a server.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    /// `http://HOST:PORT/admin/v1`.
    pub(crate) base: String,
    /// The value of the `Authorization` header.
    pub(crate) bearer: String,
}

impl Admin {
    fn post(&self, agent: &ureq::Agent, path: &str, body: &Value) -> Result<Value> {
        let mut answer = agent
            .post(format!("{}{path}", self.base))
            .header("Authorization", &self.bearer)
            .send_json(body)?;
        Ok(answer.body_mut().read_json()?)
    }

    fn user(&self, agent: &ureq::Agent, number: usize, with_token: bool) -> Result<String> {
        let user = format!("{PREFIX}{number}");
        self.post(agent, "/users", &json!({ "user": user }))?;
        if !with_token {
            return Ok(String::new());
        }
        let issued = self.post(agent, &format!("/users/{user}/tokens"), &json!({}))?;
        let token = issued["token"].as_str();
        Ok(token.context("the admin API gave no token")?.to_owned())
    }

    /// Creates users 0 to `count`, the first `with_tokens` of them with a token.
    pub(crate) fn create(&self, count: usize, with_tokens: usize) -> Result<Roster> {
        let each = count.div_ceil(THREADS).max(1);
        let tokens = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..count)
                .step_by(each)
                .map(|from| {
                    scope.spawn(move || {
                        let agent = ureq::Agent::new_with_defaults();
                        (from..count.min(from + each))
                            .map(|number| self.user(&agent, number, number < with_tokens))
                            .collect::<Result<Vec<String>>>()
                    })
                })
                .collect();
            let mut tokens = Vec::with_capacity(count);
            for thread in threads {
                let made = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
                tokens.extend(made?);
            }
            anyhow::Ok(tokens)
        })?;
        Ok(Roster::new(PREFIX, DEVICE, tokens))
    }
}

/// Users for the bare relay, which takes the name for a token.
pub(crate) fn unchecked(count: usize) -> Roster {
    Roster::new(PREFIX, DEVICE, (0..count).map(|n| format!("{PREFIX}{n}")))
}
