//! The machines' states against what happened to them: a table for each machine
//! that has states, so that a combination nobody ever tried shows as a hole.
//!
//! States are the machines' own, said by the machines (`phase`), only coarser
//! than their fields. What cannot happen is listed with its machine; a run in
//! which it did is as wrong as one with a hole.

use std::fmt::Debug;

macro_rules! states {
    ($(#[$doc:meta])* $name:ident: $($variant:ident),+) => {
        $(#[$doc])*
        #[allow(missing_docs)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name { $($variant),+ }

        impl $name {
            /// All of them.
            const ALL: &'static [Self] = &[$(Self::$variant),+];
        }
    };
}

states!(
    /// What a feed is about.
    ///
    /// `Idle`: sent everything, all acknowledged. `Live`: sent everything. `Behind`: there is more, and it
    /// waits for room or for a read to be tried again. `Blocked`: the next one does not fit. `Reading`.
    FeedState: Idle, Live, Behind, Blocked, Reading
);
states!(
    /// What happens to a feed.
    FeedEvent: Start, Committed, CommittedOwn, ReadDone, ReadFailed, Nudge, Ack, AckRepeated,
        AckNotSent
);
states!(
    /// What a sending device's machine holds.
    ///
    /// `Idle`: nothing. `Owed`: sends being committed, answers owed. `Unowed`: being committed, for a
    /// connection that is gone. `Queued`: answers or repeats wait behind earlier ones.
    OutboundState: Idle, Owed, Unowed, Queued
);
states!(
    /// What happens to it.
    OutboundEvent: Fresh, Duplicate, DuplicateLater, InFlight, TooOld, TooMany, Committed,
        Refused, Abandoned, Disconnected
);
states!(
    /// How much an id window holds.
    WindowState: Empty, Partial, Full
);
states!(
    /// What happens to it: ids are looked up, and put in when their message is stored; `Repeated` is one
    /// that was in already.
    WindowEvent: New, Accepted, Below, Inserted, Repeated
);
states!(
    /// A conversation's watermarks.
    ///
    /// `Nothing`: none. `Delivered`: nothing read yet. `ReadBehind`, `ReadAll`: read less than, or all that
    /// was delivered.
    ReceiptsState: Nothing, Delivered, ReadBehind, ReadAll
);
states!(
    /// What happens to them.
    ReceiptsEvent: DeliveredMoved, DeliveredStale, ReadMoved, ReadStale, ReadUnknown, Restored
);

/// Counts of one machine: a row for each state, a column for each event.
#[derive(Debug, Clone)]
struct Table<const S: usize, const E: usize> {
    counts: [[u64; E]; S],
}

impl<const S: usize, const E: usize> Default for Table<S, E> {
    fn default() -> Self {
        Self {
            counts: [[0; E]; S],
        }
    }
}

impl<const S: usize, const E: usize> Table<S, E> {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            for (mine, theirs) in mine.iter_mut().zip(theirs) {
                *mine += theirs;
            }
        }
    }
}

macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident, $hit:ident, $machine:literal, $state:ident, $event:ident,
        impossible: [$($in:ident + $what:ident),* $(,)?];)+) => {
        /// The tables of all machines with states.
        #[derive(Debug, Clone, Default)]
        pub struct Transitions {
            $($(#[$doc])* $field: Table<{ $state::ALL.len() }, { $event::ALL.len() }>,)+
        }

        impl Transitions {
            $(pub(super) fn $hit(&mut self, state: $state, event: $event) {
                self.$field.counts[state as usize][event as usize] += 1;
            })+

            pub(super) fn merge(&mut self, other: &Self) {
                $(self.$field.merge(&other.$field);)+
            }

            /// Each machine's table, to be shown: its name, its events, and a row for each state.
            pub fn sheets(&self) -> Vec<Sheet> {
                vec![$(sheet(
                    $machine, $state::ALL, $event::ALL, &self.$field.counts,
                    &[$(($state::$in, $event::$what)),*],
                )),+]
            }
        }
    };
}

tables!(
    /// `Feed`.
    feed, feed, "Feed", FeedState, FeedEvent, impossible: [
        // A read is outstanding or it is not.
        Idle + ReadDone, Idle + ReadFailed, Live + ReadDone, Live + ReadFailed, Behind + ReadDone,
        Behind + ReadFailed, Blocked + ReadDone, Blocked + ReadFailed,
        // Whoever has acknowledged all there is has nothing left to acknowledge.
        Idle + Ack,
        // A new feed has sent nothing.
        Live + Start, Blocked + Start,
    ];
    /// `Outbound`.
    outbound, outbound, "Outbound", OutboundState, OutboundEvent, impossible: [
        // Nothing is under way that could be sent again, be too many or be refused.
        Idle + DuplicateLater, Idle + InFlight, Idle + TooMany, Idle + Refused, Idle + Abandoned,
        // A repeat is answered at once exactly when no answer is owed.
        Owed + Duplicate, Queued + Duplicate, Unowed + DuplicateLater,
    ];
    /// `IdWindow`, of a sending device.
    window, window, "IdWindow", WindowState, WindowEvent, impossible: [
        Empty + Accepted, Empty + Below, Empty + Repeated,
    ];
    /// `Receipts`.
    receipts, receipts, "Receipts", ReceiptsState, ReceiptsEvent, impossible: [
        // Any news moves a conversation without watermarks, and what is no news is refused.
        Nothing + DeliveredStale, Nothing + ReadStale,
    ];
);

/// One cell of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// It happened so often.
    Count(u64),
    /// It cannot happen, and did not.
    Impossible,
    /// It cannot happen, and did: the list is wrong, or a machine is.
    Unexpected(u64),
}

/// One machine's table.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// The machine.
    pub machine: &'static str,
    /// Names of the columns.
    pub events: Vec<String>,
    /// Name and cells of each row.
    pub rows: Vec<(String, Vec<Cell>)>,
}

fn sheet<S, E, const R: usize, const C: usize>(
    machine: &'static str,
    states: &[S],
    events: &[E],
    counts: &[[u64; C]; R],
    impossible: &[(S, E)],
) -> Sheet
where
    S: Debug + Copy + PartialEq,
    E: Debug + Copy + PartialEq,
{
    let row = |(state, counts): (&S, &[u64; C])| {
        let cell =
            |(event, count): (&E, &u64)| match (count, impossible.contains(&(*state, *event))) {
                (0, true) => Cell::Impossible,
                (count, true) => Cell::Unexpected(*count),
                (count, false) => Cell::Count(*count),
            };
        let cells = events.iter().zip(counts).map(cell).collect();
        (format!("{state:?}"), cells)
    };
    Sheet {
        machine,
        events: events.iter().map(|event| format!("{event:?}")).collect(),
        rows: states.iter().zip(counts).map(row).collect(),
    }
}

impl Transitions {
    /// What could have happened and never did, and what should not have and did.
    pub fn holes(&self) -> Vec<String> {
        let mut holes = Vec::new();
        for sheet in self.sheets() {
            for (state, cells) in &sheet.rows {
                for (event, cell) in sheet.events.iter().zip(cells) {
                    let machine = sheet.machine;
                    match cell {
                        Cell::Count(0) => holes.push(format!("{machine}: {event} while {state}")),
                        Cell::Unexpected(_) => {
                            holes.push(format!("{machine}: {event} while {state} happened"));
                        }
                        Cell::Count(_) | Cell::Impossible => {}
                    }
                }
            }
        }
        holes
    }
}
