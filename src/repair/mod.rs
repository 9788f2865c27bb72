//! The SQL that mends the target, with the source as the truth.
//!
//! INV-5: a repair never overwrites data newer than what it was derived from. Every statement
//! therefore names the whole row that was seen on the target, and touches nothing where the row
//! is another one by now. What was repaired stays unproven until a later fence reads it equal.

mod guard;
mod plan;
mod script;

pub use guard::delete_copies;
pub use plan::{Step, statement};
pub use script::{Header, Script};
