//! Points at which a test lets the process die, to see that a restart loses nothing.
//!
//! They are in debug builds only: in a release build nothing is left of them, not even a name.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU32, Ordering};

/// Where to die: the name of a point, and behind a blank at which passage of it, counted from 1.
#[cfg(debug_assertions)]
const DIE_AT: &str = "ROWPROOF_DIE_AT";

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

/// Returns a size that a test may make smaller, by an environment variable, so that what is made of large
/// things is met by small ones.
#[cfg(debug_assertions)]
pub fn size(variable: &str, default: usize) -> usize {
    let given = std::env::var(variable).ok();
    given.and_then(|size| size.parse().ok()).unwrap_or(default)
}

/// Returns the size, in a release build as it is.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn size(_variable: &str, default: usize) -> usize {
    default
}
