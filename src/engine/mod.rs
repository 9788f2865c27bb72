//! The machine that decides what happens next, without touching a socket: the driver feeds it what
//! happened and carries out what it says, and tests drive it with any order of events.

mod action;
mod follow;
mod stop;

pub use follow::{Batch, Follow};
pub use stop::{Followed, Letter, Stop};
