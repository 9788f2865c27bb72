//! Writing a batch: what it did to each key is written, and the fence moves with it.

use super::applier::APPLIER_SLOT;
use super::copies::{Adjustment, Wanted};
use super::crew::{Crew, Statement};
use super::held::Obstacle;
use super::lease::Lease;
use super::link::{Link, Links};
use super::sourced::Sourced;
use crate::apply::{delete_keys, insert_rows};
use crate::database::{Record, Session, newest_fence};
use crate::engine::{Batch, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::feed::{CommitTs, FoldedRow, FoldedTable};
use crate::fence::{Fence, FenceRow, FenceState};
use crate::row::{DigestKey, Rows};
use crate::schema::TableName;
use std::collections::{BTreeMap, BTreeSet};

/// The rows up to which a batch is one transaction, so that readers of the target always see a
/// state that the source had. A batch of more is catching up, and is written by a crew.
pub const ROWS_PER_TRANSACTION: usize = 20_000;

/// The bytes of rows of the source that are held before they are written (INV-8).
const PIECE_BYTES: usize = 8 << 20;

/// Writes batches to the target.
#[derive(Debug)]
pub struct BatchWriter {
    /// The task's name.
    pub task: String,
    /// rowproof's record on the target.
    pub record: Record,
    /// The key of the row digests.
    pub digest_key: DigestKey,
    /// The lease under which rows are written.
    pub lease: Lease,
}

/// The tables that are stopped, and why.
type Stops = BTreeMap<TableName, Stop>;

impl BatchWriter {
    /// Writes a batch and returns its fence. After a fault it is called again: the fence row says
    /// whether the batch is in.
    ///
    /// Rows of suspects are deleted whatever the feed says of them, and inserted one by one, so that the
    /// one that is refused is known.
    pub(super) async fn apply(
        &self,
        batch: &mut Batch,
        links: &mut Links,
        crew: &mut Crew,
        suspects: &BTreeSet<TableName>,
    ) -> std::result::Result<Fence, Obstacle> {
        let (source, target) = (&mut links.source, links.target.session().await?);
        let complete = FenceRow {
            state: FenceState::Complete,
            w: batch.to,
            next_w: batch.to,
            offsets: batch.offsets.clone(),
        };
        let before = self.record.fence(target).await?.ok_or_else(no_fence)?;
        if before != complete {
            if before.w < batch.from || before.next_fence_at_least() > batch.to {
                return Err(out_of_order(&before, batch).into());
            }
            let most = failpoint::size("ROWPROOF_LARGE_BATCH", ROWS_PER_TRANSACTION);
            let whole = batch.keys_at_most() <= most && before.state == FenceState::Complete;
            if !whole {
                failpoint::pass("batch-before-applying");
                self.begin_large(target, &before, batch).await?;
                failpoint::pass("batch-applying");
            }
            failpoint::pass("batch-before-begin");
            self.record
                .begin(target, APPLIER_SLOT, self.lease.epoch)
                .await?;
            failpoint::pass("batch-begun");
            let crew = (!whole).then_some(crew);
            let trust = Trust {
                // A target where the feed is wrong refuses the row (1062), and makes it a suspect.
                new_keys: batch.knows_new_keys(&before),
                suspects,
            };
            self.write(batch, (source, target, crew), trust).await?;
            for followed in &batch.joined {
                self.record
                    .join_followed(target, &followed.table, followed.base)
                    .await?;
            }
            for name in &batch.stopped {
                if let Some(stop) = batch.unprovable.get(name) {
                    self.record.stop_followed(target, name, stop).await?;
                }
            }
            self.record.set_fence(target, &complete).await?;
            failpoint::pass("batch-before-commit");
            target.execute("COMMIT").await?;
            failpoint::pass("batch-committed");
            if !batch.joined.is_empty() {
                failpoint::pass("base-joined");
            }
        }
        let (row, fence) = newest_fence(target, &self.task)
            .await?
            .ok_or_else(no_fence)?;
        failpoint::pass("batch-fence-read");
        if row != complete {
            return Err(out_of_order(&row, batch).into());
        }
        Ok(fence)
    }

    /// Says that the target is between two fences: after a crash the next one is made at the end of
    /// this batch or later.
    async fn begin_large(
        &self,
        target: &mut Session,
        before: &FenceRow,
        batch: &Batch,
    ) -> Result<()> {
        let applying = FenceRow {
            state: FenceState::Applying,
            next_w: batch.to.max(before.next_w),
            ..before.clone()
        };
        self.record
            .begin(target, APPLIER_SLOT, self.lease.epoch)
            .await?;
        if before.state == FenceState::Applying {
            // A commit that was under way when its connection was lost may still come, behind deletes that
            // begin now: its rows would be in the way of their own images.
            self.record.pass_workers(target, self.lease.epoch).await?;
        }
        self.record.set_fence(target, &applying).await?;
        target.execute("COMMIT").await.map(|_| ())
    }

    /// Writes a batch: every key that was touched is deleted, in all tables, before any row is
    /// inserted, but for keys that are new and trusted to be. Keys that differ in bytes may be one key to the target, and unique keys trade
    /// places.
    ///
    /// A large batch is written by a crew, in many transactions; what is written of tables without a
    /// key stands in the open one. Nothing is written of the tables that were refused.
    async fn write(
        &self,
        batch: &mut Batch,
        (source, target, mut crew): (&mut Link, &mut Session, Option<&mut Crew>),
        trust: Trust<'_>,
    ) -> std::result::Result<(), Obstacle> {
        let in_memory = batch.parts.len() == 1;
        let mut keyless = Vec::new();
        for step in [Step::Delete, Step::Insert] {
            if step == Step::Insert {
                failpoint::pass("batch-deleted");
            }
            for part in &mut batch.parts {
                let mut tables = part.tables()?;
                if !batch.refused.is_empty() {
                    let is_written = |of: &FoldedTable| !batch.refused.contains(&of.table.name);
                    tables.to_mut().retain(is_written);
                }
                // What was found for the deletes serves the inserts too, unless there are several
                // parts: only one of them is in memory.
                if step == Step::Delete || !in_memory {
                    let end = (batch.to, &batch.unprovable);
                    keyless = self.adjustments(end, &tables, source, target).await?;
                }
                let of_copies = step.of_copies(&keyless, &tables);
                let of_keys = step.of_keys(&tables, trust);
                for statement in of_copies {
                    statement.execute(target).await?;
                }
                if step == Step::Insert {
                    for folded in tables.iter().filter(|of| of.table.key_len > 0) {
                        let end = (batch.to, &batch.unprovable);
                        copy_sourced(end, folded, source, target).await?;
                    }
                }
                match &mut crew {
                    Some(crew) => {
                        // A transaction that waits for the crew may wait for too long. Repairs keep
                        // away nevertheless: the target is at no fence.
                        target.execute("COMMIT").await?;
                        crew.write(of_keys).await?;
                        self.record
                            .begin(target, APPLIER_SLOT, self.lease.epoch)
                            .await?;
                    }
                    None => {
                        for statement in of_keys {
                            statement.execute(target).await?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds what brings the copies of touched rows in tables without a key to the source's number
    /// at the end of the batch, or where the table is stopped. The applier's slot is held, which keeps
    /// repairs away between counting and writing.
    async fn adjustments(
        &self,
        (to, stops): (CommitTs, &Stops),
        tables: &[FoldedTable],
        source: &mut Link,
        target: &mut Session,
    ) -> std::result::Result<Vec<Adjustment>, Obstacle> {
        let mut adjustments = Vec::new();
        for folded in tables.iter().filter(|folded| folded.table.key_len == 0) {
            let stop = stops.get(&folded.table.name);
            let at = Stop::end(stop, to);
            let rows = folded.rows.iter().map(|row| row.key.as_slice());
            let wanted = Wanted::new(&folded.table, &self.digest_key, rows)?;
            let source = source.session().await?;
            source.set_snapshot(Some(at)).await?;
            let on_source = match wanted.on_source(source).await {
                Ok(counted) => counted,
                // A DDL has ended the table: it is unproven from here on.
                Err(error) if error.kind() == ErrorKind::SchemaChanged && stop.is_some() => {
                    continue;
                }
                Err(error) => {
                    return Err(error.at(format!("counting {}", folded.table.name)).into());
                }
            };
            let on_target = wanted.on_target(target, None).await;
            let on_target = on_target.map_err(|error| Obstacle::of(folded, 0, error))?;
            adjustments.push(Adjustment::new(&wanted, &on_source, &on_target));
        }
        Ok(adjustments)
    }
}

/// Writes the rows of which the feed does not hold the image, as the source shows them.
async fn copy_sourced(
    (to, stops): (CommitTs, &Stops),
    folded: &FoldedTable,
    source: &mut Link,
    target: &mut Session,
) -> std::result::Result<(), Obstacle> {
    let Some(sourced) = Sourced::of(stops.get(&folded.table.name), to, folded)? else {
        return Ok(());
    };
    for keys in sourced.lookups() {
        match copy_lookup(&sourced, keys, source, target, folded).await {
            Ok(()) => {}
            // Nothing that is written of this table is called equal any more.
            Err(obstacle) if sourced.is_past_its_end(&obstacle.error) => {
                source.reset();
                return Ok(());
            }
            Err(obstacle) => return Err(obstacle),
        }
    }
    Ok(())
}

async fn copy_lookup(
    sourced: &Sourced<'_>,
    keys: &[&[u8]],
    source: &mut Link,
    target: &mut Session,
    folded: &FoldedTable,
) -> std::result::Result<(), Obstacle> {
    let mut rows = Rows::new();
    let source = source.session().await?;
    let moved = source.set_snapshot(Some(sourced.at())).await;
    moved.map_err(|error| sourced.failure(error))?;
    let mut scan = source.open_scan(sourced.select(keys));
    loop {
        let whole = scan.fill(&mut rows, PIECE_BYTES).await;
        let whole = whole.map_err(|error| sourced.failure(error))?;
        for sql in insert_rows(sourced.table(), sourced.wanted(&rows)?) {
            let statement = Statement {
                folded,
                place: 0,
                sql,
            };
            statement.execute(target).await?;
        }
        rows.clear();
        if whole {
            return Ok(());
        }
    }
}

/// What is taken for certain of the target while a batch is written.
#[derive(Clone, Copy)]
struct Trust<'a> {
    /// Whether keys that the feed calls new are not there.
    new_keys: bool,
    /// The tables of which nothing is certain.
    suspects: &'a BTreeSet<TableName>,
}

/// The two steps of writing a batch.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Delete,
    Insert,
}

/// Statements of one step.
type Statements<'a> = Box<dyn Iterator<Item = Statement<'a>> + Send + 'a>;

impl Step {
    /// Returns the statements on tables with a key. Those of suspects insert one row each, so that
    /// the row that is refused is known.
    fn of_keys<'a>(self, tables: &'a [FoldedTable], trust: Trust<'a>) -> Statements<'a> {
        let keyed = tables.iter().filter(|of| of.table.key_len > 0);
        Box::new(keyed.flat_map(move |folded| {
            let suspect = trust.suspects.contains(&folded.table.name);
            let one_by_one = suspect && folded.rows.len() <= ROWS_PER_TRANSACTION;
            let trusted = trust.new_keys && !suspect && folded.table.filter.is_none();
            self.of_table(folded, trusted, one_by_one)
        }))
    }

    fn of_table(self, folded: &FoldedTable, trusted: bool, one_by_one: bool) -> Statements<'_> {
        let (table, rows) = (&folded.table, folded.rows.iter());
        let statement = move |place, sql| Statement { folded, place, sql };
        match self {
            Step::Delete => {
                // What the source has to show may be no row at all, and is not trusted to be one.
                let absent =
                    move |row: &FoldedRow| trusted && row.is_new && row.state.row().is_some();
                let keys = rows.filter(move |row| !absent(row)).map(|row| &row.key[..]);
                Box::new(delete_keys(table, keys).map(move |sql| statement(0, sql)))
            }
            Step::Insert if one_by_one && table.filter.is_none() => {
                Box::new(rows.enumerate().flat_map(move |(place, row)| {
                    let row = row.state.row().into_iter();
                    insert_rows(table, row).map(move |sql| statement(place, sql))
                }))
            }
            // What is read from the source is written by itself.
            Step::Insert if table.filter.is_some() => Box::new(std::iter::empty()),
            Step::Insert => {
                let rows = rows.filter_map(|row| row.state.row());
                Box::new(insert_rows(table, rows).map(move |sql| statement(0, sql)))
            }
        }
    }

    /// Returns the statements on tables without a key.
    fn of_copies<'a>(
        self,
        adjustments: &'a [Adjustment],
        tables: &'a [FoldedTable],
    ) -> Statements<'a> {
        let own = move |folded: &'a FoldedTable| {
            let own = adjustments.iter().find(|of| of.is_of(folded))?;
            Some((folded, own))
        };
        let statements = move |of: &'a Adjustment| -> Box<dyn Iterator<Item = String> + Send> {
            match self {
                Step::Delete => Box::new(of.deletes()),
                Step::Insert => Box::new(of.inserts()),
            }
        };
        Box::new(tables.iter().filter_map(own).flat_map(move |(folded, of)| {
            statements(of).map(move |sql| Statement {
                folded,
                place: 0,
                sql,
            })
        }))
    }
}

fn no_fence() -> Error {
    Error::new(ErrorKind::Broken, "INV-3: the target's fence row is gone")
        .advise("something else writes rowproof.fence; check who may")
}

fn out_of_order(row: &FenceRow, batch: &Batch) -> Error {
    Error::new(
        ErrorKind::Broken,
        format!(
            "INV-3: the target's fence row stands at {} and the next batch reaches from {} to {}",
            row.w, batch.from, batch.to
        ),
    )
    .advise("something else writes rowproof.fence, or its state was restored; check who may")
}
