//! A case and how it is run: steps in order, on a connection of its own.

use std::time::Duration;

use serde_json::Value;
use stonechat_tests::raw::{Frame as Received, opcode, upgrade_request};
use stonechat_tests::{Node, RawClient};

use crate::wire::{asks, text};

/// How long the server has for each answer.
const ANSWER_DEADLINE: Duration = stonechat_tests::DEADLINE;

/// Where a case begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Signed in.
    SignedIn,
    /// Upgraded; `hello` was not said.
    Upgraded,
    /// A TCP connection; nothing was said.
    Tcp,
}

/// One step of a case.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Writes bytes.
    Write(Vec<u8>),
    /// Writes bytes one by one, each in a segment of its own.
    Dribble(Vec<u8>),
    /// Writes bytes in pieces of this many.
    Pieces(usize, Vec<u8>),
    /// Closes the sending side of the TCP connection.
    HalfClose,
    /// Expects a WebSocket pong.
    Pong(Vec<u8>),
    /// Expects the protocol's `pong` with this nonce.
    Answer(Value),
    /// Expects an `error` with this code.
    Error(&'static str),
    /// Expects `bye` and a close frame, then the end.
    Bye(&'static str, u16),
    /// Expects a close frame with this code, then the end.
    Closed(Option<u16>),
    /// Expects the end without a word.
    End,
    /// Says hello and expects to be welcome.
    SignIn,
    /// Expects the head of a response with one of these statuses.
    Status(&'static [u16]),
    /// Expects the head of a response that lacks this header.
    UpgradedWithout(&'static str),
}

/// A case.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Group and number.
    pub(crate) id: String,
    /// What it is about.
    pub(crate) what: String,
    /// Where it begins.
    pub(crate) start: Start,
    /// What happens.
    pub(crate) steps: Vec<Step>,
}

/// Numbers the cases of one group.
pub(crate) struct Group<'a> {
    id: &'static str,
    count: usize,
    into: &'a mut Vec<Case>,
}

impl<'a> Group<'a> {
    /// A group, its cases appended to `into`.
    pub(crate) fn new(id: &'static str, into: &'a mut Vec<Case>) -> Self {
        Self { id, count: 0, into }
    }

    /// Adds a case that begins signed in.
    pub(crate) fn case(&mut self, what: impl Into<String>, steps: Vec<Step>) {
        self.case_from(Start::SignedIn, what, steps);
    }

    /// Adds a case.
    pub(crate) fn case_from(&mut self, start: Start, what: impl Into<String>, steps: Vec<Step>) {
        self.count += 1;
        self.into.push(Case {
            id: format!("{}.{}", self.id, self.count),
            what: what.into(),
            start,
            steps,
        });
    }

    /// Adds a case in which these bytes end the connection.
    pub(crate) fn breach(
        &mut self,
        what: impl Into<String>,
        bytes: Vec<u8>,
        reason: &'static str,
        code: u16,
    ) {
        self.case(what, vec![Step::Write(bytes), Step::Bye(reason, code)]);
    }
}

/// The step that expects the answer to [`asks`].
pub(crate) fn answer(nonce: u64) -> Step {
    Step::Answer(nonce.into())
}

/// Two steps: the connection still works.
pub(crate) fn alive() -> [Step; 2] {
    [Step::Write(text(asks(424_242))), answer(424_242)]
}

/// These steps, and then the connection still works.
pub(crate) fn and_alive(mut steps: Vec<Step>) -> Vec<Step> {
    steps.extend(alive());
    steps
}

impl Case {
    /// Runs it.
    pub(crate) async fn run(&self, node: &Node, token: &str) -> Result<(), String> {
        let mut client = RawClient::connect(node).await;
        if self.start != Start::Tcp {
            client
                .write(upgrade_request(&node.endpoint().listen).as_bytes())
                .await;
            let head = client.response_head().await;
            if !head.starts_with("HTTP/1.1 101") {
                return Err(format!("not upgraded: {head}"));
            }
        }
        if self.start == Start::SignedIn {
            sign_in(&mut client, token).await?;
        }
        for (n, step) in self.steps.iter().enumerate() {
            let ran = tokio::time::timeout(ANSWER_DEADLINE, step.run(&mut client, token));
            ran.await
                .unwrap_or_else(|_| Err("nothing came".to_owned()))
                .map_err(|why| format!("step {n}, {}: {why}", step.short()))?;
        }
        Ok(())
    }
}

async fn sign_in(client: &mut RawClient, token: &str) -> Result<(), String> {
    let hello = format!(r#"{{"type":"hello","token":"{token}","device":"phone"}}"#);
    client.write(&text(hello)).await;
    let welcome = frame_json(client).await?;
    if welcome["type"] == "welcome" {
        Ok(())
    } else {
        Err(format!("not welcome: {welcome}"))
    }
}

async fn next(client: &mut RawClient) -> Result<Received, String> {
    client
        .frame()
        .await
        .ok_or_else(|| "the end came".to_owned())
}

async fn frame_json(client: &mut RawClient) -> Result<Value, String> {
    let frame = next(client).await?;
    if frame.opcode != opcode::TEXT {
        return Err(format!("not text: {frame:?}"));
    }
    serde_json::from_slice(&frame.payload).map_err(|error| format!("not JSON: {error}"))
}

async fn the_end(client: &mut RawClient) -> Result<(), String> {
    match client.frame().await {
        None => Ok(()),
        Some(frame) => Err(format!("not the end: {frame:?}")),
    }
}

async fn closed(client: &mut RawClient, code: Option<u16>) -> Result<Vec<u8>, String> {
    let frame = next(client).await?;
    let expected = code.map(u16::to_be_bytes);
    if frame.opcode != opcode::CLOSE || frame.payload.get(..2) != expected.as_ref().map(|c| &c[..])
    {
        return Err(format!("not a close frame of {code:?}: {frame:?}"));
    }
    the_end(client).await?;
    Ok(frame.payload)
}

impl Step {
    fn short(&self) -> String {
        let mut text = format!("{self:?}");
        text.truncate(text.floor_char_boundary(120));
        text
    }

    async fn run(&self, client: &mut RawClient, token: &str) -> Result<(), String> {
        match self {
            // What comes after a breach may find the connection gone: the answer tells.
            Self::Write(bytes) => {
                client.try_write(bytes).await;
                Ok(())
            }
            Self::Dribble(bytes) => pieces(client, 1, bytes).await,
            Self::Pieces(size, bytes) => pieces(client, *size, bytes).await,
            Self::HalfClose => {
                client.half_close().await;
                Ok(())
            }
            Self::Pong(payload) => {
                let frame = next(client).await?;
                if frame.opcode == opcode::PONG && frame.payload == *payload {
                    Ok(())
                } else {
                    Err(format!("not that pong: {frame:?}"))
                }
            }
            Self::Answer(nonce) => {
                let frame = frame_json(client).await?;
                if frame["type"] == "pong" && frame["nonce"] == *nonce {
                    Ok(())
                } else {
                    Err(format!("not that answer: {frame}"))
                }
            }
            Self::Error(code) => {
                let frame = frame_json(client).await?;
                if frame["type"] == "error" && frame["code"] == *code {
                    Ok(())
                } else {
                    Err(format!("not that error: {frame}"))
                }
            }
            Self::Bye(reason, code) => {
                let bye = frame_json(client).await?;
                if bye["type"] != "bye" || bye["reason"] != *reason {
                    return Err(format!("not that bye: {bye}"));
                }
                let payload = closed(client, Some(*code)).await?;
                if payload[2..] == *reason.as_bytes() {
                    Ok(())
                } else {
                    Err(format!("the close frame says {payload:?}"))
                }
            }
            Self::Closed(code) => closed(client, *code).await.map(drop),
            Self::End => the_end(client).await,
            Self::SignIn => sign_in(client, token).await,
            Self::Status(allowed) => {
                let head = client.response_head().await;
                if allowed.contains(&status(&head)) {
                    Ok(())
                } else {
                    Err(format!("answered {head}"))
                }
            }
            Self::UpgradedWithout(header) => {
                let head = client.response_head().await;
                if status(&head) == 101 && !head.to_lowercase().contains(header) {
                    Ok(())
                } else {
                    Err(format!("answered {head}"))
                }
            }
        }
    }
}

async fn pieces(client: &mut RawClient, size: usize, bytes: &[u8]) -> Result<(), String> {
    for piece in bytes.chunks(size) {
        if !client.try_write(piece).await {
            break;
        }
        // Lets the segment go before the next one is written.
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn status(head: &str) -> u16 {
    let code = head.split(' ').nth(1);
    code.and_then(|code| code.parse().ok()).unwrap_or(0)
}
