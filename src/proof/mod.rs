//! The proof: rows of both sides compared at one fence, and what that allows to be said.

mod compare;
mod verdict;

pub use compare::{Comparison, Difference, DifferenceKind, compare};
pub use verdict::{Counts, How, Reason, TableProof, Verdict};
