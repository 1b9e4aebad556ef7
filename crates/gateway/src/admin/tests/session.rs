//! Signing in to the dashboard, and what a session may do.

use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::test::TestRequest;
use serde_json::{Value, json};

use super::*;

/// A browser: it keeps the cookie and what the page knows.
struct Browser<'a> {
    world: &'a World,
    cookie: String,
    csrf: String,
}

async fn send(world: &World, request: TestRequest) -> ServiceResponse {
    let app = App::new()
        .wrap(ErrorHandlers::new().default_handler(as_problem))
        .app_data(world.state.clone())
        .configure(routes);
    let service = init_service(app).await;
    call_service(&service, request.to_request())
        .await
        .map_into_boxed_body()
}

impl<'a> Browser<'a> {
    async fn sign_in(world: &'a World, token: &str) -> Result<Self, (StatusCode, String)> {
        let request = TestRequest::post()
            .uri("/admin/v1/session")
            .set_payload(json!({"token": token}).to_string());
        let answer = send(world, request).await;
        let status = answer.status();
        let header = answer.headers().get("set-cookie").cloned();
        let body: Bytes = read_body(answer).await;
        let body: Value = serde_json::from_slice(&body).unwrap();
        if status != StatusCode::OK {
            assert!(header.is_none());
            return Err((status, body["code"].as_str().unwrap().to_owned()));
        }
        let header = header.unwrap().to_str().unwrap().to_owned();
        for part in [
            "HttpOnly",
            "SameSite=Strict",
            "Path=/admin",
            "Max-Age=43200",
        ] {
            assert!(header.contains(part), "{header}");
        }
        assert!(!header.contains(token));
        Ok(Self {
            world,
            cookie: header.split(';').next().unwrap().to_owned(),
            csrf: body["csrf"].as_str().unwrap().to_owned(),
        })
    }

    fn request(&self, method: &str, path: &str) -> TestRequest {
        TestRequest::with_uri(&format!("/admin/v1{path}"))
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .insert_header(("cookie", self.cookie.clone()))
    }

    async fn call(&self, method: &str, path: &str) -> Answer {
        let request = self
            .request(method, path)
            .insert_header(("x-csrf-token", self.csrf.clone()));
        self.world.request(request).await
    }
}

impl World {
    async fn operator(&self, name: &str) -> (String, String) {
        let body = json!({"name": name, "role": "operator"});
        let made = self.expect("POST", "/admin-tokens", body, 201).await.json();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        (text("id"), text("token"))
    }
}

#[actix_web::test]
async fn a_token_becomes_a_session_and_the_session_ends() {
    let world = World::new(false).await;
    let (_, token) = world.operator("ann").await;
    let browser = Browser::sign_in(&world, &token).await.unwrap();
    let me = browser.call("GET", "/whoami").await.json();
    assert_eq!(
        (&me["name"], &me["role"], &me["via"]),
        (&json!("ann"), &json!("operator"), &json!("cookie"))
    );
    let session = browser.call("GET", "/session").await.json();
    assert_eq!(session["csrf"], browser.csrf);
    // The role is the token's.
    let answer = browser.call("POST", "/keys/rotate").await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem()),
        (403, "forbidden".to_owned())
    );

    assert_eq!(
        browser.call("DELETE", "/session").await.status,
        StatusCode::NO_CONTENT
    );
    let answer = browser.call("GET", "/whoami").await;
    assert_eq!(answer.problem(), "unauthorized");
    // Nobody signed in is an answer, not a failure.
    assert_eq!(
        browser.call("GET", "/session").await.status,
        StatusCode::NO_CONTENT
    );
    let log = world.expect("GET", "/audit", NONE, 200).await.json();
    let actions: Vec<_> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["action"].clone())
        .collect();
    assert!(actions.contains(&json!("session.open")) && actions.contains(&json!("session.close")));
    world.end().await;
}

#[actix_web::test]
async fn writes_of_a_session_need_what_only_its_page_knows() {
    let world = World::new(false).await;
    let secret = world.state.parts.secret.expose().to_owned();
    let browser = Browser::sign_in(&world, &secret).await.unwrap();
    let other = Browser::sign_in(&world, &secret).await.unwrap();
    world
        .expect("POST", "/users", json!({"user": "bob"}), 201)
        .await;
    for csrf in [None, Some(""), Some("x"), Some(other.csrf.as_str())] {
        let mut request = browser.request("DELETE", "/users/bob");
        if let Some(csrf) = csrf {
            request = request.insert_header(("x-csrf-token", csrf));
        }
        let answer = world.request(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem()),
            (403, "csrf".to_owned()),
            "{csrf:?}"
        );
    }
    world.expect("GET", "/users/bob", NONE, 200).await;
    // Looking needs none.
    let answer = world.request(browser.request("GET", "/users/bob")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        browser.call("DELETE", "/users/bob").await.status,
        StatusCode::NO_CONTENT
    );
    // A wrong header is not made good by a cookie.
    let request = browser
        .request("GET", "/whoami")
        .insert_header(("authorization", "Bearer x"));
    assert_eq!(world.request(request).await.problem(), "unauthorized");
    world.end().await;
}

#[actix_web::test]
async fn a_session_ends_with_its_token_and_guessing_is_bounded() {
    let world = World::new(false).await;
    let (id, token) = world.operator("ann").await;
    let browser = Browser::sign_in(&world, &token).await.unwrap();
    assert_eq!(browser.call("GET", "/whoami").await.status, StatusCode::OK);
    world
        .expect("DELETE", &format!("/admin-tokens/{id}"), NONE, 204)
        .await;
    assert_eq!(
        browser.call("GET", "/whoami").await.problem(),
        "unauthorized"
    );
    let refused = Browser::sign_in(&world, &token).await.err().unwrap();
    assert_eq!(
        refused,
        (StatusCode::UNAUTHORIZED, "unauthorized".to_owned())
    );
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(Browser::sign_in(&world, "guess").await.err().unwrap().1);
    }
    assert!(codes.contains(&"too_many_failures".to_owned()), "{codes:?}");
    // Who has the secret gets in all the same.
    let secret = world.state.parts.secret.expose().to_owned();
    assert!(Browser::sign_in(&world, &secret).await.is_ok());
    world.end().await;
}
