//! Which request each command is, and which columns of its answer people want
//! to see. One place to compare with the admin API's document.

use std::path::PathBuf;

use serde_json::{Value, json};
use ureq::http::Method;

use super::args::{
    ActorsCommand, AdminCommand, DeadLettersCommand, MailboxCommand, PageArgs, TokensCommand,
};
use super::table::Column;
use crate::exit::Failure;

/// What goes along, and what becomes of the answer.
#[derive(Debug)]
pub(crate) enum Body {
    None,
    Json(Value),
    /// The answer is printed as it comes.
    Stream,
    /// The answer goes to a file, or to standard output.
    Download(Option<PathBuf>),
    /// The file is sent.
    Upload(PathBuf),
}

/// A request and how to show its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Body,
    /// What it does that cannot be undone.
    pub(crate) undoable: Option<String>,
    /// The answer's list; empty: it is one thing.
    pub(crate) list: &'static str,
    pub(crate) columns: &'static [Column],
}

const USERS: &[Column] = &[
    ("USER", "user"),
    ("CREATED", "created_ms"),
    ("DISABLED", "disabled"),
    ("LIMITS", "limits"),
];
const MESSAGES: &[Column] = &[
    ("SEQ", "seq"),
    ("ID", "id"),
    ("FROM", "from.user"),
    ("DEVICE", "from.device"),
    ("ACCEPTED", "ts_ms"),
    ("EXPIRES", "expires_ms"),
    ("BYTES", "body_bytes"),
];
const MAILBOXES: &[Column] = &[
    ("USER", "user"),
    ("DEPTH", "depth"),
    ("BYTES", "bytes"),
    ("OLDEST", "oldest_ms"),
];
const DEAD_LETTERS: &[Column] = &[
    ("NUMBER", "number"),
    ("USER", "user"),
    ("FROM", "from.user"),
    ("DEAD SINCE", "dead_ms"),
    ("BYTES", "body_bytes"),
    ("REASON", "reason"),
];
const ACTORS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("PHASE", "phase"),
    ("DEPTH", "depth"),
    ("MAX", "depth_max"),
    ("RATE", "rate_per_s"),
    ("RESTARTS", "restarts"),
    ("BLOCKED MS", "blocked_ms"),
    ("LAST EXIT", "last_exit"),
];
const CRASHES: &[Column] = &[
    ("NUMBER", "number"),
    ("AT", "at_ms"),
    ("ACTOR", "name"),
    ("REASON", "reason"),
];
const AUDIT: &[Column] = &[
    ("NUMBER", "number"),
    ("AT", "at_ms"),
    ("WHO", "who"),
    ("ROLE", "role"),
    ("ACTION", "action"),
    ("TARGET", "target"),
    ("OUTCOME", "outcome"),
    ("REASON", "reason"),
];
const TOKENS: &[Column] = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("ROLE", "role"),
    ("EXPIRES", "expires_ms"),
];
const USER_TOKENS: &[Column] = &[
    ("ID", "id"),
    ("DEVICE", "device"),
    ("ISSUED", "issued_ms"),
    ("EXPIRES", "expires_ms"),
    ("STATE", "state"),
];
const CONNECTIONS: &[Column] = &[
    ("DEVICE", "device"),
    ("PEER", "peer"),
    ("SINCE", "since_ms"),
    ("FRAMES IN", "received_frames_count"),
    ("OUT", "sent_frames_count"),
    ("BYTES IN", "received_bytes"),
    ("OUT", "sent_bytes"),
    ("UNANSWERED", "unanswered_count"),
];
const BACKUPS: &[Column] = &[
    ("NAME", "name"),
    ("STATE", "state"),
    ("BYTES", "bytes"),
    ("MESSAGES", "messages_count"),
    ("FINISHED", "finished_ms"),
    ("ERROR", "error"),
];
const LIMITS: &[Column] = &[
    ("LIMIT", "name"),
    ("USED", "used"),
    ("MAX", "max"),
    ("SHARE", "share"),
];
const CONFIG: &[Column] = &[("KEY", "key"), ("VALUE", "value"), ("SOURCE", "source")];

/// A path with a query; what is absent is left out.
fn query(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut mark = '?';
    for (name, value) in pairs {
        if let Some(value) = value {
            text.push(mark);
            text += name;
            text.push('=');
            text += &escaped(value);
            mark = '&';
        }
    }
    text
}

/// Percent-encoded but for what has no meaning anywhere in an address.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

fn paged(path: &str, page: PageArgs) -> String {
    let limit = page.limit.map(|limit| limit.to_string());
    query(path, &[("limit", limit), ("after", page.after)])
}

impl Request {
    fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            body: Body::None,
            undoable: None,
            list: "",
            columns: &[],
        }
    }

    fn with(method: Method, path: impl Into<String>, body: Value) -> Self {
        Self {
            method,
            body: Body::Json(body),
            ..Self::get(path)
        }
    }

    fn post(path: impl Into<String>, body: Value) -> Self {
        Self::with(Method::POST, path, body)
    }

    fn list(path: impl Into<String>, list: &'static str, columns: &'static [Column]) -> Self {
        Self {
            list,
            columns,
            ..Self::get(path)
        }
    }

    fn undoable(self, what: impl Into<String>) -> Self {
        Self {
            undoable: Some(what.into()),
            ..self
        }
    }

    /// The request a command stands for.
    pub(crate) fn of(command: AdminCommand) -> Result<Self, Failure> {
        Ok(match command {
            AdminCommand::Whoami => Self::get("/whoami"),
            AdminCommand::Users {
                q,
                disabled,
                connected,
                page,
            } => {
                let text = |flag: Option<bool>| flag.map(|flag| flag.to_string());
                let path = query(
                    "/users",
                    &[
                        ("q", q),
                        ("disabled", text(disabled)),
                        ("connected", text(connected)),
                        ("limit", page.limit.map(|limit| limit.to_string())),
                        ("after", page.after),
                    ],
                );
                Self::list(path, "users", USERS)
            }
            AdminCommand::User { name } => Self::get(format!("/users/{name}")),
            AdminCommand::Connections { name } => {
                Self::list(format!("/users/{name}"), "connections", CONNECTIONS)
            }
            AdminCommand::UserTokens { name } => {
                Self::list(format!("/users/{name}/tokens"), "tokens", USER_TOKENS)
            }
            AdminCommand::Limits {
                name,
                messages_per_s,
                mailbox_messages_max,
                mailbox_bytes_max,
            } => {
                let limits = json!({
                    "messages_per_s": messages_per_s,
                    "mailbox_messages_max": mailbox_messages_max,
                    "mailbox_bytes_max": mailbox_bytes_max,
                });
                let path = format!("/users/{name}");
                Self::with(Method::PATCH, path, json!({"limits": limits}))
            }
            AdminCommand::Disconnect { name, device } => {
                let path = format!("/users/{name}/disconnect");
                Self::post(path, json!({"device": device}))
            }
            AdminCommand::Message { body, to, all } => {
                let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
                let to = if all {
                    json!({"all": true})
                } else {
                    json!({"users": to})
                };
                let request = Self::post("/service-messages", json!({"to": to, "body": body}));
                if all {
                    request.undoable("sends a message to every user")
                } else {
                    request
                }
            }
            AdminCommand::Mailbox(command) => Self::mailbox(command),
            AdminCommand::DeadLetters(command) => Self::dead_letters(command),
            AdminCommand::Actors(command) => Self::actors(command),
            AdminCommand::Crashes {
                number: Some(number),
                ..
            } => Self::get(format!("/crashes/{number}")),
            AdminCommand::Crashes { number: None, page } => {
                Self::list(paged("/crashes", page), "crashes", CRASHES)
            }
            AdminCommand::Events { kinds } => {
                let kinds = (!kinds.is_empty()).then(|| kinds.join(","));
                Self {
                    body: Body::Stream,
                    ..Self::get(query("/events", &[("kinds", kinds)]))
                }
            }
            AdminCommand::Log { filter: None, .. } => Self::get("/node/log"),
            AdminCommand::Log {
                filter: Some(filter),
                for_s,
            } => {
                let wanted = json!({"filter": filter, "for_s": for_s});
                Self::with(Method::PUT, "/node/log", wanted)
            }
            AdminCommand::Drain {
                retry_after_ms,
                deadline_ms,
            } => {
                let mut body = json!({});
                for (key, value) in [
                    ("retry_after_ms", retry_after_ms),
                    ("deadline_ms", deadline_ms),
                ] {
                    if let Some(value) = value {
                        body[key] = value.into();
                    }
                }
                Self::post("/node/drain", body).undoable("closes every connection to the node")
            }
            AdminCommand::Undrain => Self::post("/node/undrain", json!({})),
            AdminCommand::Audit { page } => Self::list(paged("/audit", page), "entries", AUDIT),
            AdminCommand::Tokens(command) => Self::tokens(command),
            AdminCommand::Backups => Self::list("/node/backups", "backups", BACKUPS),
            AdminCommand::Storage => Self::get("/node/storage"),
            AdminCommand::NodeLimits => Self::list("/node/limits", "limits", LIMITS),
            AdminCommand::NodeConfig => Self::list("/node/config", "config", CONFIG),
        })
    }

    fn mailbox(command: MailboxCommand) -> Self {
        let of = |name, rest: &str| format!("/users/{name}/mailbox{rest}");
        match command {
            MailboxCommand::Show { name } => Self::get(of(name, "")),
            MailboxCommand::Messages { name, page } => {
                Self::list(paged(&of(name, "/messages"), page), "messages", MESSAGES)
            }
            MailboxCommand::Purge {
                name,
                reason,
                up_to_seq,
            } => {
                let what = format!("throws away what waits for {name}, for good");
                let body = json!({"reason": reason, "up_to_seq": up_to_seq});
                Self::post(of(name, "/purge"), body).undoable(what)
            }
            MailboxCommand::Export { name, to } => Self {
                body: Body::Download(to),
                ..Self::get(of(name, "/export"))
            },
            MailboxCommand::Import { name, from } => Self {
                method: Method::POST,
                body: Body::Upload(from),
                ..Self::get(of(name, "/import"))
            },
            MailboxCommand::Top { by, limit } => {
                let limit = Some(limit.to_string());
                let path = query("/mailboxes/top", &[("by", Some(by)), ("limit", limit)]);
                Self::list(path, "mailboxes", MAILBOXES)
            }
        }
    }

    fn dead_letters(command: DeadLettersCommand) -> Self {
        match command {
            DeadLettersCommand::List { page } => {
                Self::list(paged("/dead-letters", page), "dead_letters", DEAD_LETTERS)
            }
            DeadLettersCommand::Show { number } => Self::get(format!("/dead-letters/{number}")),
            DeadLettersCommand::Replay { number } => {
                Self::post(format!("/dead-letters/{number}/replay"), json!({}))
            }
            DeadLettersCommand::Discard { number, reason } => Self {
                method: Method::DELETE,
                ..Self::get(query(
                    &format!("/dead-letters/{number}"),
                    &[("reason", reason)],
                ))
            }
            .undoable(format!("throws dead letter {number} away, for good")),
        }
    }

    fn actors(command: ActorsCommand) -> Self {
        let why = |reason: Option<String>| reason.map_or(json!({}), |why| json!({"reason": why}));
        match command {
            ActorsCommand::Top { by, limit } => {
                let limit = Some(limit.to_string());
                let path = query("/actors/top", &[("by", Some(by)), ("limit", limit)]);
                Self::list(path, "actors", ACTORS)
            }
            ActorsCommand::Show { id } => Self::get(format!("/actors/{id}")),
            ActorsCommand::Restart { id, reason } => {
                Self::post(format!("/actors/{id}/restart"), why(reason))
                    .undoable(format!("restarts actor {id}"))
            }
            ActorsCommand::Stop { id, reason } => {
                Self::post(format!("/actors/{id}/stop"), why(reason))
                    .undoable(format!("stops actor {id}"))
            }
        }
    }

    fn tokens(command: TokensCommand) -> Self {
        match command {
            TokensCommand::List => Self::list("/admin-tokens", "admin_tokens", TOKENS),
            TokensCommand::Add { name, role, ttl_s } => {
                let body = json!({"name": name, "role": role, "ttl_s": ttl_s});
                Self::post("/admin-tokens", body)
            }
            TokensCommand::Revoke { id } => Self {
                method: Method::DELETE,
                ..Self::get(format!("/admin-tokens/{}", escaped(&id)))
            }
            .undoable("voids an admin token"),
        }
    }
}
