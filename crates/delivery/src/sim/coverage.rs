//! What a run has exercised: one counter for each decision and each fault.
//!
//! A simulation that never reaches a case proves nothing about it, so a run
//! that leaves a counter at zero fails its test.

macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        /// Something worth having happened.
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Case { $($case),+ }

        impl Case {
            /// All of them.
            pub const ALL: &'static [Case] = &[$(Case::$case),+];
        }
    };
}

cases!(
    SendFresh,
    SendDuplicate,
    SendDuplicateLater,
    SendInFlight,
    SendTooOld,
    SendTooMany,
    SendEphemeral,
    AnswerAccepted,
    AnswerDuplicate,
    AnswerRefused,
    AnswersSeveral,
    RefusedMailboxFull,
    RefusedUnknownUser,
    RefusedRateLimited,
    RefusedAbandoned,
    FeedLive,
    FeedFromRead,
    FeedRedelivered,
    FeedRead,
    FeedReadEmpty,
    FeedReadFailed,
    FeedReadStale,
    FeedGapSeen,
    FeedWindowFull,
    FeedAutoAck,
    FeedOwnSkipped,
    FeedStartCaughtUp,
    AckMoved,
    AckRepeated,
    AckNotSent,
    AckWithHello,
    AckFreesRead,
    ReceiptDelivered,
    ReceiptDeliveredStale,
    ReceiptRead,
    ReceiptReadFound,
    ReceiptReadBetween,
    ReceiptReadStale,
    ReceiptReadUnknown,
    ReceiptToldOnConnect,
    CoalescerMerged,
    CoalescerFull,
    CoalescerDue,
    CoalescerRode,
    DeadLetter,
    PoisonRetried,
    ExpiredInRead,
    ExpiredInScan,
    ExpiredInAck,
    MailboxEmptied,
    ToSelf,
    CopyToOwnDevice,
    LateDevice,
    ClientDroppedRepeat,
    ClientStuck,
    ConnectionCut,
    ConnectionReplaced,
    Crash,
    CrashKeptTail,
    CrashLostTail,
    WriteFailed,
    SessionPanic,
    SessionPanicKeptSocket,
    SessionPanicClosedSocket,
    SessionEnded,
    ShardPanic,
    NotificationLost,
    Nudge,
    BarrierWaited,
    StaleRefusal,
    AttachWaited,
    ClockForward,
    ClockBack,
);

/// Counters of one or many schedules.
#[derive(Debug, Clone)]
pub struct Coverage {
    counts: [u64; Case::ALL.len()],
    /// Schedules run.
    pub schedules: u64,
    /// Steps taken in them.
    pub steps: u64,
    /// Messages accepted in them.
    pub accepted: u64,
}

impl Default for Coverage {
    fn default() -> Self {
        Self {
            counts: [0; Case::ALL.len()],
            schedules: 0,
            steps: 0,
            accepted: 0,
        }
    }
}

impl Coverage {
    pub(super) fn hit(&mut self, case: Case) {
        self.counts[case as usize] += 1;
    }

    /// How often a case happened.
    pub fn count(&self, case: Case) -> u64 {
        self.counts[case as usize]
    }

    /// Adds another's counters.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.accepted += other.accepted;
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<Case> {
        let never = |case: &Case| self.count(*case) == 0;
        Case::ALL.iter().copied().filter(never).collect()
    }
}
