use super::*;

#[test]
fn ready_scenarios_are_sound_and_come_back_from_what_they_write() {
    assert_eq!(READY.len(), 9);
    for ready in READY {
        let scenario = Scenario::load(ready.name).unwrap();
        assert!(!scenario.about.is_empty(), "{}", ready.name);
        let text = toml::to_string(&scenario).unwrap();
        assert_eq!(Scenario::parse("again", &text).unwrap(), scenario);
    }
}

#[test]
fn mistakes_name_the_key() {
    let cases = [
        ("users = 10", "users = 0", "users"),
        ("users = 10", "users = 11", "users: an even number"),
        ("users = 10", "users = 10\nuser = 3", "user"),
        ("users = 10", "users = \"many\"", "users"),
        ("duration_s = 1", "duration_s = -1", "duration_s"),
        ("window = 2", "window = 65", "traffic.window"),
        (
            "window = 2",
            "window = 2\nrate_per_s = 1",
            "rate_per_s (open loop)",
        ),
        ("window = 2", "", "traffic"),
        ("window = 2", "rate_per_s = 0", "traffic.rate_per_s"),
        ("window = 2", "window = 2\nspeed = 9", "speed"),
        ("\"pairs\"", "\"triples\"", "triples"),
        (
            "\"pairs\"",
            "\"zipf\", count = 0, exponent = 1",
            "traffic.contacts.count",
        ),
        ("bytes = 60", "bytes = 20", "traffic.body_bytes"),
        ("slow_share = 0.5", "slow_share = 2", "reading.slow_share"),
        ("weight = 1", "weight = 0", "phases.weight"),
        ("weight = 1", "weight = 1\ncut = 1", "cut"),
    ];
    let text = r#"
        about = "a test"
        users = 10
        duration_s = 1
        [traffic]
        window = 2
        contacts = { kind = "pairs" }
        body_bytes = { kind = "fixed", bytes = 60 }
        [reading]
        slow_share = 0.5
        [[phases]]
        name = "all"
        weight = 1
    "#;
    Scenario::parse("base", text).unwrap();
    for (from, to, named) in cases {
        assert!(text.contains(from), "{from}");
        let error = Scenario::parse("mine", &text.replace(from, to)).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(named) && error.contains("mine"),
            "{to}: {error}"
        );
    }
    let error = Scenario::load("no-such-scenario").unwrap_err().to_string();
    assert!(error.contains("swarm list"), "{error}");
}
