//! Writing a batch: every key that was touched is deleted, in all tables, before any row is inserted.
//! Keys that differ in bytes may be one key to the target, and unique keys trade places.

use super::copies::{Adjustment, Wanted};
use super::follow::{APPLIER_SLOT, ROWS_PER_TRANSACTION};
use super::link::Link;
use super::sourced::Sourced;
use crate::apply::{delete_keys, insert_rows};
use crate::database::{Record, Session};
use crate::engine::{Batch, Follow};
use crate::error::{ErrorKind, Result};
use crate::feed::{CommitTs, FoldedTable};
use crate::row::{DigestKey, Rows};

/// The bytes of rows of the source that are held before they are written (INV-8).
const PIECE_BYTES: usize = 8 << 20;

/// The statements of one batch, in a transaction that is open.
#[derive(Debug)]
pub struct Statements<'a> {
    /// rowproof's record on the target.
    pub record: &'a Record,
    /// The epoch of the lease under which rows are written.
    pub epoch: u64,
    /// The target.
    pub target: &'a mut Session,
    /// Whether the batch is one transaction; a large one takes several, the last of which stays
    /// open.
    pub whole: bool,
    /// How many statements were executed.
    pub executed: usize,
}

impl Statements<'_> {
    async fn execute(&mut self, statement: String) -> Result<()> {
        // A statement holds up to a thousand rows or keys.
        let full = self.executed > 0 && self.executed.is_multiple_of(ROWS_PER_TRANSACTION / 1_000);
        if !self.whole && full {
            self.target.execute("COMMIT").await?;
            self.record
                .begin(self.target, APPLIER_SLOT, self.epoch)
                .await?;
        }
        self.target.execute(statement).await?;
        self.executed += 1;
        Ok(())
    }
}

/// The writing of one batch to the target.
#[derive(Debug)]
pub struct Writing<'a> {
    /// The key of the row digests.
    pub digest_key: &'a DigestKey,
    /// The machine, which knows where tables have stopped.
    pub follow: &'a Follow,
    /// The source.
    pub source: &'a mut Link,
    /// What is written.
    pub statements: Statements<'a>,
}

/// The two steps of writing a batch.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Delete,
    Insert,
}

impl Writing<'_> {
    /// Writes a batch.
    ///
    /// # Errors
    /// If either side fails; the target's transaction is open then.
    pub async fn batch(&mut self, batch: &mut Batch) -> Result<()> {
        let in_memory = batch.parts.len() == 1;
        let mut keyless = Vec::new();
        for step in [Step::Delete, Step::Insert] {
            for part in &mut batch.parts {
                let tables = part.tables()?;
                // What was found for the deletes serves the inserts too, unless there are several
                // parts: only one of them is in memory.
                if step == Step::Delete || !in_memory {
                    keyless = self.adjustments(batch.to, &tables).await?;
                }
                let keyed = || tables.iter().filter(|folded| folded.table.key_len > 0);
                let of_keys = keyed().flat_map(|folded| step.of_keys(folded));
                for statement in of_keys.chain(keyless.iter().flat_map(|of| step.of_copies(of))) {
                    self.statements.execute(statement).await?;
                }
                if step == Step::Insert {
                    for folded in keyed() {
                        self.copy_sourced(batch.to, folded).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes the rows of which the feed does not hold the image, as the source shows them.
    async fn copy_sourced(&mut self, to: CommitTs, folded: &FoldedTable) -> Result<()> {
        let Some(sourced) = Sourced::of(self.follow, to, folded)? else {
            return Ok(());
        };
        for keys in sourced.lookups() {
            match self.copy_lookup(&sourced, keys).await {
                Ok(()) => {}
                // Nothing that is written of this table is called equal any more.
                Err(error) if sourced.is_past_its_end(&error) => {
                    self.source.reset();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn copy_lookup(&mut self, sourced: &Sourced<'_>, keys: &[&[u8]]) -> Result<()> {
        let mut rows = Rows::new();
        let source = self.source.session().await?;
        let moved = source.set_snapshot(Some(sourced.at())).await;
        moved.map_err(|error| sourced.failure(error))?;
        let mut scan = source.open_scan(sourced.select(keys));
        loop {
            let whole = scan.fill(&mut rows, PIECE_BYTES).await;
            let whole = whole.map_err(|error| sourced.failure(error))?;
            for statement in insert_rows(sourced.table(), sourced.wanted(&rows)?) {
                self.statements.execute(statement).await?;
            }
            rows.clear();
            if whole {
                return Ok(());
            }
        }
    }

    /// Finds what brings the copies of touched rows in tables without a key to the source's number
    /// at the end of the batch, or at the end of following. The applier's slot is held, which keeps
    /// repairs away between counting and writing.
    async fn adjustments(
        &mut self,
        to: CommitTs,
        tables: &[FoldedTable],
    ) -> Result<Vec<Adjustment>> {
        let mut adjustments = Vec::new();
        for folded in tables.iter().filter(|folded| folded.table.key_len == 0) {
            let stop = &self.follow.tables()[&folded.table.name].stopped;
            let at = stop.as_ref().map_or(to, |stop| stop.at.min(to));
            let rows = folded.rows.iter().map(|row| row.key.as_slice());
            let wanted = Wanted::new(&folded.table, self.digest_key, rows)?;
            let source = self.source.session().await?;
            source.set_snapshot(Some(at)).await?;
            let on_source = match wanted.on_source(source).await {
                Ok(counted) => counted,
                // A DDL has ended the table: it is unproven from here on.
                Err(error) if error.kind() == ErrorKind::SchemaChanged && stop.is_some() => {
                    continue;
                }
                Err(error) => return Err(error.at(format!("counting {}", folded.table.name))),
            };
            let on_target = wanted.on_target(self.statements.target, None).await?;
            adjustments.push(Adjustment::new(&wanted, &on_source, &on_target));
        }
        Ok(adjustments)
    }
}

impl Step {
    fn of_keys(self, folded: &FoldedTable) -> Box<dyn Iterator<Item = String> + Send + '_> {
        let (table, rows) = (&folded.table, folded.rows.iter());
        match self {
            Step::Delete => Box::new(delete_keys(table, rows.map(|row| &row.key[..]))),
            // What is read from the source is written by itself.
            Step::Insert if table.filter.is_some() => Box::new(std::iter::empty()),
            Step::Insert => Box::new(insert_rows(table, rows.filter_map(|row| row.state.row()))),
        }
    }

    fn of_copies(self, of: &Adjustment) -> Box<dyn Iterator<Item = String> + Send + '_> {
        match self {
            Step::Delete => Box::new(of.deletes()),
            Step::Insert => Box::new(of.inserts()),
        }
    }
}
