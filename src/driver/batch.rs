//! Applying a batch: what it did to each key is written, and the fence moves with it.

use super::copies::{Adjustment, Wanted};
use super::filter::read_filtered;
use super::follow::{APPLIER_SLOT, Following};
use super::held::{Obstacle, topic};
use super::link::Link;
use crate::apply::{delete_keys, insert_rows};
use crate::database::{Session, newest_fence};
use crate::engine::{Batch, Follow};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, FoldedTable, Part};
use crate::fence::{Fence, FenceRow, FenceState};
use crate::schema::TableName;
use std::collections::BTreeSet;

/// The rows up to which a batch is one transaction, so that readers of the target always see a
/// state that the source had.
const ROWS_PER_TRANSACTION: usize = 50_000;

impl Following {
    /// Applies a batch and returns its fence. After a fault it is called again: the fence row says
    /// whether the batch is in.
    ///
    /// Rows of suspects are inserted one by one, so that the one that is refused is known.
    pub(super) async fn apply(
        &self,
        follow: &Follow,
        batch: &mut Batch,
        links: &mut (Link, Link),
        suspects: &BTreeSet<TableName>,
    ) -> std::result::Result<Fence, Obstacle> {
        let (source, target) = (&mut links.0, links.1.session().await?);
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
            let keys: usize = batch.parts.iter().map(Part::keys_at_most).sum();
            let whole = keys <= ROWS_PER_TRANSACTION && before.state == FenceState::Complete;
            if !whole {
                self.begin_large(target, &before, batch).await?;
            }
            self.record
                .begin(target, APPLIER_SLOT, self.lease.epoch)
                .await?;
            self.write(follow, batch, (source, target), suspects, whole)
                .await?;
            for name in &batch.joined {
                let followed = &follow.tables()[name];
                self.record
                    .join_followed(target, &followed.table, followed.base)
                    .await?;
            }
            for name in &batch.stopped {
                if let Some(stop) = &follow.tables()[name].stopped {
                    self.record
                        .stop_followed(target, name, stop, topic(&self.task))
                        .await?;
                }
            }
            self.record.set_fence(target, &complete).await?;
            target.execute("COMMIT").await?;
        }
        let (row, fence) = newest_fence(target, &self.task.name)
            .await?
            .ok_or_else(no_fence)?;
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
        self.record.set_fence(target, &applying).await?;
        target.execute("COMMIT").await.map(|_| ())
    }

    /// Writes a batch: every key that was touched is deleted, in all tables, before any row is
    /// inserted. Keys that differ in bytes may be one key to the target, and unique keys trade
    /// places.
    ///
    /// A large batch takes several transactions, the last of which stays open. Nothing is written of
    /// the tables that were refused.
    async fn write(
        &self,
        follow: &Follow,
        batch: &mut Batch,
        (source, target): (&mut Link, &mut Session),
        suspects: &BTreeSet<TableName>,
        whole: bool,
    ) -> std::result::Result<(), Obstacle> {
        let mut written = 0;
        let in_memory = batch.parts.len() == 1;
        let mut keyless = Vec::new();
        for step in [Step::Delete, Step::Insert] {
            for part in &mut batch.parts {
                let mut tables = part.tables()?;
                if !batch.refused.is_empty() {
                    let is_written = |of: &FoldedTable| !batch.refused.contains(&of.table.name);
                    tables.to_mut().retain(is_written);
                }
                if step == Step::Insert && tables.iter().any(|of| of.table.filter.is_some()) {
                    let source = source.session().await?;
                    read_filtered(source, follow, batch.to, tables.to_mut()).await?;
                }
                // What was found for the deletes serves the inserts too, unless there are several
                // parts: only one of them is in memory.
                if step == Step::Delete || !in_memory {
                    keyless = self
                        .adjustments(follow, batch.to, &tables, source, target)
                        .await?;
                }
                for folded in tables.iter() {
                    let one_by_one = suspects.contains(&folded.table.name);
                    let statements: Statements<'_> = match folded.table.key_len {
                        0 => {
                            let mut of_table = keyless.iter().filter(|of| of.is_of(folded));
                            let of_table = of_table.next().map(|of| step.of_copies(of));
                            Box::new(of_table.into_iter().flatten().map(|sql| (0, sql)))
                        }
                        _ => step.of_keys(folded, one_by_one),
                    };
                    for (place, statement) in statements {
                        // A statement holds up to a thousand rows or keys.
                        if !whole && written % (ROWS_PER_TRANSACTION / 1_000) == 0 && written > 0 {
                            target.execute("COMMIT").await?;
                            self.record
                                .begin(target, APPLIER_SLOT, self.lease.epoch)
                                .await?;
                        }
                        let done = target.execute(statement).await;
                        done.map_err(|error| Obstacle::of(folded, place, error))?;
                        written += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Following {
    /// Finds what brings the copies of touched rows in tables without a key to the source's number
    /// at the end of the batch, or at the end of following. The applier's slot is held, which keeps
    /// repairs away between counting and writing.
    async fn adjustments(
        &self,
        follow: &Follow,
        to: CommitTs,
        tables: &[FoldedTable],
        source: &mut Link,
        target: &mut Session,
    ) -> std::result::Result<Vec<Adjustment>, Obstacle> {
        let mut adjustments = Vec::new();
        for folded in tables.iter().filter(|folded| folded.table.key_len == 0) {
            let stop = &follow.tables()[&folded.table.name].stopped;
            let at = stop.as_ref().map_or(to, |stop| stop.at.min(to));
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

/// The two steps of writing a batch.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Delete,
    Insert,
}

/// Statements, each with the place of its first row if that is known, else 0.
type Statements<'a> = Box<dyn Iterator<Item = (usize, String)> + Send + 'a>;

impl Step {
    fn of_keys(self, folded: &FoldedTable, one_by_one: bool) -> Statements<'_> {
        let (table, rows) = (&folded.table, folded.rows.iter());
        let one_by_one = one_by_one && rows.len() <= ROWS_PER_TRANSACTION;
        match self {
            Step::Delete => {
                let keys = rows.map(|row| &row.key[..]);
                Box::new(delete_keys(table, keys).map(|sql| (0, sql)))
            }
            Step::Insert if one_by_one => Box::new(rows.enumerate().flat_map(|(place, row)| {
                let row = row.row.as_deref().into_iter();
                insert_rows(table, row).map(move |sql| (place, sql))
            })),
            Step::Insert => {
                let rows = rows.filter_map(|row| row.row.as_deref());
                Box::new(insert_rows(table, rows).map(|sql| (0, sql)))
            }
        }
    }

    fn of_copies(self, of: &Adjustment) -> Box<dyn Iterator<Item = String> + Send + '_> {
        match self {
            Step::Delete => Box::new(of.deletes()),
            Step::Insert => Box::new(of.inserts()),
        }
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
