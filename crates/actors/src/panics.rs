//! Catching panics with their location and backtrace, without printing them.
//!
//! A panic hook is installed once for the process and chains to whatever hook was there. On a thread that
//! is currently running supervised code it records and stays silent, because the supervisor logs the crash
//! once, where it is handled; everywhere else the earlier hook speaks as before. It does not decide what
//! happens next and it never swallows a panic.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    sync::{Arc, Once},
};

use crate::reason::{CrashTrace, ExitReason};

/// Longest panic message kept, in bytes: a payload is quoted in logs and kept in the crash ring.
const PAYLOAD_BYTES_MAX: usize = 2048;

struct Captured {
    location: String,
    backtrace: CrashTrace,
}

thread_local! {
    static SUPERVISED: Cell<u32> = const { Cell::new(0) };
    static CAPTURED: RefCell<Option<Captured>> = const { RefCell::new(None) };
}

/// Installs the hook; further calls do nothing.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if SUPERVISED.try_with(Cell::get).unwrap_or(0) == 0 {
                earlier(info);
                return;
            }
            let captured = Captured {
                location: info
                    .location()
                    .map_or_else(|| "unknown".to_owned(), ToString::to_string),
                backtrace: CrashTrace::capture(),
            };
            // The borrow cannot be held here: nothing that can panic runs while it is.
            let _ = CAPTURED.try_with(|slot| {
                if let Ok(mut slot) = slot.try_borrow_mut() {
                    *slot = Some(captured);
                }
            });
        }));
    });
}

/// While it lives, panics on this thread are recorded instead of printed.
pub(crate) struct QuietPanics(());

impl QuietPanics {
    pub(crate) fn enter() -> Self {
        let _ = SUPERVISED.try_with(|depth| depth.set(depth.get() + 1));
        Self(())
    }
}

impl Drop for QuietPanics {
    fn drop(&mut self) {
        let _ = SUPERVISED.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

/// Runs `f`; a panic becomes a typed reason. `label` names what was running, asked only after a panic.
///
/// Unwind safety is asserted: every caller throws the value that `f` worked on away when this fails.
pub(crate) fn guard<R>(label: &'static str, f: impl FnOnce() -> R) -> Result<R, Arc<ExitReason>> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| Arc::new(reason_of(label, payload)))
}

fn reason_of(label: &'static str, payload: Box<dyn Any + Send>) -> ExitReason {
    let text = if let Some(text) = payload.downcast_ref::<&'static str>() {
        clip(text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        clip(text)
    } else {
        "(a payload that is not text)".to_owned()
    };
    drop_quietly(payload);
    let captured = CAPTURED
        .try_with(|slot| slot.try_borrow_mut().ok().and_then(|mut slot| slot.take()))
        .ok()
        .flatten();
    let (location, backtrace) = captured.map_or_else(
        || ("unknown".to_owned(), CrashTrace::NONE),
        |seen| (seen.location, seen.backtrace),
    );
    ExitReason::Panicked {
        message_type: label,
        payload: text,
        location,
        backtrace,
    }
}

/// Drops a value whose destructor may panic. What that panic carries may panic too: it is leaked then,
/// rather than tried for ever.
pub(crate) fn drop_quietly<T>(value: T) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(value))) {
        std::mem::forget(again);
    }
}

/// Drops a value whose destructor may panic and says so.
pub(crate) fn drop_guarded<T>(value: T) -> Result<(), Arc<ExitReason>> {
    guard("drop", move || drop(value))
}

fn clip(text: &str) -> String {
    let mut end = text.len().min(PAYLOAD_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// Whether this build unwinds: with `panic = "abort"` none of this crate's promises hold.
///
/// Costs one caught panic; call it once at start-up and refuse to serve when it is false.
#[must_use]
pub fn panics_unwind() -> bool {
    install_hook();
    cfg!(panic = "unwind") && {
        let _quiet = QuietPanics::enter();
        catch_unwind(|| panic_any("probe")).is_err()
    }
}
