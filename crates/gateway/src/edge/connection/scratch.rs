//! Buffers that belong to a thread, lent to whichever connection is being
//! served: a connection at rest needs none of its own.

use std::cell::Cell;

use stonechat_broker::Event;

/// Read from a socket at a time, in bytes.
const READ_BYTES: usize = 16 * 1024;
/// A write buffer that has grown beyond this is not kept, in bytes.
const WRITE_BYTES_KEPT_MAX: usize = 256 * 1024;
/// An event buffer that has grown beyond this is not kept.
const EVENTS_KEPT_MAX: usize = 1024;

thread_local! {
    static READ: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static EVENTS: Cell<Vec<Event>> = const { Cell::new(Vec::new()) };
}

/// Borrows the read buffer. Taking it out, rather than borrowing in place, means that a
/// panic costs a buffer and never a poisoned one.
pub(super) fn take_read() -> Box<[u8]> {
    READ.take().unwrap_or_else(|| vec![0; READ_BYTES].into())
}

pub(super) fn give_back_read(buffer: Box<[u8]>) {
    READ.set(Some(buffer));
}

/// Borrows the write buffer; it is empty.
pub(super) fn take_write() -> Vec<u8> {
    WRITE.take()
}

pub(super) fn give_back_write(mut buffer: Vec<u8>) {
    if buffer.capacity() <= WRITE_BYTES_KEPT_MAX {
        buffer.clear();
        WRITE.set(buffer);
    }
}

/// Borrows the event buffer; it is empty.
pub(super) fn take_events() -> Vec<Event> {
    EVENTS.take()
}

pub(super) fn give_back_events(mut buffer: Vec<Event>) {
    if buffer.capacity() <= EVENTS_KEPT_MAX {
        buffer.clear();
        EVENTS.set(buffer);
    }
}
