//! Panics of sled, told as what they are: damage in its file.
//!
//! What sled reads back and cannot make sense of is an error in some places and a panic in others. At a start,
//! or in a command, an operator has to be told the way out in both cases. While the node serves there is
//! nothing for it here: the threads that read have handlers of their own.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::StoreError;

/// Does work that reads the database. What it had begun is given up with it when it panics; the
/// panic itself, with its place, is in the log by then.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = text(&*panic);
        Err(StoreError::DamagedDatabase(format!(
            "(reading it panicked: {said})"
        )))
    })
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a word")
}
