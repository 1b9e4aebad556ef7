use super::*;

#[test]
fn ready_scenarios_are_sound_and_come_back_from_what_they_write() {
    assert_eq!(READY.len(), 10);
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
        (
            "duration_s = 1",
            "duration_s = 1\ndevices = 2\npresence = { online_share = 0.5, online_s = 1, offline_s = 1 }",
            "presence.online_share",
        ),
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

/// Every key there is, in one of these; a new field does not compile until it is here.
fn with_every_key() -> Vec<Scenario> {
    let contacts = [
        Contacts::Zipf {
            count: 1,
            exponent: 1.0,
        },
        Contacts::Pairs,
        Contacts::Celebrity,
    ];
    let sizes = [
        BodyBytes::Fixed { bytes: 50 },
        BodyBytes::Uniform { min: 50, max: 60 },
        BodyBytes::LogNormal {
            median: 50.0,
            sigma: 1.0,
            max: 60,
        },
    ];
    let scenario = |(contacts, body_bytes)| Scenario {
        about: "all keys".to_owned(),
        seed: 1,
        users: 2,
        devices: 1,
        duration_s: 1.0,
        traffic: Some(Traffic {
            rate_per_s: Some(1.0),
            window: Some(1),
            burst: 1.0,
            contacts,
            body_bytes,
        }),
        reading: Reading {
            after_ms: Some(1),
            slow_share: 0.5,
            pause_ms: 1,
        },
        presence: Some(Presence {
            online_share: 1.0,
            online_s: 1.0,
            offline_s: 1.0,
            end: End::Close,
        }),
        phases: vec![Phase {
            name: "x".to_owned(),
            weight: 1.0,
            rate_factor: 1.0,
            cut_share: 0.0,
            cut_s: 0.0,
        }],
    };
    contacts.into_iter().zip(sizes).map(scenario).collect()
}

fn keys(value: &toml::Value, path: &str, into: &mut std::collections::BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                let dot = if path.is_empty() { "" } else { "." };
                keys(value, &format!("{path}{dot}{key}"), into);
            }
        }
        toml::Value::Array(all) => all.iter().for_each(|value| keys(value, path, into)),
        _ => {
            into.insert(path.to_owned());
        }
    }
}

#[test]
fn the_page_has_every_key_and_no_other() {
    let page = include_str!("../../../../docs/load-testing.md");
    let (_, section) = page.split_once("## Write a scenario").unwrap();
    let section = section
        .split_once("\n## ")
        .map_or(section, |(section, _)| section);
    let told: std::collections::BTreeSet<String> = section
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect();
    let mut known = std::collections::BTreeSet::new();
    for scenario in with_every_key() {
        keys(&toml::Value::try_from(scenario).unwrap(), "", &mut known);
    }
    assert_eq!(told, known);
}
