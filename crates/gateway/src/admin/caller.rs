//! Who asks: a name and a role, whichever credential brought them.
//!
//! The guard makes a [`Caller`] for each request it lets through; handlers take
//! it as a parameter when they want to know. It checks no credential itself.

use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;

/// What somebody may do. Each role may do everything the ones before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    /// Looks at everything but message bodies.
    Viewer,
    /// Keeps a node running: disconnects, disables, revokes, drains, restarts actors.
    Operator,
    /// Everything: users, tokens, keys, backups, other admins.
    Admin,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What kind of credential somebody brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Via {
    /// The secret in the data directory.
    Secret,
    /// An admin token.
    Token,
    /// A session of the dashboard.
    Cookie,
}

/// What a handler has to say for the audit log.
#[derive(Debug, Default)]
pub(super) struct Note {
    pub(super) target: Option<String>,
    pub(super) reason: Option<String>,
}

/// Somebody who was let in.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Who, as the audit log names them.
    pub(super) name: Arc<str>,
    /// What they may do.
    pub(super) role: Role,
    /// Tells one credential from another: rates are counted by it. No secret.
    pub(super) id: Arc<str>,
    /// What they brought.
    pub(super) via: Via,
    /// When the credential expires, milliseconds since the Unix epoch; the secret does not.
    pub(super) expires_ms: Option<u64>,
    /// Only these actions, or groups of them ("users" for all that begin with "users.");
    /// `None`: whatever the role allows.
    pub(super) scope: Option<Arc<[String]>>,
    /// The dashboard's session it came by.
    pub(super) session: Option<super::session::Name>,
    /// Where the request came from.
    pub(super) peer: Option<SocketAddr>,
    note: Arc<Mutex<Note>>,
}

impl Caller {
    pub(super) fn new(name: &str, role: Role, id: &str, via: Via) -> Self {
        Self {
            name: name.into(),
            role,
            id: id.into(),
            via,
            expires_ms: None,
            scope: None,
            session: None,
            peer: None,
            note: Arc::default(),
        }
    }

    /// Refuses whoever has less than `role`. For handlers of which a part takes more than the
    /// whole; what the whole takes the guard has checked.
    pub(super) fn require(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        Err(forbidden(format!(
            "this takes the role {}; {} has the role {}",
            role.name(),
            self.name,
            self.role.name()
        )))
    }

    /// Refuses an action the credential is not for.
    pub(super) fn require_scope(&self, action: &str) -> Result<(), Problem> {
        let Some(scope) = &self.scope else {
            return Ok(());
        };
        let covered = |entry: &String| {
            let rest = action.strip_prefix(entry.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if scope.iter().any(covered) {
            return Ok(());
        }
        let scope = scope.join(", ");
        Err(forbidden(format!(
            "{action} is beyond the scope of this token ({scope})"
        )))
    }

    /// Tells the audit log what the request was about, when the path does not.
    pub(super) fn target(&self, target: impl Into<String>) {
        self.note.lock().target = Some(target.into());
    }

    /// Tells the audit log why, as the request gave it.
    pub(super) fn reason(&self, reason: impl Into<String>) {
        self.note.lock().reason = Some(reason.into());
    }

    /// What was said for the audit log.
    pub(super) fn take_note(&self) -> Note {
        std::mem::take(&mut *self.note.lock())
    }
}

fn forbidden(detail: String) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        // Nobody gets past the guard without one, except where everybody may.
        ready(caller.ok_or_else(Problem::unauthorized))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_include_the_ones_below() {
        let caller = |role| Caller::new("x", role, "x", Via::Token);
        for (has, needs, may) in [
            (Role::Viewer, Role::Viewer, true),
            (Role::Viewer, Role::Operator, false),
            (Role::Operator, Role::Viewer, true),
            (Role::Operator, Role::Admin, false),
            (Role::Admin, Role::Operator, true),
        ] {
            assert_eq!(caller(has).require(needs).is_ok(), may, "{has:?} {needs:?}");
        }
    }

    #[test]
    fn a_scope_covers_actions_and_groups_of_them() {
        let mut caller = Caller::new("x", Role::Admin, "x", Via::Token);
        assert!(caller.require_scope("users.list").is_ok());
        caller.scope = Some(vec!["users".to_owned(), "node.show".to_owned()].into());
        assert!(caller.require_scope("users.list").is_ok());
        assert!(caller.require_scope("node.show").is_ok());
        for beyond in ["users_other.list", "node.drain", "node.show_all", "user"] {
            assert!(caller.require_scope(beyond).is_err(), "{beyond}");
        }
    }
}
