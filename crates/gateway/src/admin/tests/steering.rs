//! Configuration, limits, the log's filter, drain and undrain.

use serde_json::json;

use super::*;

#[actix_web::test]
async fn the_node_shows_configuration_limits_and_build() {
    let world = World::new(false).await;
    let config = world.expect("GET", "/node/config", NONE, 200).await.json();
    assert_eq!(config["config"][0]["key"], "limits.sessions_max");
    let limits = world.expect("GET", "/node/limits", NONE, 200).await.json();
    let limits = limits["limits"].as_array().unwrap();
    let sessions = limits
        .iter()
        .find(|one| one["name"] == "limits.sessions_max")
        .unwrap();
    assert_eq!(
        (&sessions["max"], &sessions["share"]),
        (&json!(1_000), &json!(0.0))
    );
    let shares: Vec<f64> = limits
        .iter()
        .map(|one| one["share"].as_f64().unwrap())
        .collect();
    assert!(shares.is_sorted_by(|a, b| a >= b), "{shares:?}");
    let node = world.expect("GET", "/node", NONE, 200).await.json();
    assert_eq!(node["build"]["profile"], "debug");
    assert!(node["started_ms"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!(node["limits"].as_array().unwrap().len(), limits.len());
    world.end().await;
}

#[actix_web::test]
async fn the_log_filter_changes_while_the_node_runs() {
    let world = World::new(false).await;
    let path = "/node/log";
    let filter = || async { world.expect("GET", path, NONE, 200).await.json()["filter"].clone() };
    assert_eq!(filter().await, "info");
    let debug = json!({"filter": "info,stonechat_gateway=debug"});
    world.expect("PUT", path, debug.clone(), 200).await;
    world.expect("PUT", path, debug, 200).await;
    assert_eq!(filter().await, "info,stonechat_gateway=debug");
    for bad in [
        json!({"filter": "a=b=c"}),
        json!({"filter": "x".repeat(2_000)}),
    ] {
        world
            .expect_problem("PUT", path, bad, 400, "bad_filter")
            .await;
    }
    assert_eq!(filter().await, "info,stonechat_gateway=debug");
    world.end().await;
}

#[actix_web::test]
async fn a_log_filter_set_for_a_while_goes_by_itself() {
    let world = World::new(false).await;
    let path = "/node/log";
    let show = || async { world.expect("GET", path, NONE, 200).await.json() };
    for bad in [0, 86_401] {
        let bad = json!({"filter": "debug", "for_s": bad});
        world
            .expect_problem("PUT", path, bad, 400, "bad_filter")
            .await;
    }
    let hour = json!({"filter": "debug", "for_s": 3_600});
    let set = world.expect("PUT", path, hour, 200).await.json();
    assert_eq!(set["back_to"], "info");
    assert!(set["back_ms"].as_u64().unwrap() > now_ms() + 3_000_000);
    // Over that one, and back to what was before both.
    let second = json!({"filter": "trace", "for_s": 1});
    let set = world.expect("PUT", path, second, 200).await.json();
    assert_eq!(set["back_to"], "info");
    let deadline = Instant::now() + Duration::from_secs(30);
    while show().await["filter"] != "info" {
        assert!(Instant::now() < deadline, "the filter stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(show().await["back_ms"], Value::Null);
    // What is set for good is not taken back, nor by the clock of an earlier change.
    let (good, hour) = (
        json!({"filter": "warn"}),
        json!({"filter": "debug", "for_s": 3_600}),
    );
    world.expect("PUT", path, good, 200).await;
    assert_eq!(show().await["back_to"], Value::Null);
    world.expect("PUT", path, hour, 200).await;
    for earlier in 0..4 {
        log_filter::put_back(&world.state, earlier);
    }
    assert_eq!(show().await["back_to"], "warn");
    // Nor what was set by other means meanwhile, such as a reload.
    world.state.parts.control.set_log_filter("error").unwrap();
    assert_eq!(show().await["back_to"], Value::Null);
    log_filter::put_back(&world.state, 4);
    assert_eq!(show().await["filter"], "error");
    world.end().await;
}

#[actix_web::test]
async fn a_node_drains_and_takes_clients_again() {
    let world = World::new(false).await;
    let state =
        || async { world.expect("GET", "/node/drain", NONE, 200).await.json()["state"].clone() };
    assert_eq!(state().await, "serving");
    for _ in 0..2 {
        let body = json!({"retry_after_ms": 5, "deadline_ms": 60_000});
        world.expect("POST", "/node/drain", body, 202).await;
        // The connections of the edge in these tests never leave.
        assert_eq!(state().await, "draining");
    }
    let ready = world.request(TestRequest::get().uri("/readyz")).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    for _ in 0..2 {
        world.expect("POST", "/node/undrain", NONE, 200).await;
        assert_eq!(state().await, "serving");
    }
    let ready = world.request(TestRequest::get().uri("/readyz")).await;
    assert_eq!(ready.status, StatusCode::OK);
    let long = json!({"deadline_ms": 3_600_001});
    world
        .expect_problem("POST", "/node/drain", long, 400, "bad_drain")
        .await;
    world.edge.stop();
    world
        .expect_problem("POST", "/node/undrain", NONE, 409, "stopping")
        .await;
    world.end().await;
}
