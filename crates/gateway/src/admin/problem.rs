//! Errors as RFC 9457 problem details. Every refusal of the admin API has a
//! `code` that programs can rely on and a `detail` that says what to do.

use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use stonechat_mailbox::{BackupError, StoreError};
use stonechat_protocol::IdError;
use utoipa::ToSchema;

use crate::auth::AccountError;

/// Media type of problem details.
pub(super) const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// The code of the problem that a response is, kept with the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub(super) &'static str);

/// A refusal, as RFC 9457 has it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProblemDetails {
    /// `urn:stonechat:problem:` and the code.
    r#type: String,
    /// The status in words.
    title: String,
    /// The status.
    status: u16,
    /// What programs can rely on.
    #[schema(example = "unknown_user")]
    code: String,
    /// What is wrong and what to do, for people.
    detail: String,
}

/// A refused request.
#[derive(Debug, thiserror::Error)]
#[error("{code}: {detail}")]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after_s: None,
        }
    }

    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn not_found(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail)
    }

    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// For whoever brings no right credential.
    pub(super) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "send an admin token, or the secret in <data-dir>/admin.secret, as Authorization: Bearer",
        )
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// For refusals that come from the HTTP layer itself.
    pub(super) fn of_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => (
                "not_found",
                "there is nothing here; docs/operations.md lists the admin API",
            ),
            StatusCode::METHOD_NOT_ALLOWED => (
                "method_not_allowed",
                "this address does not take this method",
            ),
            status if status.is_client_error() => {
                ("bad_request", "the request cannot be understood")
            }
            _ => ("internal", "the server failed; its log says why"),
        };
        Self::new(status, code, detail)
    }

    pub(super) fn answer(&self) -> HttpResponse {
        let mut answer = HttpResponseBuilder::new(self.status);
        answer.content_type(CONTENT_TYPE_PROBLEM);
        if let Some(seconds) = self.retry_after_s {
            answer.insert_header((RETRY_AFTER, seconds.to_string()));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            answer.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        let details = ProblemDetails {
            r#type: format!("urn:stonechat:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone(),
        };
        let body = serde_json::to_string(&details).expect("text and a number");
        let mut answer = answer.body(body);
        answer.extensions_mut().insert(Code(self.code));
        answer
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.answer()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::UnknownUser(_) => Self::not_found("unknown_user", error.to_string()),
            StoreError::NotFound(_) => Self::not_found("not_found", error.to_string()),
            StoreError::Unavailable(why) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "storage_unavailable",
                why.to_string(),
            )
            .retry_after(5),
            StoreError::Overloaded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                error.to_string(),
            )
            .retry_after(1),
            StoreError::TooManyDevices { .. } | StoreError::TooLarge(_) => {
                Self::new(StatusCode::CONFLICT, "limit_reached", error.to_string())
            }
            StoreError::Backup(BackupError::Busy) => {
                Self::new(StatusCode::CONFLICT, "backup_running", error.to_string())
            }
            StoreError::Backup(BackupError::Exists(_)) => {
                Self::new(StatusCode::CONFLICT, "backup_exists", error.to_string())
            }
            error => {
                tracing::error!(%error, "the store failed to serve the admin API; look at the disk");
                Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        let detail = error.to_string();
        let conflict = StatusCode::CONFLICT;
        match error {
            AccountError::UnknownUser(_) => Self::not_found("unknown_user", detail),
            AccountError::TokenId => Self::not_found("unknown_token", detail),
            AccountError::Ttl { .. } => Self::bad_request("bad_ttl", detail),
            AccountError::Disabled(_) => Self::new(conflict, "user_disabled", detail),
            AccountError::TooManyKeys(_) => Self::new(conflict, "too_many_keys", detail),
            AccountError::TooManyRevoked(_) => Self::new(conflict, "too_many_revoked", detail),
            AccountError::Store(error) => error.into(),
            AccountError::Damaged { .. } | AccountError::Random(_) => {
                tracing::error!(%error, "an account or token could not be changed");
                Self::of_status(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl From<IdError> for Problem {
    fn from(error: IdError) -> Self {
        Self::bad_request("bad_name", error.to_string())
    }
}
