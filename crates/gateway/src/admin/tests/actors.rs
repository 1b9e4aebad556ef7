//! Actors, crashes and events.

use std::time::Instant;

use actix_web::test::TestRequest;
use serde_json::{Value, json};
use stonechat_actors::{ChildSpec, Ctx, Handle, Strategy, Supervised};

use super::super::events::STREAMS_MAX;
use super::*;
use crate::events::What;

impl World {
    /// Asks until the answer is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.expect("GET", path, NONE, 200).await.json();
            if wanted(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{path}: {seen}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn actor(&self, name: &str) -> Value {
        let page = self
            .expect("GET", &format!("/actors?q={name}"), NONE, 200)
            .await
            .json();
        let actors = page["actors"].as_array().unwrap().clone();
        actors
            .into_iter()
            .find(|actor| actor["name"] == name)
            .unwrap()
    }
}

/// An actor among many.
struct One;

struct Work;

impl Supervised for One {
    const KIND: &'static str = "one";
}

impl Handle<Work> for One {
    fn handle(&mut self, _: Work, _: &mut Ctx<Self>) {}
}

fn names(page: &Value) -> Vec<&str> {
    let actors = page["actors"].as_array().unwrap();
    actors
        .iter()
        .map(|actor| actor["name"].as_str().unwrap())
        .collect()
}

#[actix_web::test]
async fn actors_are_listed_sorted_and_found() {
    let world = World::new(false).await;
    let tree = world.state.parts.broker.tree().clone();
    let many = tree
        .supervisor(&tree.root(), "many", Strategy::Dynamic)
        .unwrap();
    let arbiter = actix_rt::Arbiter::current();
    for n in 0..5 {
        let spec = ChildSpec::new(format!("one.{n}"));
        let actor = many.start_child(spec, &arbiter, |_| One).unwrap();
        for _ in 0..n {
            // The arbiter is this very thread: they wait until this test does.
            actor.try_tell(Work).unwrap();
        }
    }
    let page = world
        .expect("GET", "/actors?kind=one", NONE, 200)
        .await
        .json();
    assert_eq!(names(&page), ["one.0", "one.1", "one.2", "one.3", "one.4"]);
    let top = world
        .expect("GET", "/actors/top?by=depth_max&limit=2", NONE, 200)
        .await
        .json();
    assert_eq!(names(&top), ["one.4", "one.3"]);
    let page = "/actors?kind=one&sort=handled&limit=2";
    let first = world
        .until(page, |page| page["actors"][0]["handled_count"] == 4)
        .await;
    assert_eq!(names(&first), ["one.4", "one.3"]);
    assert_eq!(first["actors"][0]["depth_max"], 4);
    assert_eq!(first["actors"][0]["drain_ms"], 0);
    assert!(first["actors"][0]["rate_per_s"].as_f64().unwrap() > 0.0);
    assert!(first["actors"][0]["arbiter"].is_string());
    let after = first["next"].as_str().unwrap();
    let second = world
        .expect("GET", &format!("{page}&after={after}"), NONE, 200)
        .await
        .json();
    assert_eq!(names(&second), ["one.2", "one.1"]);

    let whole = world.expect("GET", "/actors/tree", NONE, 200).await.json();
    assert!(names(&whole).contains(&"router"));
    assert!(!names(&whole).contains(&"one.1"), "there may be very many");
    let branches = whole["supervisors"].as_array().unwrap();
    assert_eq!(
        (&branches[0]["name"], &branches[0]["level"]),
        (&json!("root"), &json!(0))
    );
    let branch = branches.iter().find(|one| one["name"] == "many").unwrap();
    assert_eq!(
        (&branch["actors_count"], &branch["level"]),
        (&json!(5), &json!(1))
    );
    let under = format!("/actors/tree?under={}&limit=3", branch["id"]);
    let below = world.expect("GET", &under, NONE, 200).await.json();
    assert_eq!(names(&below), ["one.0", "one.1", "one.2"]);
    let next = format!("{under}&after={}", below["next"].as_str().unwrap());
    let below = world.expect("GET", &next, NONE, 200).await.json();
    assert_eq!(
        (names(&below), &below["next"]),
        (vec!["one.3", "one.4"], &NONE)
    );
    world
        .expect_problem(
            "GET",
            "/actors/tree?under=99999",
            NONE,
            404,
            "unknown_actor",
        )
        .await;
    let flat = world
        .expect("GET", "/actors/tree?depth=1", NONE, 200)
        .await
        .json();
    assert_eq!(flat["supervisors"].as_array().unwrap().len(), 1);
    for bad in [
        "/actors?sort=name",
        "/actors?after=x",
        "/actors/top?by=name",
    ] {
        world
            .expect_problem("GET", bad, NONE, 400, "bad_query")
            .await;
    }
    world.end().await;
}

#[actix_web::test]
async fn an_actor_shows_its_state_and_is_restarted_or_stopped() {
    let world = World::new(false).await;
    let tree = world.state.parts.broker.tree().clone();
    let router = world.actor("router").await;
    let path = format!("/actors/{}", router["id"]);
    let shown = world.expect("GET", &path, NONE, 200).await.json();
    assert_eq!(shown["state"]["sessions"], 0);
    assert_eq!(shown["last_crash"], NONE);
    world
        .expect(
            "POST",
            &format!("{path}/restart"),
            json!({"reason": "stuck"}),
            202,
        )
        .await;
    let again = world.until(&path, |actor| actor["generation"] == 2).await;
    assert_eq!(again["restarts"], 1);
    assert!(
        again["last_exit"]
            .as_str()
            .unwrap()
            .contains("restarted by secret")
    );
    world
        .expect_problem(
            "POST",
            &format!("{path}/stop"),
            NONE,
            409,
            "actor_essential",
        )
        .await;

    let root = format!("/actors/{}", tree.root().id());
    assert_eq!(
        world.expect("GET", &root, NONE, 200).await.json()["name"],
        "root"
    );
    world
        .expect_problem("POST", &format!("{root}/stop"), NONE, 409, "not_an_actor")
        .await;
    for unknown in ["/actors/99999", "/actors/x"] {
        world
            .expect_problem("GET", unknown, NONE, 404, "unknown_actor")
            .await;
        let restart = format!("{unknown}/restart");
        world
            .expect_problem("POST", &restart, NONE, 404, "unknown_actor")
            .await;
    }
    world
        .expect_problem("GET", "/users/bob/actor", NONE, 404, "no_session")
        .await;

    let many = tree
        .supervisor(&tree.root(), "many", Strategy::Dynamic)
        .unwrap();
    let arbiter = actix_rt::Arbiter::current();
    let one = many
        .start_child(ChildSpec::new("one"), &arbiter, |_| One)
        .unwrap();
    world
        .expect("POST", &format!("/actors/{}/stop", one.id()), NONE, 202)
        .await;
    tokio::time::timeout(Duration::from_secs(20), one.ended())
        .await
        .unwrap();

    let audit = world.expect("GET", "/audit", NONE, 200).await.json();
    let restarted = audit["entries"].as_array().unwrap().last().unwrap();
    assert_eq!(restarted["action"], "actors.restart");
    assert_eq!(restarted["reason"], "stuck");
    assert_eq!(
        restarted["target"],
        format!("{} (router router)", router["id"])
    );
    world.end().await;
}

#[actix_web::test]
async fn a_crash_is_kept_with_its_backtrace_and_told() {
    let world = World::new(true).await;
    let tree = world.state.parts.broker.tree().clone();
    sources::start(&world.state, &tree);
    // The task listens from its start on, which is before this comes to an actor.
    let queue = json!({"target": "offline_queue", "shard": 0});
    world.expect("POST", "/faults/panic", queue, 200).await;
    let page = world
        .until("/crashes", |page| {
            !page["crashes"].as_array().unwrap().is_empty()
        })
        .await;
    let crash = &page["crashes"][0];
    assert_eq!(crash["kind"], "offline_queue");
    let full = world
        .expect("GET", &format!("/crashes/{}", crash["number"]), NONE, 200)
        .await
        .json();
    assert!(
        full["backtrace"]
            .as_str()
            .unwrap()
            .contains("stonechat_broker"),
        "{full}"
    );
    assert!(
        full["location"].as_str().unwrap().contains("offline_queue"),
        "{full}"
    );
    let actor = world
        .expect("GET", &format!("/actors/{}", crash["actor"]), NONE, 200)
        .await;
    assert_eq!(actor.json()["last_crash"]["number"], crash["number"]);
    world
        .expect_problem("GET", "/crashes/99", NONE, 404, "unknown_crash")
        .await;
    world
        .expect_problem("GET", "/crashes/x", NONE, 404, "unknown_crash")
        .await;
    let file = std::fs::read_to_string(world.state.parts.data_dir.join("crashes.ndjson"));
    assert_eq!(file.unwrap().lines().count(), 1);

    let path = "/events?after=0&kinds=crash,restart&count=2";
    let told = world.expect("GET", path, NONE, 200).await.text;
    let kinds: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(kinds, ["crash", "restart"], "{told}");
    world.end().await;
}

/// The events a stream that ends by itself tells: id and detail.
async fn told(world: &World, query: &str, last: Option<u64>) -> Vec<(u64, String)> {
    let secret = world.state.parts.secret.expose();
    let mut request = TestRequest::get()
        .uri(&format!("/admin/v1/events?wait=false{query}"))
        .insert_header(("authorization", format!("Bearer {secret}")));
    if let Some(last) = last {
        request = request.insert_header(("last-event-id", last.to_string()));
    }
    let answer = world.request(request).await;
    assert_eq!(answer.kind, "text/event-stream", "{}", answer.text);
    let lines = answer.text.lines();
    lines
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| {
            let event: Value = serde_json::from_str(data).unwrap();
            let detail = event["detail"].as_str().unwrap_or_default().to_owned();
            (event["id"].as_u64().unwrap_or(0), detail)
        })
        .collect()
}

#[actix_web::test]
async fn events_go_on_where_a_reader_was() {
    let world = World::new(false).await;
    let events = world.state.parts.events.clone();
    let tell = |detail: &str| {
        events.tell(What::Node {
            state: "test",
            detail: detail.to_owned(),
        });
    };
    tell("a");
    tell("b\n\nevent: forged");
    tell("c");
    let details = |told: Vec<(u64, String)>| -> Vec<String> {
        told.into_iter().map(|(_, detail)| detail).collect()
    };
    let all = told(&world, "&after=0", None).await;
    assert_eq!(details(all.clone()), ["a", "b\n\nevent: forged", "c"]);
    assert_eq!(
        details(told(&world, "&after=0", Some(all[1].0)).await),
        ["c"]
    );
    assert_eq!(told(&world, "", None).await, []);
    assert_eq!(told(&world, "&after=0&kinds=crash", None).await, []);
    assert_eq!(told(&world, "&after=0&count=1", None).await.len(), 1);
    for bad in ["/events?kinds=x", "/events?after=x", "/events?count=-1"] {
        world
            .expect_problem("GET", bad, NONE, 400, "bad_query")
            .await;
    }
    // A slow reader is told how many it missed.
    for n in 0..crate::events::EVENTS_KEPT {
        tell(&n.to_string());
    }
    let secret = world.state.parts.secret.expose();
    let request = TestRequest::get()
        .uri("/admin/v1/events?wait=false&count=1")
        .insert_header(("last-event-id", (all[0].0 - 1).to_string()))
        .insert_header(("authorization", format!("Bearer {secret}")));
    let late = world.request(request).await.text;
    assert!(
        late.contains("event: dropped\ndata: {\"count\":3,\"kind\":\"dropped\"}\n\n"),
        "{late}"
    );
    // Refused credentials are told.
    let answer = world
        .request(TestRequest::get().uri("/admin/v1/node"))
        .await;
    assert_eq!(answer.problem(), "unauthorized");
    let security = told(&world, "&after=0&kinds=security", None).await;
    assert_eq!(details(security), ["", "GET /admin/v1/node"]);
    world.end().await;
}

#[actix_web::test]
async fn streams_are_bounded_and_end_with_their_token() {
    let world = World::new(false).await;
    let made = world
        .expect(
            "POST",
            "/admin-tokens",
            json!({"name": "ann", "role": "viewer"}),
            201,
        )
        .await
        .json();
    let token = format!("Bearer {}", made["token"].as_str().unwrap());
    let app = App::new().app_data(world.state.clone()).configure(routes);
    let service = init_service(app).await;
    let open = || {
        let request = TestRequest::get()
            .uri("/admin/v1/events")
            .insert_header(("authorization", token.as_str()));
        call_service(&service, request.to_request())
    };
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(open().await);
    }
    assert!(
        streams
            .iter()
            .all(|stream| stream.status() == StatusCode::OK)
    );
    assert_eq!(open().await.status(), StatusCode::TOO_MANY_REQUESTS);
    world
        .expect(
            "DELETE",
            &format!("/admin-tokens/{}", made["id"].as_str().unwrap()),
            NONE,
            204,
        )
        .await;
    // Whatever happens next wakes them, and they end.
    for stream in streams {
        world.state.parts.events.tell(What::Node {
            state: "test",
            detail: String::new(),
        });
        let read = tokio::time::timeout(Duration::from_secs(30), read_body(stream));
        read.await.expect("a stream whose token is revoked ends");
    }
    assert_eq!(
        world
            .expect("GET", "/events?wait=false", NONE, 200)
            .await
            .kind,
        "text/event-stream"
    );
    world.end().await;
}

/// `cargo test --release -p stonechat-gateway --lib top_actors -- --ignored --nocapture`
#[actix_web::test]
#[ignore = "a measurement"]
async fn top_actors_among_twenty_thousand() {
    let world = World::new(false).await;
    let tree = world.state.parts.broker.tree().clone();
    let many = tree
        .supervisor(&tree.root(), "many", Strategy::Dynamic)
        .unwrap();
    let arbiter = actix_rt::Arbiter::new();
    let actors: Vec<_> = (0..20_000)
        .map(|n| {
            let spec = ChildSpec::new(format!("user-{n}"));
            many.start_child(spec, &arbiter.handle(), |_| One).unwrap()
        })
        .collect();
    for actor in &actors {
        actor.try_tell(Work).unwrap();
    }
    world
        .until("/actors?kind=one&sort=handled&limit=1", |page| {
            page["actors"][0]["handled_count"] == 1
        })
        .await;
    let mut took = Vec::new();
    for _ in 0..20 {
        let from = Instant::now();
        world.expect("GET", "/actors/top?by=rate", NONE, 200).await;
        took.push(from.elapsed());
    }
    took.sort_unstable();
    println!(
        "top 20 of 20,000 actors: median {:?}, longest {:?}",
        took[10], took[19]
    );
    drop(actors);
    world.end().await;
}
