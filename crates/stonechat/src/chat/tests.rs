//! The chat without a server.

use super::*;

fn options(to: Option<&str>) -> ChatOptions {
    ChatOptions {
        // Nobody listens on port 1, and none of these tests needs anybody to.
        url: "ws://127.0.0.1:1".to_owned(),
        user: UserId::new("alice").unwrap(),
        device: DeviceId::new("terminal").unwrap(),
        to: to.map(|to| UserId::new(to).unwrap()),
        token: "secret".to_owned(),
        ca_file: None,
    }
}

async fn typed(to: Option<&str>, input: &[&str]) -> (Result<(), ChatError>, String) {
    let (sender, lines) = mpsc::channel(LINES_AHEAD_MAX);
    for line in input {
        sender.send((*line).to_owned()).await.unwrap();
    }
    drop(sender);
    let mut out = Vec::new();
    let soon = Duration::from_millis(50);
    let result = run_with(options(to), lines, &mut out, soon).await;
    (result, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn commands_are_understood() {
    let (result, out) = typed(
        None,
        &[
            "hi",
            "/to Bob",
            "/to bob",
            "/dance",
            "/help",
            "/quit",
            "/to carol",
        ],
    )
    .await;
    assert!(result.is_ok());
    for line in [
        "· to whom? /to NAME",
        "! a user name consists of",
        "· talking to bob",
        "! there is no such command",
        "/quit      leave",
    ] {
        assert!(out.contains(line), "{line:?} is missing in {out}");
    }
    assert!(!out.contains("carol"), "read on after /quit: {out}");
}

#[tokio::test]
async fn an_input_that_ends_unanswered_is_reported() {
    let (result, _) = typed(Some("bob"), &["one", "//two", ""]).await;
    assert!(
        matches!(
            result,
            Err(ChatError::Unanswered { count: 2 } | ChatError::Ended(_))
        ),
        "{result:?}"
    );
}

#[test]
fn lines_are_read_and_long_ones_split() {
    let (sender, mut lines) = mpsc::channel(LINES_AHEAD_MAX);
    let long = "x".repeat(20_000);
    read_lines(format!("one\r\ntwo\n{long}\nlast").as_bytes(), &sender);
    drop(sender);
    let mut read = Vec::new();
    while let Ok(line) = lines.try_recv() {
        read.push(line);
    }
    assert_eq!(read[..2], ["one", "two"]);
    assert_eq!(read[2].len() + read[3].len(), 20_000);
    assert_eq!(read[4], "last");
}
