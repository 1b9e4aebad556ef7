//! The API's own document (OpenAPI 3.1), made from the code: paths, parameters
//! and bodies from each handler's annotations, roles from the operations.
//!
//! What holds for all operations (credentials, refusals) is added here rather
//! than written at each.

use std::sync::OnceLock;

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::caller::Role;
use super::operation::{Operation, get};
use super::problem::{CONTENT_TYPE_PROBLEM, ProblemDetails};
use super::{
    access, actor_tree, actors, audit, backups, control, crashes, dead_letters, directory,
    docs_page, events, history, issued_tokens, log_filter, mailboxes, node, service_messages,
    session, users,
};

/// A module of the API: what it answers, and what it says of that.
struct Part {
    operations: fn() -> Vec<Operation>,
    api: fn() -> utoipa::openapi::OpenApi,
}

macro_rules! parts {
    ($($module:ident),+ $(,)?) => {
        /// All modules. One that is missing here is not mounted.
        const PARTS: &[Part] = &[$(Part {
            operations: $module::operations,
            api: $module::Api::openapi,
        }),+, Part { operations: own_operations, api: Api::openapi }];
    };
}

parts!(
    access,
    actor_tree,
    actors,
    audit,
    backups,
    control,
    crashes,
    dead_letters,
    directory,
    docs_page,
    events,
    history,
    issued_tokens,
    log_filter,
    mailboxes,
    node,
    service_messages,
    session,
    users
);

/// Everything that can be asked below `/admin/v1`.
pub(super) fn operations() -> Vec<Operation> {
    PARTS.iter().flat_map(|part| (part.operations)()).collect()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stonechat admin API",
        description = "Looks into a node and steers it. Send `Authorization: Bearer` with the content of \
            `<data-dir>/admin.secret` or an admin token. Lists take `after` and `limit` and give `next`. \
            Refusals are problem details (RFC 9457) with a stable `code`. Each operation names the least \
            role as `x-role` and its name in the audit log and in scopes as `x-action`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(document),
    components(schemas(ProblemDetails)),
    servers((url = "/admin/v1")),
    tags(
        (name = "access", description = "Who may do what, and who did"),
        (name = "users", description = "Accounts, their tokens, devices and connections"),
        (name = "mailboxes", description = "What waits for users"),
        (name = "dead letters", description = "Messages whose handling kept failing"),
        (name = "actors", description = "The supervision tree"),
        (name = "events", description = "What happens, as it happens"),
        (name = "node", description = "The node itself"),
    ),
)]
struct Api;

/// Refusals any operation may answer.
const REFUSALS: [(&str, &str); 7] = [
    ("400", "The request cannot be understood"),
    ("401", "No credential, or not a right one"),
    ("403", "The credential does not allow this"),
    ("413", "The body is too large"),
    (
        "429",
        "Too many requests; Retry-After says when to come back",
    ),
    ("500", "The server failed; its log says why"),
    (
        "503",
        "Not at the moment; Retry-After says when to come back",
    ),
];

/// The document as JSON.
pub(super) fn rendered(version: &str) -> Value {
    let mut api = Api::openapi();
    version.clone_into(&mut api.info.version);
    for part in &PARTS[..PARTS.len() - 1] {
        api.merge((part.api)());
    }
    let mut document = serde_json::to_value(&api).expect("a document is plain data");
    document["components"]["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer",
            "description": "The secret of the data directory, or an admin token"},
    });
    for one in operations() {
        let method = one.method.as_str().to_ascii_lowercase();
        let Some(described) = document["paths"]
            .get_mut(one.path)
            .and_then(|path| path.get_mut(&method))
            .and_then(Value::as_object_mut)
        else {
            // A test compares the two; a document with a gap is better than none.
            continue;
        };
        complete(described, &one);
    }
    document
}

fn complete(described: &mut Map<String, Value>, one: &Operation) {
    described.insert("operationId".to_owned(), one.rule.action.into());
    described.insert("x-action".to_owned(), one.rule.action.into());
    described.insert("x-audited".to_owned(), one.rule.audited.into());
    if let Some(role) = one.rule.role {
        described.insert("x-role".to_owned(), role.name().into());
        described.insert("security".to_owned(), json!([{"bearer": []}]));
    }
    let parameters = described
        .get_mut("parameters")
        .and_then(Value::as_array_mut);
    for parameter in parameters.into_iter().flatten() {
        for (name, example) in [("user", "alice"), ("device", "phone")] {
            if parameter["name"] == name && parameter["in"] == "path" {
                parameter["example"] = example.into();
            }
        }
    }
    let named = one.path.contains('{');
    let responses = described
        .entry("responses")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .expect("responses are an object");
    let mut refusals = REFUSALS.to_vec();
    if named {
        refusals.push(("404", "There is nothing of this name"));
    }
    if one.rule.writes {
        refusals.push(("409", "Not as things are; the code says why"));
    }
    for (status, description) in refusals {
        responses
            .entry(status)
            .or_insert_with(|| json!({ "description": description }));
    }
    for (status, response) in responses.iter_mut() {
        // A handler says when it refuses; how refusals look is the same everywhere.
        if status.as_str() >= "400" && response.get("content").is_none() {
            response["content"] = json!({
                CONTENT_TYPE_PROBLEM: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}},
            });
        }
    }
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "node",
    responses((status = 200, body = Object, description = "OpenAPI 3.1")))]
async fn document(state: super::Shared) -> HttpResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| rendered(state.parts.version).to_string());
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/json"))
        .body(text.as_str())
}

fn own_operations() -> Vec<Operation> {
    vec![get("/openapi.json", Role::Viewer, "node.openapi", document)]
}
