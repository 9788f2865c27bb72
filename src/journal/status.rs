//! What the migration does now, and the batches it has proven.

use super::{Journal, failure, from_json, json, now_ms, ts_from_db, ts_to_db};
use crate::error::Result;
use crate::feed::{CommitTs, Offsets};
use crate::fence::Fence;
use crate::throttle::SideStatus;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use std::collections::BTreeSet;

/// How many proven batches are kept: more than a day of one batch a second.
const BATCHES_KEPT: i64 = 100_000;

/// What the migration is about.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing has run yet.
    #[default]
    Idle,
    /// It looks at both sides and takes the lease.
    Starting,
    /// It makes databases and tables on the target.
    Schema,
    /// It copies the tables as of T0 and reads every chunk back.
    Load,
    /// It applies and proves the feed's batches.
    Follow,
    /// It ended in order.
    Stopped,
    /// It ended with an error.
    Failed,
}

impl Phase {
    /// Returns the phase's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Starting => "starting",
            Phase::Schema => "schema",
            Phase::Load => "load",
            Phase::Follow => "follow",
            Phase::Stopped => "stopped",
            Phase::Failed => "failed",
        }
    }
}

/// How far the full load is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Progress {
    /// Tables in scope.
    pub tables: u64,
    /// Tables that are loaded and proven whole.
    pub tables_done: u64,
    /// Rows that are loaded and proven.
    pub rows: u64,
    /// The source's estimate of all rows.
    pub rows_estimate: u64,
    /// Chunks that are loaded and proven.
    pub chunks: u64,
}

/// What is applied and not proven yet.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Backlog {
    /// Batches.
    pub batches: u64,
    /// Keys that they touched; one that several touched counts for each.
    pub keys: u64,
}

/// What the migration does now; a process that has died leaves an old `beat_ms`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// The task's name.
    pub task: String,
    /// The phase.
    pub phase: Phase,
    /// What is being waited for, or what went wrong, in words.
    pub waiting_for: Option<String>,
    /// When this process began, in milliseconds since the epoch.
    pub started_ms: i64,
    /// When this was last true, in milliseconds since the epoch.
    pub beat_ms: i64,
    /// How far the load is.
    pub load: Progress,
    /// The timestamp of the load.
    pub base: Option<CommitTs>,
    /// The newest fence.
    pub fence: Option<Fence>,
    /// The newest fence up to which every batch is proven.
    pub proven: Option<Fence>,
    /// Changes applied since this process began.
    pub changes: u64,
    /// Batches applied since this process began.
    pub batches: u64,
    /// Bytes of changes that wait for the watermark.
    pub waiting_bytes: u64,
    /// Bytes of the feed that are kept on disk because Kafka may drop them.
    #[serde(default)]
    pub spool_bytes: u64,
    /// Whether what is kept has lately reached the ends of all partitions.
    #[serde(default)]
    pub spool_is_current: bool,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// The tables that are loaded anew while the others are followed.
    #[serde(default)]
    pub fresh_bases: BTreeSet<String>,
    /// What is applied and not proven yet.
    #[serde(default)]
    pub to_prove: Backlog,
    /// The timestamp up to which the feed is complete.
    #[serde(default)]
    pub watermark: Option<CommitTs>,
    /// What is to happen before the changefeed sends again, or before its state is known, in words.
    #[serde(default)]
    pub changefeed: Option<String>,
    /// What passes to and from the source.
    #[serde(default)]
    pub source: SideStatus,
    /// What passes to and from the target.
    #[serde(default)]
    pub target: SideStatus,
}

impl Status {
    /// Tells whether a process keeps this up to date.
    pub fn is_live(&self) -> bool {
        now_ms() - self.beat_ms < 10_000
            && !matches!(self.phase, Phase::Idle | Phase::Stopped | Phase::Failed)
    }

    /// Returns what is being waited for, or what went wrong; while following that may be the changefeed.
    pub fn waits_for(&self) -> Option<&String> {
        let changefeed = self.changefeed.as_ref();
        let changefeed = changefeed.filter(|_| self.phase == Phase::Follow);
        self.waiting_for.as_ref().or(changefeed)
    }

    /// Returns the age of the newest fence in milliseconds, by this machine's clock.
    pub fn fence_age_ms(&self) -> Option<i64> {
        let wall = i64::try_from(crate::feed::physical_ms(self.fence?.w)).ok()?;
        Some((now_ms() - wall).max(0))
    }
}

/// A batch of the feed that was applied and proven.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct BatchRow {
    /// The fence at which the batch ends.
    pub fence: Fence,
    /// The timestamp at which it begins.
    pub from: CommitTs,
    /// The changes that were folded.
    pub changes: u64,
    /// The keys that were touched.
    pub keys: u64,
    /// The keys that differ.
    pub differences: u64,
    /// `equal`, `different` or `unproven`.
    pub verdict: String,
    /// When it was proven, in milliseconds since the epoch.
    pub at_ms: i64,
}

impl Journal {
    /// Keeps what the migration does now.
    pub async fn set_status(&self, status: &Status) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO status (id, body) VALUES (1, ?)")
            .bind(json(status))
            .execute(&self.pool)
            .await
            .map_err(failure)?;
        Ok(())
    }

    /// Returns what the migration did last.
    pub async fn status(&self) -> Result<Status> {
        let body: Option<String> = sqlx::query_scalar("SELECT body FROM status WHERE id = 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(failure)?;
        body.map_or_else(|| Ok(Status::default()), |body| from_json(&body))
    }

    /// Returns the newest fence up to which every batch is proven, with the feed's offsets there.
    pub async fn proven(&self) -> Result<Option<(Fence, Offsets)>> {
        let row = sqlx::query("SELECT w, s, offsets FROM proven WHERE id = 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(failure)?;
        let Some(row) = row else {
            return Ok(None);
        };
        let fence = Fence {
            w: ts_from_db(row.get("w")),
            s: ts_from_db(row.get("s")),
        };
        Ok(Some((fence, from_json(row.get("offsets"))?)))
    }

    /// Keeps a batch that was proven.
    pub async fn add_batch(&self, batch: &BatchRow) -> Result<()> {
        sqlx::query(
            "INSERT OR REPLACE INTO batch
             (w, s, from_w, changes, keys, differences, verdict, at_ms)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(ts_to_db(batch.fence.w))
        .bind(ts_to_db(batch.fence.s))
        .bind(ts_to_db(batch.from))
        .bind(ts_to_db(batch.changes))
        .bind(ts_to_db(batch.keys))
        .bind(ts_to_db(batch.differences))
        .bind(&batch.verdict)
        .bind(batch.at_ms)
        .execute(&self.pool)
        .await
        .map_err(failure)?;
        sqlx::query(
            "DELETE FROM batch WHERE rowid IN
             (SELECT rowid FROM batch ORDER BY w DESC LIMIT 100 OFFSET ?)",
        )
        .bind(BATCHES_KEPT)
        .execute(&self.pool)
        .await
        .map_err(failure)?;
        Ok(())
    }

    /// Returns the newest batches, newest first.
    pub async fn batches(&self, limit: i64) -> Result<Vec<BatchRow>> {
        let rows = sqlx::query("SELECT * FROM batch ORDER BY w DESC LIMIT ?")
            .bind(limit)
            .fetch_all(&self.pool)
            .await
            .map_err(failure)?;
        let number = |row: &sqlx::sqlite::SqliteRow, name: &str| ts_from_db(row.get(name));
        let rows = rows.iter().map(|row| BatchRow {
            fence: Fence {
                w: number(row, "w"),
                s: number(row, "s"),
            },
            from: number(row, "from_w"),
            changes: number(row, "changes"),
            keys: number(row, "keys"),
            differences: number(row, "differences"),
            verdict: row.get("verdict"),
            at_ms: row.get("at_ms"),
        });
        Ok(rows.collect())
    }
}
