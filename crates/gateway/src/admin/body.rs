//! What requests carry: bodies, pages, names in paths. Bounded and checked, with
//! problems that say what is wrong.

use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::str::FromStr;

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::{FromRequest, HttpRequest};
use futures_util::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use stonechat_protocol::{DeviceId, IdError, UserId};

use super::BODY_BYTES_MAX;
use super::problem::Problem;

/// A JSON body. An empty one counts as `{}`.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(_: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let mut payload = payload.take();
        Box::pin(async move {
            let mut bytes = Vec::new();
            while let Some(chunk) = payload.next().await {
                let chunk = chunk
                    .map_err(|error| Problem::bad_request("bad_request", error.to_string()))?;
                if bytes.len() + chunk.len() > BODY_BYTES_MAX {
                    return Err(Problem::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "too_large",
                        format!("a body has at most {BODY_BYTES_MAX} bytes"),
                    ));
                }
                bytes.extend_from_slice(&chunk);
            }
            let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
            serde_json::from_slice(text)
                .map(Self)
                .map_err(|error| Problem::bad_request("bad_json", error.to_string()))
        })
    }
}

/// Which part of a list: `?after=…&limit=…`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// What an earlier page gave as `next`.
    after: Option<String>,
    /// Entries at most: 100 when absent, 1,000 at most.
    #[param(minimum = 1, maximum = 1_000)]
    limit: Option<usize>,
}

/// Entries of a page when nothing else is asked for.
const PAGE_DEFAULT: usize = 100;
/// Entries of a page at most.
const PAGE_MAX: usize = 1_000;

impl FromRequest for Page {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(query(request))
    }
}

/// What a query says, or what is wrong with it.
pub(super) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Problem> {
    let query = actix_web::web::Query::<T>::from_query(request.query_string());
    query
        .map(actix_web::web::Query::into_inner)
        .map_err(|error| Problem::bad_request("bad_query", error.to_string()))
}

impl Page {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX)
    }

    pub(super) fn after<T: FromStr>(&self) -> Result<Option<T>, Problem> {
        let after = self.after.as_deref().filter(|text| !text.is_empty());
        after.map(str::parse).transpose().map_err(|_| {
            Problem::bad_request("bad_query", "after is what an earlier page gave as next")
        })
    }
}

/// A named part of the path.
pub(super) fn segment<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    request.match_info().query(name)
}

/// The user the path names.
pub(super) fn user(request: &HttpRequest) -> Result<UserId, IdError> {
    UserId::new(segment(request, "user"))
}

/// The device the path names.
pub(super) fn device(request: &HttpRequest) -> Result<DeviceId, IdError> {
    DeviceId::new(segment(request, "device"))
}
