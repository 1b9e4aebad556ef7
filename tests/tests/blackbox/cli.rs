//! The command line: users and tokens on the running node, configuration, exit codes.

use serde_json::json;
use stonechat_tests::node::{command, run};
use stonechat_tests::{Connect, Node, NodeOptions, Output, WsClient};

fn ok(output: Output) -> String {
    assert_eq!(output.code, Some(0), "{output:?}");
    output.stdout
}

#[tokio::test]
async fn a_user_and_a_token_from_the_command_line() {
    let node = Node::start_default();
    ok(node.run(&["user", "add", "carol"]));
    ok(node.run(&["user", "add", "carol"]));
    let token = ok(node.run(&["token", "carol", "--device", "phone"]));
    // The token alone, so that TOKEN=$(stonechat token …) works.
    assert_eq!(token.lines().count(), 1, "{token}");
    let token = token.trim();
    assert!(!token.contains(char::is_whitespace));
    let (mut carol, welcome) = Connect::to(&node).sign_in(token, "phone").await;
    assert_eq!(welcome["user"], "carol");
    let listed = ok(node.run(&["user", "list"]));
    assert!(listed.contains("carol"), "{listed}");
    ok(node.run(&["user", "disable", "carol"]));
    carol.bye("revoked", 4004).await;
    assert_eq!(node.admin().user("carol")["disabled"], true);
    ok(node.run(&["user", "enable", "carol"]));
    Connect::to(&node).sign_in(token, "phone").await;
    ok(node.run(&["user", "remove", "carol"]));
    assert_eq!(node.admin().get("/admin/v1/users/carol").status, 404);
    let unknown = node.run(&["token", "carol", "--device", "phone"]);
    assert!(unknown.code.is_some_and(|code| code != 0), "{unknown:?}");
    assert!(unknown.stderr.contains("carol"), "{unknown:?}");
    assert_eq!(
        unknown.stdout, "",
        "nothing that could be taken for a token"
    );
}

#[tokio::test]
async fn tokens_are_revoked_from_the_command_line() {
    let node = Node::start_default();
    ok(node.run(&["user", "add", "carol"]));
    let token = ok(node.run(&["token", "carol", "--device", "phone", "--ttl", "1h"]));
    let (mut carol, _) = Connect::to(&node).sign_in(token.trim(), "phone").await;
    ok(node.run(&["token", "revoke", "carol"]));
    carol.bye("revoked", 4004).await;
    let status = ok(node.run(&["status"]));
    assert!(status.contains(env!("CARGO_PKG_VERSION")), "{status}");
}

#[test]
fn without_a_node_commands_say_what_to_do() {
    let node = Node::prepared(NodeOptions::new());
    let output = node.run(&["user", "add", "carol"]);
    assert_eq!(output.code, Some(69), "{output:?}");
    assert!(output.stderr.contains("serve"), "{output:?}");
}

#[test]
fn mistakes_in_the_configuration_name_the_key() {
    for (key, value, said) in [
        ("limits.unacked_max", "0", "limits.unacked_max"),
        ("limits.no_such_key", "1", "no_such_key"),
        ("limits.unacked_max", "\"many\"", "unacked_max"),
        ("server.heartbeat_ms", "1", "server.heartbeat_ms"),
        ("log.format", "\"loud\"", "log.format"),
        ("server.listen", "\"nowhere\"", "server.listen"),
    ] {
        let node = Node::prepared(NodeOptions::new().set(key, value));
        let output = node.run(&["serve"]);
        assert_eq!(output.code, Some(78), "{key} = {value}: {output:?}");
        assert!(output.stderr.contains(said), "{key} = {value}: {output:?}");
    }
    let node = Node::prepared(NodeOptions::new());
    std::fs::write(node.config_file(), "this is not TOML").unwrap();
    let output = node.run(&["serve"]);
    assert_eq!(output.code, Some(78), "{output:?}");
    assert!(
        output.stderr.contains("stonechat.toml"),
        "it names the file: {output:?}"
    );
}

#[test]
fn file_environment_and_flags_win_in_this_order() {
    let node = Node::prepared(NodeOptions::new().unacked_max(7));
    let effective = |command: &mut std::process::Command| {
        ok(run(std::mem::replace(
            command,
            stonechat_tests::node::command(),
        )))
    };
    let shown = effective(&mut node.command(&["config"]));
    assert!(
        shown
            .lines()
            .any(|line| line.trim_start_matches('#').trim() == "unacked_max = 7"),
        "{shown}"
    );
    let mut by_env = node.command(&["config"]);
    by_env.env("STONECHAT_LIMITS__UNACKED_MAX", "9");
    let shown = effective(&mut by_env);
    assert!(
        shown
            .lines()
            .any(|line| line.trim_start_matches('#').trim() == "unacked_max = 9"),
        "{shown}"
    );
    let mut by_flag = node.command(&["config", "--set", "limits.unacked_max=11"]);
    by_flag.env("STONECHAT_LIMITS__UNACKED_MAX", "9");
    let shown = effective(&mut by_flag);
    assert!(
        shown
            .lines()
            .any(|line| line.trim_start_matches('#').trim() == "unacked_max = 11"),
        "{shown}"
    );
    // What is shown can be used as a configuration, and says the same then.
    let copy = node.dir().join("copy.toml");
    std::fs::write(&copy, &shown).unwrap();
    let mut again = command();
    again.args(["config", "--config"]).arg(&copy);
    let again = effective(&mut again);
    let values = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(values(&again), values(&shown));
}

#[test]
fn the_example_configuration_works_and_is_the_one_in_the_docs() {
    let mut example = command();
    example.args(["config", "--example"]);
    let example = ok(run(example));
    let path = stonechat_tests::binary::workspace().join("docs/stonechat.example.toml");
    let committed = std::fs::read_to_string(path).unwrap();
    assert_eq!(
        example.trim(),
        committed.trim(),
        "run `stonechat config --example`"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("example.toml");
    std::fs::write(&file, example).unwrap();
    let mut config = command();
    config.args(["config", "--config"]).arg(&file);
    ok(run(config));
}

#[test]
fn usage_errors_and_versions() {
    let with = |argument: &str| {
        let mut command = command();
        command.arg(argument);
        run(command)
    };
    assert_eq!(with("dance").code, Some(2));
    assert_eq!(with("--no-such-flag").code, Some(2));
    let version = ok(with("--version"));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let help = ok(with("--help"));
    for command in ["serve", "chat", "user", "token", "config", "store"] {
        assert!(
            help.contains(command),
            "{command} is not in the help: {help}"
        );
    }
}

#[test]
fn an_address_in_use_is_named() {
    let node = Node::start_default();
    let taken = node.endpoint().listen;
    let other = Node::prepared(NodeOptions::new());
    let output = other.run(&["serve", "--listen", &taken, "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(output.code, Some(69), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains(&taken), "{said}");
}

#[test]
fn the_admin_listener_stays_at_home_unless_told_otherwise() {
    let node = Node::prepared(NodeOptions::new());
    let output = node.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "0.0.0.0:0",
    ]);
    assert!(output.code.is_some_and(|code| code != 0), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(
        said.contains("insecure_listen"),
        "it names the way out: {said}"
    );
}

#[tokio::test]
async fn the_banner_leads_a_newcomer_to_a_first_message() {
    let node = Node::start(NodeOptions::new().set("log.format", "\"human\""));
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    alice.say("alice", &json!("works")).await;
    let banner = node.log();
    for part in [
        node.endpoint().listen.as_str(),
        "--as alice --to bob",
        "--as bob --to alice",
    ] {
        assert!(
            banner.contains(part),
            "{part} is not in the banner:\n{banner}"
        );
    }
    assert!(
        banner.contains(node.data_dir().to_str().unwrap()),
        "where the data is:\n{banner}"
    );
}
