//! Fences: the pairs of timestamps at which both sides hold the same, and their record on the
//! target.
//!
//! A fence (W, S) is a TiDB timestamp W and an OceanBase snapshot S at which the target holds
//! exactly what the source held at W. The row `rowproof.fence` becomes `complete(W)` in the
//! transaction that brings the target to W; S is the commit number of that row. Any process finds
//! the newest fence from the row alone.

mod base;
mod record;

pub use base::BaseState;
pub use record::{FenceRow, FenceState, record_schema};

use crate::feed::CommitTs;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An OceanBase snapshot: a commit number (SCN), in nanoseconds since the epoch.
pub type Scn = u64;

/// INV-1: at this pair of snapshots, target as of S equals source as of W in scope, or a difference
/// says where not.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fence {
    /// The timestamp on the source.
    pub w: CommitTs,
    /// The snapshot on the target.
    pub s: Scn,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(W {}, S {})", self.w, self.s)
    }
}
