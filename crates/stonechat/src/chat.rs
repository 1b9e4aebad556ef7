//! `stonechat chat`: a line-based chat for a terminal or a pipe.
//!
//! It shows what the client library tells, one line each, and keeps nothing on
//! disk. It creates no users and no tokens, and draws no screens: output that
//! goes to a file reads the same as on a terminal.

mod text;

use std::collections::VecDeque;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use stonechat_client::protocol::{Accepted, DeviceId, Message, MessageId, Receipt, UserId};
use stonechat_client::{AckMode, BuildError, Client, Event, Refused, SendError, Terminal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use text::{body_text, clean, clock, quote};

/// Longer lines are sent in parts.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// Lines typed ahead; the reader of standard input waits beyond.
const LINES_AHEAD_MAX: usize = 64;

/// Own messages whose ticks are still shown.
const TICKS_MAX: usize = 256;

/// Attempts to connect in a row; the last ones are half a minute apart at most.
const ATTEMPTS_MAX: u32 = 10;

/// Time for outstanding answers once the input has ended.
const FINISH_MAX: Duration = Duration::from_secs(10);

const HELP: &str = "\
/to NAME   talk to NAME from here on
/quit      leave (so does the end of the input)
/help      this
Anything else is sent; a line that begins with // is sent with one slash.
\u{2713} the server has it   \u{2713}\u{2713} delivered, or read";

/// What `stonechat chat` needs to know.
pub(crate) struct ChatOptions {
    /// The server: `ws://HOST:PORT` or `wss://HOST:PORT`.
    pub(crate) url: String,
    /// Who is chatting.
    pub(crate) user: UserId,
    /// The name of this device.
    pub(crate) device: DeviceId,
    /// To whom lines go at first.
    pub(crate) to: Option<UserId>,
    /// The token to sign in with.
    pub(crate) token: String,
    /// Certificates to trust in place of those of the system.
    pub(crate) ca_file: Option<PathBuf>,
}

/// Why a chat ended other than by request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChatError {
    /// The client could not be set up.
    #[error(transparent)]
    Setup(#[from] BuildError),
    /// The client ended.
    #[error("the chat has ended: {0}")]
    Ended(Terminal),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
    /// The input ended, and the server did not answer in time.
    #[error("{count} messages were not confirmed by the server: send them again")]
    Unanswered {
        /// How many.
        count: usize,
    },
}

/// Chats on standard input and output until the input ends or `/quit`.
///
/// # Errors
/// [`ChatError`]; its text is meant for the user.
pub(crate) async fn run(options: ChatOptions) -> Result<(), ChatError> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD_MAX);
    // A thread of its own: reading a terminal cannot be cancelled, and this one is simply
    // left behind at the end of the process.
    std::thread::Builder::new()
        .name("chat-input".to_owned())
        .spawn(move || read_lines(io::stdin().lock(), &sender))?;
    run_with(options, lines, io::stdout(), FINISH_MAX).await
}

fn read_lines(mut input: impl BufRead, lines: &mpsc::Sender<String>) {
    loop {
        let mut line = Vec::new();
        match input
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        if lines.blocking_send(text).is_err() {
            return;
        }
    }
}

/// The chat on any input and output.
async fn run_with(
    options: ChatOptions,
    mut lines: mpsc::Receiver<String>,
    out: impl Write,
    finish_max: Duration,
) -> Result<(), ChatError> {
    let mut builder = Client::builder(options.url, options.device.as_str())
        .token(options.token)
        .client_name(concat!("stonechat-chat/", env!("CARGO_PKG_VERSION")))
        // A message counts as handled once it is shown, also when /quit comes next.
        .ack_mode(AckMode::Manual)
        .tune(|tuning| tuning.attempts_max = Some(ATTEMPTS_MAX));
    if let Some(ca_file) = options.ca_file {
        builder = builder.ca_file(ca_file);
    }
    let (client, mut events) = builder.connect()?;
    let mut chat = Chat {
        client: client.clone(),
        out,
        me: options.user,
        to: options.to,
        ticks: VecDeque::new(),
        answers: JoinSet::new(),
    };
    let mut finish_at: Option<Instant> = None;
    loop {
        if finish_at.is_some() && chat.answers.is_empty() {
            break;
        }
        let finish = finish_at.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            Some(answer) = chat.answers.join_next() => {
                if let Ok((id, answer)) = answer {
                    chat.answered(id, answer)?;
                }
            }
            event = events.next() => match event {
                Some(Event::Terminal(terminal)) => return Err(ChatError::Ended(terminal)),
                Some(event) => chat.event(event)?,
                None => return Err(ChatError::Ended(Terminal::Closed)),
            },
            line = lines.recv(), if finish_at.is_none() => {
                let goes_on = match line {
                    Some(line) => chat.line(&line).await?,
                    None => false,
                };
                if !goes_on {
                    finish_at = Some(Instant::now() + finish_max);
                }
            }
            () = tokio::time::sleep_until(finish), if finish_at.is_some() => break,
        }
    }
    let count = chat.answers.len();
    client.close().await;
    if count > 0 {
        return Err(ChatError::Unanswered { count });
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tick {
    Sent,
    Accepted,
    Delivered,
    Read,
}

/// An own message whose ticks are still shown.
struct Ticked {
    id: MessageId,
    to: UserId,
    quote: String,
    tick: Tick,
}

struct Chat<W> {
    client: Client,
    out: W,
    me: UserId,
    to: Option<UserId>,
    ticks: VecDeque<Ticked>,
    /// At most 64: the client waits beyond.
    answers: JoinSet<(MessageId, Result<Accepted, Refused>)>,
}

impl<W: Write> Chat<W> {
    fn say(&mut self, line: &str) -> io::Result<()> {
        // In one write, so that lines stay whole beside those of other processes.
        self.out.write_all(format!("{line}\n").as_bytes())?;
        self.out.flush()
    }

    /// `false` when the user wants to leave.
    async fn line(&mut self, line: &str) -> Result<bool, ChatError> {
        let text = match line.strip_prefix('/') {
            None => line,
            Some(slashed) if slashed.starts_with('/') => slashed,
            Some(command) => return self.command(command),
        };
        if text.trim().is_empty() {
            return Ok(true);
        }
        let Some(to) = self.to.clone() else {
            self.say("· to whom? /to NAME")?;
            return Ok(true);
        };
        match self
            .client
            .send(&to, serde_json::json!({ "text": text }))
            .await
        {
            Ok(sent) => {
                let id = sent.id();
                if self.ticks.len() == TICKS_MAX {
                    self.ticks.pop_front();
                }
                self.ticks.push_back(Ticked {
                    id,
                    to,
                    quote: quote(text),
                    tick: Tick::Sent,
                });
                self.answers.spawn(async move { (id, sent.await) });
            }
            Err(SendError::Ended(terminal)) => return Err(ChatError::Ended(terminal)),
            Err(e) => self.say(&format!("! not sent: {e}"))?,
        }
        Ok(true)
    }

    fn command(&mut self, command: &str) -> Result<bool, ChatError> {
        let mut words = command.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("quit"), None, None) => return Ok(false),
            (Some("help"), None, None) => self.say(HELP)?,
            (Some("to"), Some(name), None) => match UserId::new(name) {
                Ok(user) => {
                    self.say(&format!("· talking to {user}"))?;
                    self.to = Some(user);
                }
                Err(e) => self.say(&format!("! {e}"))?,
            },
            _ => self.say("! there is no such command; /help lists them")?,
        }
        Ok(true)
    }

    fn answered(
        &mut self,
        id: MessageId,
        answer: Result<Accepted, Refused>,
    ) -> Result<(), ChatError> {
        let Some(at) = self.ticks.iter().position(|ticked| ticked.id == id) else {
            return Ok(());
        };
        match answer {
            Ok(_) => {
                let ticked = &mut self.ticks[at];
                if ticked.tick < Tick::Accepted {
                    ticked.tick = Tick::Accepted;
                    let line = format!("\u{2713} to {}: {}", ticked.to, ticked.quote);
                    self.say(&line)?;
                }
            }
            Err(refused) => {
                let Some(ticked) = self.ticks.remove(at) else {
                    return Ok(());
                };
                let refused = clean(&refused.to_string());
                self.say(&format!(
                    "! not sent to {}: {} ({refused})",
                    ticked.to, ticked.quote
                ))?;
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), ChatError> {
        match event {
            Event::Connected(welcome) => {
                let waiting = match welcome.pending {
                    0 => String::new(),
                    n => format!(", {n} waiting"),
                };
                let to = match &self.to {
                    Some(to) => format!(", talking to {to}"),
                    None => "; /to NAME chooses whom to talk to".to_owned(),
                };
                self.say(&format!("· connected as {}{waiting}{to}", welcome.user))?;
            }
            Event::Message(message) => self.message(&message)?,
            Event::Receipt(receipt) => self.receipt(&receipt)?,
            Event::Disconnected { cause, retry_in } => {
                let cause = clean(&cause.to_string());
                let seconds = retry_in.as_secs_f32();
                self.say(&format!("· {cause}; trying again in {seconds:.1} s"))?;
            }
            Event::ServerError(error) => {
                let text = clean(&error.message);
                self.say(&format!("! {}: {text}", error.code))?;
            }
            Event::Lagged { dropped } => {
                self.say(&format!("· {dropped} passing notices were left out"))?;
            }
            // Settled: nothing is taken over from earlier runs. Terminal: the caller's.
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, message: &Message) -> Result<(), ChatError> {
        let time = clock(message.ts_ms);
        let text = body_text(&message.body);
        match &message.to {
            Some(to) => {
                let line = format!("[{time}] {} \u{2192} {}: {text}", self.me, to.user);
                self.say(&line)?;
            }
            None => {
                self.say(&format!("[{time}] {}: {text}", message.from.user))?;
                if !message.ephemeral {
                    // Full, or ended: the mark is lost, the message is not.
                    if let Err(error) = self.client.read(&message.from.user, message.id) {
                        tracing::debug!(%error, "read mark not sent");
                    }
                }
            }
        }
        if message.seq != 0
            && let Err(error) = self.client.ack(message.seq)
        {
            tracing::warn!(%error, "message not acknowledged");
        }
        Ok(())
    }

    fn receipt(&mut self, receipt: &Receipt) -> Result<(), ChatError> {
        for (id, tick, word) in [
            (receipt.delivered, Tick::Delivered, "delivered to"),
            (receipt.read, Tick::Read, "read by"),
        ] {
            let last = self
                .ticks
                .iter()
                .rposition(|ticked| Some(ticked.id) == id && ticked.to == receipt.with);
            let Some(last) = last else { continue };
            // When both moved, "read" says it all.
            if tick == Tick::Delivered && receipt.read == id || self.ticks[last].tick >= tick {
                continue;
            }
            let line = format!(
                "\u{2713}\u{2713} {word} {}: {}",
                receipt.with, self.ticks[last].quote
            );
            for ticked in self.ticks.range_mut(..=last) {
                if ticked.to == receipt.with {
                    ticked.tick = ticked.tick.max(tick);
                }
            }
            self.say(&line)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
