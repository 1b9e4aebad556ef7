//! What varies from seed to seed: the size of the world, its limits, how much
//! goes wrong, and how long it lasts.

use super::rng::Rng;

/// Most devices of a user.
pub(super) const DEVICES_MAX: usize = 3;

/// Drawn once at the start of a schedule. Rates are in thousandths of the chances.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) users: usize,
    /// Devices each user will have in the end.
    pub(super) devices: [usize; 5],
    pub(super) steps: usize,
    pub(super) window_messages_max: u32,
    pub(super) window_bytes_max: u32,
    pub(super) quota_messages: usize,
    pub(super) unanswered_max: usize,
    /// Sends more than the protocol allows.
    pub(super) greedy: bool,
    /// Sends again without reconnecting.
    pub(super) impatient: bool,
    /// Does not send again what it has no answer for.
    pub(super) forgetful: bool,
    /// Tries acknowledgements and reads of what does not exist.
    pub(super) liar: bool,
    /// Device clocks differ by up to this much.
    pub(super) skew_ms: u64,
    pub(super) burst_max: usize,
    pub(super) linger_ms: u32,
    pub(super) conversations_max: u32,
    pub(super) messages_per_s: u32,
    pub(super) bytes_per_s: u32,
    pub(super) short_ttl: u32,
    pub(super) poison: u32,
    pub(super) ephemeral: u32,
    pub(super) crash: u32,
    pub(super) cut: u32,
    pub(super) stuck: u32,
    /// How often a client without a connection makes one.
    pub(super) connect: u32,
    /// How often a client goes away by itself.
    pub(super) leave: u32,
    pub(super) session_panic: u32,
    pub(super) session_end: u32,
    pub(super) shard_panic: u32,
    pub(super) write_failure: u32,
    pub(super) sync_failure: u32,
    pub(super) read_failure: u32,
    pub(super) note_loss: u32,
    pub(super) clock_step: u32,
    pub(super) ack_delay: u32,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let users = rng.pick(&[2, 2, 2, 3, 3, 4, 5]);
        let mut devices = [0; 5];
        for count in &mut devices {
            *count = rng.pick(&[1, 1, 2, 2, DEVICES_MAX]);
        }
        // A third of the worlds are busy and lossy, a few have no faults at all: what only
        // shows when nothing else disturbs it must have its chance too.
        let faults = rng.pick(&[0, 1, 1, 1, 3, 3]);
        let mut rate = |choices: &[u32]| rng.pick(choices) * faults;
        let crash = rate(&[0, 100, 300, 600]);
        let cut = rate(&[0, 100, 300, 600]);
        let stuck = rate(&[0, 100, 200]);
        let session_panic = rate(&[0, 0, 5, 15]);
        let session_end = rate(&[0, 300, 900]);
        let shard_panic = rate(&[0, 0, 10, 30]);
        let write_failure = rate(&[0, 0, 10, 50]);
        let sync_failure = rate(&[0, 0, 0, 10]);
        let read_failure = rate(&[0, 0, 50, 150]);
        let note_loss = rate(&[0, 0, 50, 200]);
        let clock_step = rate(&[0, 0, 100, 200]);
        let poison = rate(&[0, 0, 0, 5]);
        let plan = Self {
            users,
            devices,
            steps: rng.pick(&[80, 150, 250, 400]),
            window_messages_max: rng.pick(&[1, 2, 3, 8, 64]),
            window_bytes_max: rng.pick(&[10, 100, 10_000]),
            quota_messages: rng.pick(&[5, 50, 1000, 1000, 1000]),
            unanswered_max: rng.pick(&[1, 4, 16, 64, 64]),
            greedy: rng.chance(40),
            impatient: rng.chance(150),
            forgetful: rng.chance(80),
            liar: rng.chance(200),
            skew_ms: rng.pick(&[0, 0, 10, 100_000]),
            burst_max: rng.pick(&[1, 3, 3, 8, 30]),
            linger_ms: rng.pick(&[0, 5, 50]),
            conversations_max: rng.pick(&[1, 2, 8]),
            messages_per_s: rng.pick(&[20, 1000, 1000, 1000]),
            bytes_per_s: rng.pick(&[100, 100_000, 100_000, 100_000]),
            short_ttl: rng.pick(&[0, 0, 50, 200]),
            poison,
            ephemeral: rng.pick(&[0, 0, 50]),
            crash,
            cut,
            stuck,
            connect: rng.pick(&[30, 500, 900]),
            leave: rng.pick(&[0, 5, 30]),
            session_panic,
            session_end,
            shard_panic,
            write_failure,
            sync_failure,
            read_failure,
            note_loss,
            clock_step,
            ack_delay: rng.pick(&[0, 300, 800]),
        };
        match rng.chance(60) {
            true => plan.chatty(rng),
            false => plan,
        }
    }

    /// Two users who write so much that windows fill.
    fn chatty(self, rng: &mut Rng) -> Self {
        Self {
            users: 2,
            forgetful: rng.chance(300),
            impatient: false,
            connect: rng.pick(&[500, 900]),
            leave: rng.pick(&[5, 30, 200]),
            devices: [1; 5],
            steps: 800,
            window_messages_max: 64,
            window_bytes_max: 10_000,
            quota_messages: 1000,
            unanswered_max: 64,
            burst_max: rng.pick(&[30, 70]),
            messages_per_s: 1000,
            bytes_per_s: 100_000,
            ..self
        }
    }
}
