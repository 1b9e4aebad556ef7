//! Answers every message with the same body, and survives its own crash.
//!
//! ```text
//! stonechat user add echo
//! STONECHAT_TOKEN=$(stonechat token echo --device bot) \
//!     cargo run -p stonechat-client --example echo_bot -- bot echo-state.json
//! ```
//! Arguments: the name of this device, the file to keep the state in. The
//! server is `STONECHAT_URL`, or `ws://127.0.0.1:8080`.

use std::error::Error;
use std::path::Path;

use stonechat_client::{AckMode, Client, Event, ResumeState};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(device), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: echo_bot DEVICE STATE_FILE".into());
    };
    let file = Path::new(&file);
    let url = std::env::var("STONECHAT_URL").unwrap_or_else(|_| "ws://127.0.0.1:8080".to_owned());
    let token = std::env::var("STONECHAT_TOKEN").map_err(|_| "STONECHAT_TOKEN is not set")?;

    let (client, mut events) = Client::builder(url, device)
        .token(token)
        .client_name("echo_bot/1")
        .resume(load(file)?)
        .ack_mode(AckMode::Manual)
        .connect()?;

    loop {
        let event = tokio::select! {
            event = events.next() => event,
            stop = tokio::signal::ctrl_c() => {
                stop?;
                break;
            }
        };
        match event {
            // Copies of what this user's other devices send carry `to`; no need to echo oneself.
            Some(Event::Message(message)) if message.to.is_none() => {
                let sent = client.send(&message.from.user, &message.body).await?;
                if message.seq != 0 {
                    client.ack(message.seq)?;
                }
                // The answer and the fact that the message is handled become durable together:
                // a crash before this line handles the message again, one after it does not.
                save(file, &client.resume_state())?;
                // The answer of the server is awaited beside the next messages.
                tokio::spawn(async move {
                    let id = sent.id();
                    if let Err(refused) = sent.await {
                        eprintln!("{id} was not accepted: {refused}");
                    }
                });
            }
            Some(Event::Message(message)) if message.seq != 0 => client.ack(message.seq)?,
            Some(Event::Connected(welcome)) => println!("signed in as {}", welcome.user),
            Some(Event::Disconnected { cause, retry_in }) => {
                println!("{cause}; next attempt in {retry_in:?}");
            }
            Some(Event::Terminal(terminal)) => return Err(terminal.into()),
            Some(_) => {}
            None => break,
        }
    }
    save(file, &client.close().await)?;
    Ok(())
}

fn load(file: &Path) -> Result<ResumeState, Box<dyn Error>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(ResumeState::default()),
        Err(e) => Err(e.into()),
    }
}

/// Written beside and renamed: a crash leaves the old state or the new one.
fn save(file: &Path, state: &ResumeState) -> Result<(), Box<dyn Error>> {
    let new = file.with_extension("new");
    std::fs::write(&new, serde_json::to_string(state)?)?;
    std::fs::rename(&new, file)?;
    Ok(())
}
