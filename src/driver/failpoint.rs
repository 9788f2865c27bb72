//! Points at which a test lets the process die, to see that a restart loses nothing.
//!
//! They are in debug builds only: in a release build nothing is left of them, not even a name.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU32, Ordering};

/// Where to die: the name of a point, and behind a blank at which passage of it, counted from 1.
#[cfg(debug_assertions)]
const DIE_AT: &str = "ROWPROOF_DIE_AT";

/// The rows above which a batch is a large one, so that small ones can be.
#[cfg(debug_assertions)]
const LARGE_BATCH: &str = "ROWPROOF_LARGE_BATCH";

/// Ends the process as a crash would, if this is where it was told to die.
#[cfg(debug_assertions)]
pub fn pass(point: &str) {
    static PASSAGES: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var(DIE_AT) else {
        return;
    };
    let (name, passage) = wanted.split_once(' ').unwrap_or((&wanted, "1"));
    if name == point && (PASSAGES.fetch_add(1, Ordering::Relaxed) + 1).to_string() == passage {
        eprintln!("dies at {point}");
        std::process::abort();
    }
}

/// Ends the process in a debug build only.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn pass(_point: &str) {}

/// Returns the rows above which a batch is a large one.
#[cfg(debug_assertions)]
pub fn rows_per_transaction(default: usize) -> usize {
    let given = std::env::var(LARGE_BATCH).ok();
    given.and_then(|rows| rows.parse().ok()).unwrap_or(default)
}

/// Returns the rows above which a batch is a large one.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn rows_per_transaction(default: usize) -> usize {
    default
}
