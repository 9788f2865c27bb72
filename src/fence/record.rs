//! What rowproof keeps on the target, in the database `rowproof`: progress is durable only
//! together with the data (INV-3).

use crate::feed::{CommitTs, Offsets};
use serde::{Deserialize, Serialize};

/// Whether the target stands at a fence or between two.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FenceState {
    /// The target holds exactly what the source held at `w`.
    Complete,
    /// A batch of several transactions is being applied: what lies between `w` and `next_w` is
    /// there in part. The next fence is at `next_w` or later, never before.
    Applying,
}

impl FenceState {
    /// Returns the word that stands in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            FenceState::Complete => "complete",
            FenceState::Applying => "applying",
        }
    }

    /// Reads the word that stands in the table.
    pub fn parse(word: &str) -> Option<Self> {
        [FenceState::Complete, FenceState::Applying]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// The row of one task in `rowproof.fence`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FenceRow {
    /// Whether the target stands at `w`.
    pub state: FenceState,
    /// The timestamp of the last fence.
    pub w: CommitTs,
    /// The end of the batch that is being applied; `w` when complete.
    pub next_w: CommitTs,
    /// From where the feed must be read.
    pub offsets: Offsets,
}

impl FenceRow {
    /// Returns the earliest timestamp at which the next fence may lie.
    pub fn next_fence_at_least(&self) -> CommitTs {
        match self.state {
            FenceState::Complete => self.w,
            FenceState::Applying => self.next_w,
        }
    }
}

/// Returns the statements that make rowproof's own tables on the target, where they are missing.
pub fn record_schema() -> [&'static str; 8] {
    [
        "CREATE TABLE IF NOT EXISTS rowproof.task (
            task VARCHAR(64) NOT NULL PRIMARY KEY,
            state_id VARCHAR(64) NOT NULL COMMENT 'the state directory this task belongs to',
            base BIGINT UNSIGNED NOT NULL COMMENT 'T0: the TiDB timestamp of the full load',
            offsets TEXT NOT NULL COMMENT 'end offsets of the topics, noted before T0',
            loaded TINYINT NOT NULL DEFAULT 0 COMMENT '1 when every table is loaded and proven'
        ) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin COMMENT 'rowproof: one row per migration'",
        "CREATE TABLE IF NOT EXISTS rowproof.lease (
            task VARCHAR(64) NOT NULL PRIMARY KEY,
            epoch BIGINT UNSIGNED NOT NULL COMMENT 'grows with every take-over',
            holder VARCHAR(255) NOT NULL,
            beats BIGINT UNSIGNED NOT NULL COMMENT 'grows while the holder lives'
        ) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin COMMENT 'rowproof: who may write'",
        "CREATE TABLE IF NOT EXISTS rowproof.slot (
            task VARCHAR(64) NOT NULL,
            slot INT NOT NULL,
            epoch BIGINT UNSIGNED NOT NULL,
            writes BIGINT UNSIGNED NOT NULL,
            PRIMARY KEY (task, slot)
        ) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin COMMENT 'rowproof: each writing transaction updates its slot where the epoch is its own'",
        "CREATE TABLE IF NOT EXISTS rowproof.fence (
            task VARCHAR(64) NOT NULL PRIMARY KEY,
            state VARCHAR(16) NOT NULL,
            w BIGINT UNSIGNED NOT NULL,
            next_w BIGINT UNSIGNED NOT NULL,
            offsets TEXT NOT NULL
        ) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin COMMENT 'rowproof: the newest fence; its commit number is the snapshot S'",
        "CREATE TABLE IF NOT EXISTS rowproof.followed_table (
            task VARCHAR(64) NOT NULL,
            table_schema VARCHAR(64) NOT NULL,
            table_name VARCHAR(64) NOT NULL,
            base BIGINT UNSIGNED NOT NULL COMMENT 'the timestamp from which the table is followed',
            model LONGTEXT NULL COMMENT 'the definition by which its rows are carried, as JSON',
            stopped_at BIGINT UNSIGNED NULL COMMENT 'the timestamp at which following ended',
            reason TEXT NULL,
            PRIMARY KEY (task, table_schema, table_name)
        ) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin COMMENT 'rowproof: the tables of a migration'",
        "CREATE TABLE IF NOT EXISTS rowproof.dead_letter (
            task VARCHAR(64) NOT NULL,
            table_schema VARCHAR(64) NOT NULL,
            table_name VARCHAR(64) NOT NULL,
            commit_ts BIGINT UNSIGNED NOT NULL COMMENT 'when the change committed on the source',
            topic VARCHAR(255) NOT NULL,
            feed_partition INT NOT NULL,
            feed_offset BIGINT NOT NULL COMMENT 'the record of the topic that holds the change',
            reason TEXT NOT NULL,
            PRIMARY KEY (task, table_schema, table_name)
        ) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin COMMENT 'rowproof: the change for which a table is held; it commits with the batch that left it out'",
        "CREATE TABLE IF NOT EXISTS rowproof.fresh_base (
            task VARCHAR(64) NOT NULL,
            table_schema VARCHAR(64) NOT NULL,
            table_name VARCHAR(64) NOT NULL,
            base BIGINT UNSIGNED NOT NULL COMMENT 'the timestamp as of which the table is loaded afresh',
            offsets TEXT NOT NULL COMMENT 'end offsets of the topic, noted before the base',
            state VARCHAR(16) NOT NULL COMMENT 'clearing, loading, joining or joined',
            model LONGTEXT NOT NULL COMMENT 'the definition at the base, as JSON',
            proof LONGTEXT NULL COMMENT 'what the load has proven, as JSON',
            PRIMARY KEY (task, table_schema, table_name)
        ) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin COMMENT 'rowproof: tables that are loaded afresh while the others are followed'",
        "CREATE TABLE IF NOT EXISTS rowproof.load_chunk (
            task VARCHAR(64) NOT NULL,
            table_schema VARCHAR(64) NOT NULL,
            table_name VARCHAR(64) NOT NULL,
            stripe INT NOT NULL,
            seq INT NOT NULL COMMENT '-1 holds the bounds of the stripe',
            bounds TEXT NOT NULL COMMENT 'the keys of the chunk, in hexadecimal',
            row_count BIGINT UNSIGNED NOT NULL,
            PRIMARY KEY (task, table_schema, table_name, stripe, seq)
        ) DEFAULT CHARSET utf8mb4 COLLATE utf8mb4_bin COMMENT 'rowproof: chunks of the full load, each committed with its rows'",
    ]
}
