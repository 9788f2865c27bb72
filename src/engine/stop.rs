//! Tables that are followed, and those that are not any more.

use crate::feed::{CommitTs, Offsets, Origin};
use crate::schema::Table;
use std::sync::Arc;

/// A table that is followed, or was until something stopped it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The definition by which rows are read, written and compared.
    pub table: Arc<Table>,
    /// The timestamp from which changes are applied: what committed later is not in the load.
    pub base: CommitTs,
    /// Why and when following ended. A stopped table is `Unproven`, never silently behind.
    pub stopped: Option<Stop>,
    /// Whether the table has a fresh base that no fence speaks of yet. All changes of it above the
    /// base go into the first batch, also those that earlier fences of the other tables passed.
    pub joins: bool,
}

impl Followed {
    /// Follows a table from its base on.
    pub fn new(table: Arc<Table>, base: CommitTs) -> Followed {
        Followed {
            table,
            base,
            stopped: None,
            joins: false,
        }
    }
}

/// The end of following a table, and of no other: the batch that ends it records that in its own
/// transaction, and from then on nothing of the table is written until it has a new base.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stop {
    /// The last timestamp whose rows were applied.
    pub at: CommitTs,
    /// What happened, for people.
    pub reason: String,
    /// The change that can never be applied, of a table that is *held* because of one. It stays in
    /// the feed, and its place in the record; none of a table that a DDL stopped.
    pub letter: Option<Letter>,
    /// Whether a fresh base is being loaded, which ends the stop.
    pub loading: bool,
}

/// A change that can never be applied, and where people find its message in Kafka.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Letter {
    /// When the change committed.
    pub commit_ts: CommitTs,
    /// The topic.
    pub topic: String,
    /// The partition of the topic.
    pub partition: usize,
    /// The offset of the record.
    pub offset: i64,
}

impl Letter {
    /// Names the place of a change; `offsets` tells the topics by the numbers of partitions.
    pub fn of(origin: Origin, offsets: &Offsets) -> Letter {
        let place = offsets.places().nth(origin.position.partition);
        let (topic, partition, _) = place.unwrap_or_default();
        Letter {
            commit_ts: origin.commit_ts,
            topic: topic.to_owned(),
            partition,
            offset: origin.position.offset,
        }
    }
}

impl Stop {
    /// Stops a table for a reason that lies in no change of a row.
    pub fn new(at: CommitTs, reason: impl Into<String>) -> Stop {
        Stop {
            at,
            reason: reason.into(),
            letter: None,
            loading: false,
        }
    }

    /// Holds a table at `at` because of a change that can never be applied.
    pub fn held(at: CommitTs, reason: impl Into<String>, letter: Letter) -> Stop {
        Stop {
            letter: Some(letter),
            ..Stop::new(at, reason)
        }
    }

    /// Returns the timestamp up to which a batch that ends at `to` tells of a table that this has stopped,
    /// if anything has.
    pub fn end(stop: Option<&Stop>, to: CommitTs) -> CommitTs {
        stop.map_or(to, |stop| stop.at.min(to))
    }

    /// Tells whether the table is held because of a change that can never be applied.
    pub fn is_held(&self) -> bool {
        self.letter.is_some()
    }
}
