//! The dispatchers: one on each thread that has sessions, telling those of it
//! what was committed for them.
//!
//! A commit concerns many sessions on few threads. So the committer's thread
//! sorts what it has to tell by thread and crosses once to each; from there to
//! the sessions no thread is crossed any more. A dispatcher keeps nothing: when
//! its inbox was full, or it panicked, the sessions of its thread look into the
//! store instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stonechat_actors::{Ctx, Handle, Supervised};
use stonechat_mailbox::{Envelope, Unavailable};
use stonechat_protocol::{Seq, UserId};

use crate::lagging::Lagging;
use crate::session::{Answer, Deliver};
use crate::shared::Shared;

/// How often lost notices are made good, milliseconds.
pub(crate) const RESYNC_INTERVAL_MS: u64 = 100;

/// A commit of at least this many messages is large: the node is busy, and sharing writes is
/// worth more than telling a sender at once.
const LARGE_COMMIT_MESSAGES: usize = 16;

/// What became of one message, for one user.
pub(crate) enum Notice {
    /// It has a place in the user's mailbox.
    Placed {
        user: UserId,
        prev: Seq,
        seq: Seq,
        envelope: Arc<Envelope>,
    },
    /// Its sender is to be told.
    Answer {
        envelope: Arc<Envelope>,
        outcome: Result<(), Unavailable>,
    },
}

/// The notices of one commit for the sessions of one thread.
pub(crate) struct CommitBatch {
    pub(crate) notices: Vec<Notice>,
    /// Messages of the whole commit.
    pub(crate) messages: usize,
}

/// One dispatcher.
pub(crate) struct Dispatcher {
    /// Its number, which the mailboxes of its sessions' users carry.
    home: u32,
    /// A batch did not fit into the inbox.
    lost: Arc<AtomicBool>,
    lagging: Lagging,
}

impl Dispatcher {
    pub(crate) fn new(shared: Arc<Shared>, home: u32, lost: Arc<AtomicBool>) -> Self {
        Self {
            home,
            lost,
            lagging: Lagging::new(shared),
        }
    }

    fn resync_everyone(&mut self) {
        let home = self.home;
        self.lagging.add_all(|anchor| anchor.mailbox.home() == home);
        self.lagging.resync();
    }

    fn tick(&mut self) {
        if self.lost.swap(false, Ordering::AcqRel) {
            tracing::warn!(
                dispatcher = self.home,
                "notifications were lost; sessions catch up from the store"
            );
            self.resync_everyone();
        } else if self.lagging.len() > 0 {
            self.lagging.resync();
        }
    }
}

impl Supervised for Dispatcher {
    const KIND: &'static str = "dispatcher";

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        ctx.run_interval(Duration::from_millis(RESYNC_INTERVAL_MS), |me, _| me.tick());
        if ctx.generation() > 1 {
            self.resync_everyone();
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        serde_json::json!({
            "dispatcher": self.home,
            "lagging_sessions": self.lagging.len(),
        })
    }
}

impl Handle<CommitBatch> for Dispatcher {
    fn handle(&mut self, batch: CommitBatch, _ctx: &mut Ctx<Self>) {
        let large = batch.messages >= LARGE_COMMIT_MESSAGES;
        let since = Instant::now();
        for notice in batch.notices {
            match notice {
                Notice::Placed {
                    user,
                    prev,
                    seq,
                    envelope,
                } => {
                    let message = Deliver {
                        prev,
                        seq,
                        envelope,
                        busy: large,
                    };
                    self.lagging.tell(&user, message);
                }
                Notice::Answer { envelope, outcome } => {
                    let user = envelope.from.user.clone();
                    let answer = Answer {
                        envelope,
                        outcome,
                        since,
                        hurry: !large,
                    };
                    // Waking a session for it costs more than all else about an answer.
                    self.lagging.tell_unless(&user, answer, |anchor| {
                        large && anchor.patient.load(Ordering::Acquire)
                    });
                }
            }
        }
    }
}

/// Fault injection.
pub(crate) struct Panic;

impl Handle<Panic> for Dispatcher {
    fn handle(&mut self, _: Panic, _: &mut Ctx<Self>) {
        panic!("injected into a dispatcher");
    }
}
