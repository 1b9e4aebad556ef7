//! Roles, admin tokens, rates and the audit log.

use std::collections::BTreeSet;

use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use serde_json::{Value, json};

use super::caller::Role;
use super::*;

impl World {
    /// A token made through the API.
    async fn token(&self, name: &str, body: Value) -> (String, String) {
        let mut body = body;
        body["name"] = name.into();
        let made = self.expect("POST", "/admin-tokens", body, 201).await.json();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("id"), text("token"))
    }

    /// A request with another credential than the secret; none for `""`.
    async fn call_as(&self, bearer: &str, method: &str, path: &str, body: Value) -> Answer {
        let mut request = TestRequest::with_uri(&format!("/admin/v1{path}"))
            .method(Method::from_bytes(method.as_bytes()).unwrap());
        if !bearer.is_empty() {
            request = request.insert_header(("authorization", format!("Bearer {bearer}")));
        }
        if !body.is_null() {
            request = request.set_payload(body.to_string());
        }
        self.request(request).await
    }

    async fn audit(&self) -> Vec<Value> {
        let page = self.expect("GET", "/audit", NONE, 200).await.json();
        page["entries"].as_array().unwrap().clone()
    }
}

/// Every operation as the document has it: method, path, least role.
fn documented() -> Vec<(String, String, Option<Role>)> {
    let document = openapi::rendered("1.2.3");
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            let role = serde_json::from_value(described["x-role"].clone()).unwrap();
            all.push((method.to_uppercase(), path.clone(), role));
        }
    }
    all
}

#[test]
fn the_document_and_what_is_mounted_are_the_same() {
    let documented: BTreeSet<_> = documented()
        .into_iter()
        .map(|(method, path, _)| (method, path))
        .collect();
    let mounted: BTreeSet<_> = openapi::operations()
        .iter()
        .map(|one| (one.method.to_string(), one.path.to_owned()))
        .collect();
    assert_eq!(documented, mounted);
    let document = openapi::rendered("1.2.3");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], "1.2.3");
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        let schema = &document["components"]["schemas"][name];
        assert!(schema.is_object(), "{name} is referred to and not there");
    }
}

/// Looking takes a viewer, and more only where it says so here.
#[test]
fn looking_is_for_everybody_and_the_rest_for_few() {
    const MORE: &[(&str, Role)] = &[
        ("/dead-letters/{number}", Role::Operator),
        ("/admin-tokens", Role::Admin),
        ("/users/{user}/mailbox/export", Role::Admin),
    ];
    for one in openapi::operations() {
        let Some(role) = one.rule.role else { continue };
        let what = format!("{} {}", one.method, one.path);
        if one.method == Method::GET {
            let more = MORE.iter().find(|(path, _)| *path == one.path);
            let expected = more.map_or(Role::Viewer, |(_, role)| *role);
            assert_eq!(role, expected, "{what}");
        } else {
            assert!(one.rule.audited && one.rule.writes, "{what}");
            // The session of the dashboard is everybody's own.
            assert!(role > Role::Viewer || one.path == "/session", "{what}");
        }
    }
}

#[actix_web::test]
async fn every_operation_asks_for_its_role() {
    let world = World::new(true).await;
    let mut tokens = Vec::new();
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let (_, token) = world.token(role.name(), json!({"role": role.name()})).await;
        tokens.push((role, token));
    }
    for (method, path, needed) in documented() {
        let Some(needed) = needed else { continue };
        let path = path
            .split('/')
            .map(|part| if part.starts_with('{') { "7" } else { part })
            .collect::<Vec<_>>()
            .join("/");
        // A stream of events would go on.
        let path = path.replace("/events", "/events?wait=false");
        let what = format!("{method} {path}");
        let nobody = world.call_as("", &method, &path, NONE).await;
        assert!(
            matches!(
                nobody.problem().as_str(),
                "unauthorized" | "too_many_failures"
            ),
            "{what}: {}",
            nobody.text
        );
        for (role, token) in &tokens {
            // What is let through must not do anything: a body of nonsense.
            let answer = world
                .call_as(token, &method, &path, json!("nonsense"))
                .await;
            if *role >= needed {
                let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
                assert!(!refused.contains(&answer.status), "{what} {role:?}");
            } else {
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what} {role:?}");
                assert_eq!(answer.problem(), "forbidden");
                assert!(answer.text.contains(needed.name()), "{}", answer.text);
            }
        }
    }
    world.end().await;
}

#[actix_web::test]
async fn admin_tokens_open_until_they_are_revoked_or_expire() {
    let world = World::new(false).await;
    let (id, token) = world
        .token("ann", json!({"role": "operator", "ttl_s": 60}))
        .await;
    let me = world.call_as(&token, "GET", "/whoami", NONE).await.json();
    assert_eq!(
        (&me["name"], &me["role"], &me["via"]),
        (&json!("ann"), &json!("operator"), &json!("token"))
    );
    assert!(me["expires_ms"].as_u64().unwrap() > 1_600_000_000_000);
    let secret = world.expect("GET", "/whoami", NONE, 200).await.json();
    assert_eq!(
        (&secret["name"], &secret["role"]),
        (&json!("secret"), &json!("admin"))
    );

    // Not the token, not its id alone, nor a part of it, nor with anything more.
    for wrong in [
        &token[..token.len() - 1],
        &format!("{token}x"),
        &format!("sa1.{id}."),
        &id,
    ] {
        let answer = world.call_as(wrong, "GET", "/whoami", NONE).await;
        assert_eq!(answer.problem(), "unauthorized", "{wrong}");
    }
    world
        .expect_problem(
            "POST",
            "/admin-tokens",
            json!({"name": "ann", "role": "viewer"}),
            409,
            "name_taken",
        )
        .await;
    for (body, code) in [
        (json!({"name": "", "role": "viewer"}), "bad_name"),
        (json!({"name": "a\nb", "role": "viewer"}), "bad_name"),
        (json!({"name": "secret", "role": "viewer"}), "bad_name"),
        (json!({"name": "x", "role": "root"}), "bad_json"),
        (
            json!({"name": "x", "role": "viewer", "ttl_s": 0}),
            "bad_ttl",
        ),
        (
            json!({"name": "x", "role": "viewer", "scope": []}),
            "bad_scope",
        ),
        (
            json!({"name": "x", "role": "viewer", "scope": ["user"]}),
            "bad_scope",
        ),
    ] {
        world
            .expect_problem("POST", "/admin-tokens", body, 400, code)
            .await;
    }

    // What is stored does not give the token away, and is there after a restart.
    let stored = world.store.values("admin/").await.unwrap();
    let secret_part = token.rsplit('.').next().unwrap().as_bytes();
    assert!(stored.iter().all(|(_, value)| {
        !value
            .windows(secret_part.len())
            .any(|part| part == secret_part)
    }));
    let again = AdminTokens::open(Arc::clone(&world.store)).await.unwrap();
    assert!(again.verify(token.as_bytes(), now_ms()).is_some());
    assert!(again.verify(token.as_bytes(), now_ms() + 61_000).is_none());

    let path = format!("/admin-tokens/{id}");
    world.expect("DELETE", &path, NONE, 204).await;
    assert_eq!(
        world
            .call_as(&token, "GET", "/whoami", NONE)
            .await
            .problem(),
        "unauthorized"
    );
    world.expect("DELETE", &path, NONE, 204).await;
    world
        .expect_problem("DELETE", "/admin-tokens/x", NONE, 404, "unknown_token")
        .await;
    let again = AdminTokens::open(Arc::clone(&world.store)).await.unwrap();
    assert!(again.verify(token.as_bytes(), now_ms()).is_none());
    let listed = world.expect("GET", "/admin-tokens", NONE, 200).await;
    assert!(
        !listed
            .text
            .contains(std::str::from_utf8(secret_part).unwrap())
    );
    let listed = listed.json();
    assert_eq!(listed["admin_tokens"][0]["good"], false);
    // The name is free again.
    world.token("ann", json!({"role": "viewer"})).await;
    world.end().await;
}

#[actix_web::test]
async fn admin_tokens_are_bounded() {
    let world = World::new(false).await;
    let tokens = &world.state.parts.tokens;
    let wanted = |name: String| tokens::Wanted {
        name,
        role: Role::Viewer,
        scope: None,
        ttl_s: 10,
    };
    let bound = tokens::TOKENS_MAX;
    for n in 0..bound {
        tokens.issue(wanted(n.to_string()), 1_000).await.unwrap();
    }
    let error = tokens.issue(wanted("more".to_owned()), 1_000).await;
    assert!(matches!(error, Err(AdminTokenError::TooMany(_))));
    // Revoked ones make room, and are themselves kept only so long.
    for (id, _) in tokens.list() {
        tokens.revoke(&id, 2_000).await.unwrap();
    }
    for n in 0..bound {
        tokens.issue(wanted(n.to_string()), 2_000).await.unwrap();
    }
    assert_eq!(tokens.list().len(), 2 * bound);
    let (id, ..) = tokens.list().swap_remove(2 * bound - 1);
    tokens.revoke(&id, 3_000).await.unwrap();
    tokens.issue(wanted("new".to_owned()), 3_000).await.unwrap();
    assert_eq!(tokens.list().len(), 2 * bound);
    tokens
        .issue(wanted("late".to_owned()), 100_000)
        .await
        .unwrap();
    assert_eq!(tokens.list().len(), 1);
    assert_eq!(world.store.values("admin/token/").await.unwrap().len(), 1);
    world.end().await;
}

#[actix_web::test]
async fn a_scope_narrows_a_token() {
    let world = World::new(false).await;
    let scope = json!({"role": "admin", "scope": ["users", "node.show"]});
    let (_, token) = world.token("script", scope).await;
    let bob = json!({"user": "bob"});
    assert_eq!(
        world.call_as(&token, "POST", "/users", bob).await.status,
        201
    );
    assert_eq!(
        world.call_as(&token, "GET", "/node", NONE).await.status,
        200
    );
    for (method, path) in [
        ("POST", "/admin-tokens"),
        ("POST", "/users/bob/tokens"),
        ("GET", "/audit"),
    ] {
        let answer = world.call_as(&token, method, path, NONE).await;
        assert_eq!(answer.problem(), "forbidden", "{method} {path}");
    }
    world.end().await;
}

#[actix_web::test]
async fn whoever_asks_too_often_is_told_to_wait() {
    let world = World::new(false).await;
    let (_, token) = world.token("busy", json!({"role": "viewer"})).await;
    let (_, other) = world.token("other", json!({"role": "viewer"})).await;
    let mut refused = None;
    for _ in 0..20_000 {
        let answer = world.call_as(&token, "GET", "/whoami", NONE).await;
        if answer.status != StatusCode::OK {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the rate has a limit");
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.problem(), "rate_limited");
    assert_eq!(refused.retry_after, "1");
    assert_eq!(
        world.call_as(&other, "GET", "/whoami", NONE).await.status,
        200
    );
    world.expect("GET", "/whoami", NONE, 200).await;
    world.end().await;
}

#[actix_web::test]
async fn the_audit_log_has_every_write_and_no_secret() {
    let world = World::new(false).await;
    let (_, viewer) = world.token("vic", json!({"role": "viewer"})).await;
    world
        .expect("POST", "/users", json!({"user": "bob"}), 201)
        .await;
    let issued = world
        .expect("POST", "/users/bob/tokens", json!({"device": "phone"}), 201)
        .await
        .json();
    world.call_as(&viewer, "DELETE", "/users/bob", NONE).await;
    world.expect("DELETE", "/users/nobody", NONE, 404).await;
    world.expect("GET", "/users", NONE, 200).await;
    let evil = "x\n{\"number\":99,\"who\":\"ann\"}";
    world
        .expect("POST", "/users", json!({"user": evil}), 400)
        .await;
    let entries = world.audit().await;
    let lines: Vec<String> = entries
        .iter()
        .rev()
        .map(|entry| {
            let text = |field: &str| entry[field].as_str().unwrap().to_owned();
            format!(
                "{} {} {} {} {}",
                text("who"),
                text("role"),
                text("action"),
                text("target"),
                text("outcome")
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "secret admin admin_tokens.issue vic (viewer) ok".to_owned(),
            "secret admin users.create bob ok".to_owned(),
            "secret admin tokens.issue bob ok".to_owned(),
            "vic viewer users.remove bob forbidden".to_owned(),
            "secret admin users.remove nobody unknown_user".to_owned(),
            format!("secret admin users.create {evil} bad_name"),
        ]
    );
    let file = std::fs::read_to_string(world.state.parts.data_dir.join("audit.ndjson")).unwrap();
    assert_eq!(file.lines().count(), 6, "{file}");
    for secret in [
        world.state.parts.secret.expose(),
        &viewer,
        issued["token"].as_str().unwrap(),
    ] {
        assert!(!file.contains(secret.rsplit('.').next().unwrap()));
    }
    let page = world
        .expect("GET", "/audit?limit=2", NONE, 200)
        .await
        .json();
    assert_eq!(page["entries"][0]["number"], 6);
    assert_eq!(page["next"], "5");
    let page = world
        .expect("GET", "/audit?after=5&limit=9", NONE, 200)
        .await
        .json();
    assert_eq!(page["entries"].as_array().unwrap().len(), 4);
    assert_eq!(page["next"], NONE);
    world.end().await;
}

#[actix_web::test]
async fn whoever_may_do_nothing_cannot_push_entries_out() {
    let world = World::new(false).await;
    let (_, viewer) = world.token("vic", json!({"role": "viewer"})).await;
    for _ in 0..100 {
        world.call_as(&viewer, "DELETE", "/users/bob", NONE).await;
    }
    let entries = world.audit().await;
    assert!(entries.len() < 20, "{}", entries.len());
    assert_eq!(entries.last().unwrap()["action"], "admin_tokens.issue");
    world.end().await;
}

#[actix_web::test]
async fn a_client_that_hangs_up_is_in_the_audit_log() {
    let world = World::new(false).await;
    let caller = Caller::new("ann", Role::Admin, "x", Via::Token);
    let pending = world
        .state
        .audit
        .begin(&caller, "users.remove", "bob".to_owned());
    drop(pending);
    assert_eq!(world.audit().await[0]["outcome"], "cut_off");
    world.end().await;
}

#[actix_web::test]
async fn the_router_and_the_guard_agree_on_paths() {
    let world = World::new(false).await;
    let (_, viewer) = world.token("vic", json!({"role": "viewer"})).await;
    // Encoded and dotted ways to what a viewer may not do.
    for path in [
        "/%6beys/rotate",
        "/keys/%72otate",
        "/users/../keys/rotate",
        "/users/%2e%2e/keys/rotate",
        "//keys/rotate",
        "/keys/rotate/",
        "/keys%2Frotate",
    ] {
        let answer = world.call_as(&viewer, "POST", path, json!({})).await;
        let status = answer.status.as_u16();
        assert!(matches!(status, 403..=405), "{path}: {}", answer.text);
    }
    let mut two = TestRequest::get().uri("/admin/v1/whoami");
    for bearer in [world.state.parts.secret.expose(), "wrong"] {
        two = two.append_header(("authorization", format!("Bearer {bearer}")));
    }
    assert_eq!(world.request(two).await.problem(), "unauthorized");
    world.end().await;
}
