//! The API's document as a page to browse: one file of this binary, which asks
//! the node for the document and shows it. It has no data of its own, so anybody
//! may have it; the document takes a credential.

use actix_web::HttpResponse;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use utoipa::OpenApi;

use super::caller::Role;
use super::operation::{Operation, get};

const PAGE: &str = include_str!("docs_page.html");
const SCRIPT: &str = include_str!("docs_page.js");
/// Nothing from elsewhere, no script but our own file, nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn answer(kind: &'static str, body: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .body(body)
}

/// This API as a page to browse
#[utoipa::path(get, path = "/docs", tag = "node",
    responses((status = 200, content_type = "text/html", body = String)))]
async fn page() -> HttpResponse {
    answer("text/html; charset=utf-8", PAGE)
}

/// What that page runs
#[utoipa::path(get, path = "/docs.js", tag = "node",
    responses((status = 200, content_type = "text/javascript", body = String)))]
async fn script() -> HttpResponse {
    answer("text/javascript; charset=utf-8", SCRIPT)
}

#[derive(OpenApi)]
#[openapi(paths(page, script))]
pub(super) struct Api;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        get("/docs", Role::Viewer, "docs.page", page).open(),
        get("/docs.js", Role::Viewer, "docs.script", script).open(),
    ]
}
