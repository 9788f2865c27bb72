//! How much rowproof asks of the two databases: limits that the operator sets, and backing off by
//! itself when one of them answers much slower than it did.
//!
//! There is one gate for each side, which all connections of the process to that side share. Reads of
//! rows and writes of rows pass it; rowproof's own record, the lease above all, does not.

mod bucket;
mod gate;
mod latency;
mod limit;

pub use gate::{Flow, Gate, PAUSE_MAX, Pass, SideStatus};
pub use latency::Slow;
pub use limit::{LimitChange, LimitName, Limits, SideLimits};

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One of the two databases.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The database that is migrated.
    Source,
    /// The database that is written.
    Target,
}

impl Side {
    /// Both.
    pub const ALL: [Side; 2] = [Side::Source, Side::Target];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }

    /// Reads the word for it.
    pub fn parse(word: &str) -> Option<Side> {
        Side::ALL.into_iter().find(|side| side.as_str() == word)
    }
}

/// The gates of both sides.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// The gate of all connections to the source.
    pub source: Arc<Gate>,
    /// The gate of all connections to the target.
    pub target: Arc<Gate>,
}

impl Throttle {
    /// Makes gates with limits.
    pub fn new(limits: &Limits) -> Throttle {
        Throttle {
            source: Arc::new(Gate::new(limits.source)),
            target: Arc::new(Gate::new(limits.target)),
        }
    }

    /// Changes the limits; what waits at a gate is held by the new ones at once.
    pub fn set(&self, limits: &Limits) {
        self.source.set_limits(limits.source);
        self.target.set_limits(limits.target);
    }
}
