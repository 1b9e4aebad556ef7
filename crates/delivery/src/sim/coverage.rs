//! What a run has exercised: for each machine and each part of the simulated
//! world, one counter for each decision, outcome and fault.
//!
//! A simulation that never reaches a case proves nothing about it, so a run
//! that leaves a counter at zero fails its test. The transitions of the machines
//! with states of their own are counted beside this, in `transitions`.

use super::transitions::Transitions;

macro_rules! cases {
    ($($machine:literal: $($case:ident),+;)+) => {
        /// Something worth having happened.
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Case { $($($case),+),+ }

        impl Case {
            /// All of them.
            pub const ALL: &'static [Case] = &[$($(Case::$case),+),+];

            /// All of them, by the machine or the part of the world they belong to.
            pub const BY_MACHINE: &'static [(&'static str, &'static [Case])] =
                &[$(($machine, &[$(Case::$case),+])),+];
        }
    };
}

cases!(
    "Outbound":
        SendFresh, SendDuplicate, SendDuplicateLater, SendInFlight, SendTooOld, SendTooMany,
        SendEphemeral, AnswerAccepted, AnswerDuplicate, AnswerRefused, AnswersSeveral,
        AnswerToNobody, RefusedMailboxFull, RefusedUnknownUser, RefusedRateLimited,
        RefusedAbandoned, StaleRefusal, BarrierWaited;
    "Feed":
        FeedLive, FeedFromRead, FeedRedelivered, FeedRead, FeedReadBounded, FeedReadEmpty,
        FeedReadFailed, FeedReadStale, FeedGapSeen, FeedWindowFull, FeedOversize, FeedAutoAck,
        FeedOwnSkipped, FeedStartCaughtUp, FeedStartUnsure, AckMoved, AckRepeated, AckNotSent,
        AckWithHello, AckFreesRead, AckOfEarlierConnection;
    "Receipts":
        ReceiptDelivered, ReceiptDeliveredStale, ReceiptRead, ReceiptReadFound,
        ReceiptReadBetween, ReceiptReadStale, ReceiptReadUnknown, ReceiptRestored,
        ReceiptToldOnConnect;
    "Coalescer":
        CoalescerHeld, CoalescerMerged, CoalescerFull, CoalescerDue, CoalescerDueByClockBack,
        CoalescerRode;
    "TokenBucket":
        BucketPaid, BucketShortOfMessages, BucketShortOfBytes, BucketClockBack;
    "Attempts":
        PoisonRetriedOnce, PoisonRetriedTwice, DeadLetter;
    "expiry":
        ExpiryAsked, ExpiryCapped, ExpiryLastMillisecond, ExpiredInRead, ExpiredInScan,
        ExpiredInAck, ExpiredByClockStep;
    "users and devices":
        ToSelf, CopyToOwnDevice, LateDevice, ClientDroppedRepeat, ClientStuck, ClientSlow,
        ConnectionCut, ConnectionReplaced, ResentAfterReconnect, AttachWaited;
    "mailboxes":
        MailboxEmptied, MailboxFullThenRoom, OwnCopyBeyondQuota;
    "disk":
        WriteFailed, SyncFailed, Crash, CrashKeptTail, CrashLostTail, CrashTornRecord,
        CrashKeptBeyondHole, CrashUndidRemoval;
    "actors":
        SessionPanic, SessionPanicKeptSocket, SessionPanicClosedSocket, SessionEnded,
        ShardPanic, NotificationLost, Nudge;
    "clock":
        ClockForward, ClockForwardHours, ClockBack;
);

/// Counters of one or many schedules.
#[derive(Debug, Clone)]
pub struct Coverage {
    counts: [u64; Case::ALL.len()],
    /// What each machine did in each of its states.
    pub transitions: Transitions,
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
            transitions: Transitions::default(),
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
        self.transitions.merge(&other.transitions);
        self.schedules += other.schedules;
        self.steps += other.steps;
        self.accepted += other.accepted;
    }

    /// What never happened, cases and transitions.
    pub fn holes(&self) -> Vec<String> {
        let never = |case: &&Case| self.count(**case) == 0;
        Case::ALL
            .iter()
            .filter(never)
            .map(|case| format!("{case:?}"))
            .chain(self.transitions.holes())
            .collect()
    }
}
