//! `stonechat chat`: two people at two terminals, played by pipes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use stonechat_tests::{DEADLINE, Node, WsClient, eventually, node::wait};

/// A running chat; killed when dropped.
struct Chat {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Mutex<String>>,
}

impl Chat {
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let mut child = node
            .command(&[&["chat"], arguments].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the chat can be started");
        let output = Arc::new(Mutex::new(String::new()));
        let out = child.stdout.take().expect("piped");
        let err = child.stderr.take().expect("piped");
        collect(out, Arc::clone(&output));
        collect(err, Arc::clone(&output));
        Self {
            input: child.stdin.take(),
            child,
            output,
        }
    }

    fn type_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open");
        writeln!(input, "{line}").expect("the chat reads its input");
        input.flush().expect("the chat reads its input");
    }

    fn output(&self) -> String {
        self.output
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits for a line with all of `parts`.
    fn shows(&self, parts: &[&str]) {
        let what = format!("{parts:?} in the chat, which shows:\n{}", self.output());
        eventually(&what, || {
            self.output()
                .lines()
                .any(|line| parts.iter().all(|part| line.contains(part)))
                .then_some(())
        });
    }

    fn exit_code(&mut self) -> Option<i32> {
        let status = wait(&mut self.child, DEADLINE);
        let status = status.unwrap_or_else(|| panic!("the chat does not end:\n{}", self.output()));
        status.code()
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(from: impl std::io::Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut output = into.lock().unwrap_or_else(PoisonError::into_inner);
            output.push_str(&line);
            output.push('\n');
        }
    });
}

#[test]
fn two_terminals_talk() {
    let node = Node::start_default();
    // Nobody exists yet: the first chat makes its own user, and its friend too.
    let mut bob = Chat::start(&node, &["--as", "bob", "--to", "alice"]);
    let mut alice = Chat::start(&node, &["--as", "alice", "--to", "bob"]);
    eventually("both exist", || {
        let known = |user: &str| node.admin().get(&format!("/admin/v1/users/{user}")).status == 200;
        (known("alice") && known("bob")).then_some(())
    });
    alice.type_line("hello bob, it is me");
    bob.shows(&["alice", "hello bob, it is me"]);
    // Two ticks, for it was delivered.
    alice.shows(&["\u{2713}\u{2713}"]);
    bob.type_line("hello alice, grüß dich");
    alice.shows(&["bob", "hello alice, grüß dich"]);
    alice.type_line("/quit");
    assert_eq!(alice.exit_code(), Some(0), "{}", alice.output());
    // The end of the input ends it too, after everything was accepted.
    bob.type_line("a last word");
    bob.input = None;
    assert_eq!(bob.exit_code(), Some(0), "{}", bob.output());
    let alice = Chat::start(&node, &["--as", "alice"]);
    alice.shows(&["bob", "a last word"]);
}

#[tokio::test]
async fn it_speaks_with_any_client_and_with_a_token_only() {
    let node = Node::start_default();
    let mut alice = WsClient::join(&node, "alice", "phone").await;
    let token = node.user("bob");
    let url = format!("ws://{}", node.endpoint().listen);
    let arguments = [
        "--as", "bob", "--to", "alice", "--token", &token, "--url", &url,
    ];
    let mut bob = Chat::start(&node, &arguments);
    bob.type_line("from a terminal");
    let message = alice.message_acked().await;
    assert!(message.to_string().contains("from a terminal"), "{message}");
    assert_eq!(message["from"]["user"], "bob");
    alice.say("bob", &json!("to a terminal")).await;
    bob.shows(&["alice", "to a terminal"]);
    bob.type_line("/quit");
    assert_eq!(bob.exit_code(), Some(0), "{}", bob.output());
}

#[test]
fn a_bad_token_ends_it_with_a_reason() {
    let node = Node::start_default();
    node.user("bob");
    let mut bob = Chat::start(
        &node,
        &["--as", "bob", "--to", "alice", "--token", "nonsense"],
    );
    let code = bob.exit_code();
    assert!(code.is_some_and(|code| code != 0), "{}", bob.output());
    eventually("the reason is shown", || {
        bob.output().to_lowercase().contains("token").then_some(())
    });
}
