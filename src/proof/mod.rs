//! The proof: rows of both sides compared at one fence, and what that allows to be said.

mod bucket;
mod compare;
mod copies;
mod ledger;
mod verdict;

pub use bucket::{Buckets, DifferingBuckets, RowHasher, part_of};
pub use compare::{Comparison, Difference, DifferenceKind, Tally, compare, retain_keys};
pub use copies::{Copies, Counted, compare_copies, copy_key, copy_number};
pub use ledger::{Bucket, Ledger, ledger_obstacle};
pub use verdict::{Counts, How, Reason, TableProof, Verdict};
