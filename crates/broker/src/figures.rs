//! Metrics of the broker. Names are documented in `docs/metrics.md`; none carries a user's name.

use std::sync::LazyLock;

use metrics::{Counter, counter, describe_counter};
use stonechat_protocol::ErrorCode;

/// Refused sends; one series for each code, made with the first refusal.
const REFUSED: &str = "stonechat_messages_refused_total";

macro_rules! counters {
    ($($field:ident = $name:literal, $text:literal;)*) => {
        /// Handles looked up once: a lookup by name for each message would cost more than the count.
        pub(crate) struct Figures { $(pub(crate) $field: Counter,)* }

        /// The handles.
        pub(crate) static FIGURES: LazyLock<Figures> = LazyLock::new(|| {
            $(describe_counter!($name, $text);)*
            describe_counter!(REFUSED, "Sends answered with an error, by its code.");
            Figures { $($field: counter!($name),)* }
        });
    };
}

counters! {
    received = "stonechat_messages_received_total", "Sends taken up, resends and refused ones included.";
    accepted = "stonechat_messages_accepted_total", "Sends answered with accepted.";
    duplicates = "stonechat_messages_duplicate_total", "Resends recognised as accepted before.";
    ephemeral = "stonechat_messages_ephemeral_total", "Ephemeral sends passed on.";
    ephemeral_dropped = "stonechat_messages_ephemeral_dropped_total", "Ephemeral messages not handed to a connection that was behind.";
    delivered = "stonechat_messages_delivered_total", "Messages handed to a connection.";
    redelivered = "stonechat_messages_redelivered_total", "Of these, marked redelivered.";
    acks = "stonechat_acks_total", "Acknowledgements that moved a cursor.";
    receipts = "stonechat_receipts_total", "Receipt frames handed to a connection.";
    attaches = "stonechat_attaches_total", "Devices signed in.";
    sessions_started = "stonechat_sessions_started_total", "Sessions started.";
    dead_letters = "stonechat_dead_letters_total", "Messages moved to the dead letters.";
    resyncs = "stonechat_resyncs_total", "Sessions that had to catch up from their mailbox after a lost notification.";
}

/// A send was answered with an error. Looked up each time: that costs less than the error frame.
pub(crate) fn refused(code: ErrorCode) {
    counter!(REFUSED, "code" => code.as_str()).increment(1);
}
