//! rowproof's own tables on the target, read and written.

use super::{Session, newest_fence};
use crate::apply::text_literal;
use crate::chunk::{Chunk, Range};
use crate::engine::{Letter, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, Offsets};
use crate::fence::{FenceRow, Scn, record_schema};
use crate::schema::{Table, TableName};

/// Access to the record of one task.
#[derive(Clone, Debug)]
pub struct Record {
    pub(super) task: String,
}

/// What is kept of a task as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TaskRow {
    /// The state directory that the task belongs to.
    pub state_id: String,
    /// T0, the timestamp of the full load.
    pub base: CommitTs,
    /// For each partition the offset behind the last message before T0.
    pub offsets: Offsets,
    /// Whether every table is loaded and proven.
    pub loaded: bool,
}

/// Who holds a lease, and a counter that grows while the holder lives.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// The number of take-overs so far.
    pub epoch: u64,
    /// Host, process and state directory.
    pub name: String,
    /// The heartbeat.
    pub beats: u64,
}

/// A table of the task.
#[derive(Clone, Debug)]
pub struct FollowedRow {
    /// The name.
    pub name: TableName,
    /// The timestamp from which it is followed.
    pub base: CommitTs,
    /// Where and why following it ended.
    pub stopped: Option<Stop>,
    /// The definition by which its rows are carried; none of a table that never was.
    pub table: Option<Table>,
}

/// A chunk of the load that the target holds.
#[derive(Clone, Debug)]
pub struct LoadedChunk {
    /// The stripe of the table.
    pub stripe: u32,
    /// The place in the stripe; none for the row that holds the stripe's bounds.
    pub seq: Option<u32>,
    /// The keys that are covered.
    pub range: Range,
    /// The rows that were written.
    pub rows: u64,
}

impl LoadedChunk {
    /// Returns the chunk, if this is not the row of a stripe's bounds.
    pub fn chunk(&self) -> Option<Chunk> {
        self.seq.map(|seq| Chunk {
            seq,
            range: self.range.clone(),
        })
    }
}

impl Record {
    /// Gives access to the record of a task. Task names are checked when the task file is read, so
    /// that they need no quoting.
    pub fn new(task: &str) -> Record {
        Record {
            task: task.to_owned(),
        }
    }

    /// Makes the database `rowproof` and its tables where they are missing.
    pub async fn prepare(&self, session: &mut Session) -> Result<()> {
        if !self.exists(session).await? {
            session
                .execute("CREATE DATABASE IF NOT EXISTS rowproof")
                .await
                .map_err(|error| {
                    error
                        .at("making the database rowproof on the target")
                        .advise(
                            "as an administrator: CREATE DATABASE rowproof; \
                     GRANT ALL ON rowproof.* TO the user of the task file",
                        )
                })?;
        }
        for statement in record_schema() {
            session.execute(statement).await?;
        }
        Ok(())
    }

    /// Tells whether the database `rowproof` can be seen.
    pub async fn exists(&self, session: &mut Session) -> Result<bool> {
        let sql = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA \
                   WHERE SCHEMA_NAME = 'rowproof'";
        Ok(session.text(sql).await?.is_some())
    }

    /// Reads the task's row.
    pub async fn task(&self, session: &mut Session) -> Result<Option<TaskRow>> {
        let sql = format!(
            "SELECT state_id, base, offsets, loaded FROM rowproof.task WHERE task = '{}'",
            self.task
        );
        let rows = session.texts(sql).await?;
        let Some([Some(state_id), Some(base), Some(offsets), Some(loaded)]) =
            rows.first().map(Vec::as_slice)
        else {
            return Ok(None);
        };
        Ok(Some(TaskRow {
            state_id: state_id.clone(),
            base: base.parse().map_err(|_| damaged("task"))?,
            offsets: serde_json::from_str(offsets).map_err(|_| damaged("task"))?,
            loaded: loaded == "1",
        }))
    }

    /// Makes the task's row.
    pub async fn create_task(&self, session: &mut Session, row: &TaskRow) -> Result<()> {
        let sql = format!(
            "INSERT INTO rowproof.task (task, state_id, base, offsets, loaded) \
             VALUES ('{}', {}, {}, {}, 0)",
            self.task,
            text_literal(row.state_id.as_bytes()),
            row.base,
            offsets_literal(&row.offsets)
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Notes that every table is loaded and proven, and makes the first fence, in one transaction
    /// of the applier's slot.
    pub async fn finish_load(
        &self,
        session: &mut Session,
        slot: u32,
        epoch: u64,
        row: &FenceRow,
    ) -> Result<()> {
        self.begin(session, slot, epoch).await?;
        let sql = format!(
            "UPDATE rowproof.task SET loaded = 1 WHERE task = '{}'",
            self.task
        );
        session.execute(sql).await?;
        let sql = format!(
            "INSERT INTO rowproof.fence (task, state, w, next_w, offsets) \
             VALUES ('{}', '{}', {}, {}, {})",
            self.task,
            row.state.as_str(),
            row.w,
            row.next_w,
            offsets_literal(&row.offsets)
        );
        session.execute(sql).await?;
        session.execute("COMMIT").await.map(|_| ())
    }

    /// Moves the fence row; it stands in the transaction of the rows that it speaks of (INV-3).
    pub async fn set_fence(&self, session: &mut Session, row: &FenceRow) -> Result<()> {
        let sql = format!(
            "UPDATE rowproof.fence SET state = '{}', w = {}, next_w = {}, offsets = {} \
             WHERE task = '{}'",
            row.state.as_str(),
            row.w,
            row.next_w,
            offsets_literal(&row.offsets),
            self.task
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Reads the fence row.
    pub async fn fence(&self, session: &mut Session) -> Result<Option<FenceRow>> {
        Ok(newest_fence(session, &self.task).await?.map(|(row, _)| row))
    }

    /// Reads who holds the lease.
    pub async fn holder(&self, session: &mut Session) -> Result<Option<Holder>> {
        let sql = format!(
            "SELECT epoch, holder, beats FROM rowproof.lease WHERE task = '{}'",
            self.task
        );
        let rows = session.texts(sql).await?;
        let Some([Some(epoch), Some(name), Some(beats)]) = rows.first().map(Vec::as_slice) else {
            return Ok(None);
        };
        let number = |text: &str| text.parse().map_err(|_| damaged("lease"));
        Ok(Some(Holder {
            epoch: number(epoch)?,
            name: name.clone(),
            beats: number(beats)?,
        }))
    }

    /// Takes the lease over from `before`, or makes it where there is none, and moves every slot to
    /// the new epoch: that waits for transactions of the old holder that are still alive, and makes
    /// those that come later fail (INV-9).
    ///
    /// # Errors
    /// With [`ErrorKind::Lease`] if somebody else was faster.
    pub async fn take_lease(
        &self,
        session: &mut Session,
        before: Option<&Holder>,
        name: &str,
        slots: u32,
    ) -> Result<u64> {
        let name = text_literal(name.as_bytes());
        let epoch = before.map_or(1, |before| before.epoch + 1);
        let taken = match before {
            None => {
                let sql = format!(
                    "INSERT IGNORE INTO rowproof.lease (task, epoch, holder, beats) \
                     VALUES ('{}', {epoch}, {name}, 1)",
                    self.task
                );
                session.execute(sql).await?
            }
            Some(before) => {
                let sql = format!(
                    "UPDATE rowproof.lease SET epoch = {epoch}, holder = {name}, beats = beats + 1 \
                     WHERE task = '{}' AND epoch = {} AND beats = {}",
                    self.task, before.epoch, before.beats
                );
                session.execute(sql).await?
            }
        };
        if taken != 1 {
            return Err(
                Error::new(ErrorKind::Lease, "another instance took the lease just now")
                    .advise("run one instance of a task at a time"),
            );
        }
        for slot in 0..slots {
            let sql = format!(
                "INSERT INTO rowproof.slot (task, slot, epoch, writes) VALUES ('{}', {slot}, \
                 {epoch}, 0) ON DUPLICATE KEY UPDATE epoch = {epoch}",
                self.task
            );
            session.execute(sql).await?;
        }
        let sql = format!(
            "UPDATE rowproof.slot SET epoch = {epoch} WHERE task = '{}'",
            self.task
        );
        session.execute(sql).await?;
        Ok(epoch)
    }

    /// Shows that the holder lives.
    ///
    /// # Errors
    /// With [`ErrorKind::Lease`] if another instance took over.
    pub async fn beat(&self, session: &mut Session, epoch: u64) -> Result<()> {
        let sql = format!(
            "UPDATE rowproof.lease SET beats = beats + 1 WHERE task = '{}' AND epoch = {epoch}",
            self.task
        );
        if session.execute(sql).await? == 1 {
            Ok(())
        } else {
            Err(lost_lease())
        }
    }

    /// INV-9: begins a transaction that can only commit while the lease is ours, by writing the
    /// slot of this connection where its epoch is still the one that we took.
    ///
    /// # Errors
    /// With [`ErrorKind::Lease`] if another instance took over.
    pub async fn begin(&self, session: &mut Session, slot: u32, epoch: u64) -> Result<()> {
        session.begin().await?;
        let sql = format!(
            "UPDATE rowproof.slot SET writes = writes + 1 \
             WHERE task = '{}' AND slot = {slot} AND epoch = {epoch}",
            self.task
        );
        if session.execute(sql).await? == 1 {
            Ok(())
        } else {
            Err(lost_lease())
        }
    }

    /// Waits until no batch is being applied and keeps the next one from beginning until the
    /// transaction ends: the slot of the applier is locked.
    pub async fn lock_applier(&self, session: &mut Session, slot: u32) -> Result<()> {
        let sql = format!(
            "SELECT epoch FROM rowproof.slot WHERE task = '{}' AND slot = {slot} FOR UPDATE",
            self.task
        );
        session.text(sql).await.map(|_| ())
    }

    /// Reads the tables of the task as they stand now.
    pub async fn followed(&self, session: &mut Session) -> Result<Vec<FollowedRow>> {
        self.followed_as_of(session, None).await
    }

    /// Reads the tables of the task as they stood at a snapshot: a fence speaks only of those that
    /// were followed when it was made.
    pub async fn followed_as_of(
        &self,
        session: &mut Session,
        snapshot: Option<Scn>,
    ) -> Result<Vec<FollowedRow>> {
        let at = snapshot.map_or_else(String::new, |scn| format!("AS OF SNAPSHOT {scn}"));
        let sql = format!(
            "SELECT f.table_schema, f.table_name, f.base, f.model, f.stopped_at, f.reason, \
             d.commit_ts, d.topic, d.feed_partition, d.feed_offset, b.state \
             FROM rowproof.followed_table {at} f LEFT JOIN rowproof.dead_letter d \
             ON d.task = f.task AND d.table_schema = f.table_schema \
             AND d.table_name = f.table_name LEFT JOIN rowproof.fresh_base b \
             ON b.task = f.task AND b.table_schema = f.table_schema \
             AND b.table_name = f.table_name WHERE f.task = '{}' ORDER BY 1, 2",
            self.task
        );
        let rows = session.texts(sql).await?;
        rows.into_iter().map(followed_of).collect()
    }

    /// Notes that a table is followed from a timestamp on, and by which definition; harmless when
    /// it is already.
    pub async fn add_followed(
        &self,
        session: &mut Session,
        table: &Table,
        base: CommitTs,
    ) -> Result<()> {
        let sql = format!(
            "INSERT IGNORE INTO rowproof.followed_table \
             (task, table_schema, table_name, base, model) VALUES ('{}', {}, {}, {base}, {})",
            self.task,
            text_literal(table.name.schema.as_bytes()),
            text_literal(table.name.table.as_bytes()),
            model_literal(table)
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Replaces the definition by which a table is followed.
    pub async fn set_model(&self, session: &mut Session, table: &Table) -> Result<()> {
        let sql = format!(
            "UPDATE rowproof.followed_table SET model = {} \
             WHERE task = '{}' AND table_schema = {} AND table_name = {}",
            model_literal(table),
            self.task,
            text_literal(table.name.schema.as_bytes()),
            text_literal(table.name.table.as_bytes())
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Notes that following a table ended; in the transaction of the batch in which it did (INV-3).
    /// A change for which it is held becomes the table's dead letter, with the name of its topic.
    pub async fn stop_followed(
        &self,
        session: &mut Session,
        table: &TableName,
        stop: &Stop,
    ) -> Result<()> {
        let (at, reason) = (stop.at, text_literal(stop.reason.as_bytes()));
        let sql = format!(
            "INSERT INTO rowproof.followed_table \
             (task, table_schema, table_name, base, stopped_at, reason) \
             VALUES ('{}', {}, {}, {at}, {at}, {reason}) \
             ON DUPLICATE KEY UPDATE stopped_at = {at}, reason = {reason}",
            self.task,
            text_literal(table.schema.as_bytes()),
            text_literal(table.table.as_bytes())
        );
        session.execute(sql).await?;
        let Some(letter) = &stop.letter else {
            return Ok(());
        };
        let sql = format!(
            "REPLACE INTO rowproof.dead_letter (task, table_schema, table_name, commit_ts, topic, \
             feed_partition, feed_offset, reason) VALUES ('{}', {}, {}, {}, {}, {}, {}, {reason})",
            self.task,
            text_literal(table.schema.as_bytes()),
            text_literal(table.table.as_bytes()),
            letter.commit_ts,
            text_literal(letter.topic.as_bytes()),
            letter.partition,
            letter.offset
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Reads the chunks of a table that the target holds, and its stripes.
    pub async fn load_chunks(
        &self,
        session: &mut Session,
        table: &TableName,
    ) -> Result<Vec<LoadedChunk>> {
        let sql = format!(
            "SELECT stripe, seq, bounds, row_count FROM rowproof.load_chunk WHERE task = '{}' \
             AND table_schema = {} AND table_name = {} ORDER BY stripe, seq",
            self.task,
            text_literal(table.schema.as_bytes()),
            text_literal(table.table.as_bytes())
        );
        let mut chunks = Vec::new();
        for row in session.texts(sql).await? {
            let [Some(stripe), Some(seq), Some(bounds), Some(rows)] = row.as_slice() else {
                return Err(damaged("load_chunk"));
            };
            chunks.push(LoadedChunk {
                stripe: stripe.parse().map_err(|_| damaged("load_chunk"))?,
                seq: seq.parse().ok(),
                range: serde_json::from_str(bounds).map_err(|_| damaged("load_chunk"))?,
                rows: rows.parse().map_err(|_| damaged("load_chunk"))?,
            });
        }
        Ok(chunks)
    }

    /// Notes a chunk, or the bounds of a stripe, in the transaction of its rows.
    pub async fn add_load_chunk(
        &self,
        session: &mut Session,
        table: &TableName,
        chunk: &LoadedChunk,
    ) -> Result<()> {
        let bounds = serde_json::to_string(&chunk.range).expect("a range is JSON");
        let sql = format!(
            "INSERT INTO rowproof.load_chunk \
             (task, table_schema, table_name, stripe, seq, bounds, row_count) \
             VALUES ('{}', {}, {}, {}, {}, {}, {})",
            self.task,
            text_literal(table.schema.as_bytes()),
            text_literal(table.table.as_bytes()),
            chunk.stripe,
            chunk.seq.map_or(-1, i64::from),
            text_literal(bounds.as_bytes()),
            chunk.rows
        );
        session.execute(sql).await.map(|_| ())
    }
}

fn followed_of(row: Vec<Option<String>>) -> Result<FollowedRow> {
    let [Some(schema), Some(name), Some(base), model, stopped @ ..] = row.as_slice() else {
        return Err(damaged("followed_table"));
    };
    let unreadable = |_| damaged("followed_table");
    let model = model.as_deref().map(serde_json::from_str).transpose();
    Ok(FollowedRow {
        name: TableName::new(schema, name),
        base: base.parse().map_err(|_| damaged("followed_table"))?,
        stopped: stop_of(stopped).ok_or_else(|| damaged("followed_table"))?,
        table: model.map_err(unreadable)?,
    })
}

/// Reads where and why following ended; the outer option is none of a damaged record.
fn stop_of(cells: &[Option<String>]) -> Option<Option<Stop>> {
    let [at, reason, commit_ts, topic, partition, offset, base] = cells else {
        return None;
    };
    let Some(at) = at else {
        return Some(None);
    };
    let mut stop = Stop::new(at.parse().ok()?, reason.clone().unwrap_or_default());
    stop.loading = base.is_some();
    if let (Some(commit_ts), Some(partition), Some(offset)) = (commit_ts, partition, offset) {
        stop.letter = Some(Letter {
            commit_ts: commit_ts.parse().ok()?,
            topic: topic.clone().unwrap_or_default(),
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        });
    }
    Some(Some(stop))
}

pub(super) fn model_literal(table: &Table) -> String {
    let model = serde_json::to_string(table).expect("a table is JSON");
    text_literal(model.as_bytes())
}

pub(super) fn offsets_literal(offsets: &Offsets) -> String {
    let text = serde_json::to_string(offsets).expect("names and numbers");
    text_literal(text.as_bytes())
}

fn lost_lease() -> Error {
    Error::new(
        ErrorKind::Lease,
        "INV-9: another instance took this task over",
    )
    .advise("run one instance of a task at a time; this one has stopped and wrote nothing more")
}

pub(super) fn damaged(table: &str) -> Error {
    Error::new(
        ErrorKind::Broken,
        format!("rowproof.{table} on the target is damaged"),
    )
    .advise("something else writes rowproof's tables on the target; check who may")
}
