//! Sends one message and waits until the server has it.
//!
//! ```text
//! stonechat user add alice; stonechat user add bob
//! STONECHAT_TOKEN=$(stonechat token alice --device script) \
//!     cargo run -p stonechat-client --example send_one -- script bob "good morning"
//! ```
//! Arguments: the name of this device, the recipient, the text. The server is
//! `STONECHAT_URL`, or `ws://127.0.0.1:8080`.

use std::error::Error;

use stonechat_client::Client;
use stonechat_client::protocol::UserId;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(device), Some(to), Some(text)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: send_one DEVICE RECIPIENT TEXT".into());
    };
    let url = std::env::var("STONECHAT_URL").unwrap_or_else(|_| "ws://127.0.0.1:8080".to_owned());
    let token = std::env::var("STONECHAT_TOKEN").map_err(|_| "STONECHAT_TOKEN is not set")?;

    // Only sending: without the events, what waits for this device stays in the mailbox.
    let (client, _) = Client::builder(url, device)
        .token(token)
        .client_name("send_one/1")
        .tune(|tuning| tuning.attempts_max = Some(5))
        .connect()?;

    let sent = client
        .send(&UserId::new(to)?, serde_json::json!({ "text": text }))
        .await?;
    let id = sent.id();
    let accepted = sent.await?;
    println!("{id} accepted at {}", accepted.ts_ms);
    client.close().await;
    Ok(())
}
