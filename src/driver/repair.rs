//! Applying repairs: under a lock that keeps the applier away, with the source read anew.

use super::follow::APPLIER_SLOT;
use super::link::Links;
use crate::apply::{delete_keys, insert_rows, lookup_condition};
use crate::database::{FollowedRow, Record, newest_fence, source_scan, target_scan};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::FenceState;
use crate::journal::{DifferenceRow, Journal};
use crate::proof::compare;
use crate::row::{DigestKey, Rows};
use crate::schema::{Table, TableName};
use crate::task::Task;
use serde::Serialize;

/// How many rows are repaired in one transaction: the applier waits meanwhile.
const ROWS_PER_TRANSACTION: i64 = 500;

/// How often the lock is tried for while a large batch is being applied.
const LOCK_TRIES: usize = 600;

/// How long to wait between two tries.
const LOCK_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a repair did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct RepairOutcome {
    /// Rows of the target that were brought to what the source holds.
    pub repaired: u64,
    /// Rows that no longer differed.
    pub already_equal: u64,
    /// Tables that were left alone because following them has stopped.
    pub stopped_tables: u64,
}

/// Repairs the rows that the journal knows to differ, in one table or in all.
///
/// INV-5: a repair never overwrites newer data. While the applier is locked out, the target stands
/// at its newest fence; the source is read again as of that fence, and what is written is what the
/// source holds there, not what was seen when the difference was found. The rows stay unproven
/// until a later fence reads them equal.
///
/// # Errors
/// If the target has no fence, or a side fails.
pub async fn apply_repairs(task: &Task, only: Option<&TableName>) -> Result<RepairOutcome> {
    let journal = Journal::open(&task.state_dir).await?;
    let mut repair = Repair {
        task,
        key: journal.digest_key().await?,
        links: Links::new(task),
        journal,
    };
    let mut outcome = RepairOutcome::default();
    let followed = Record::new(&task.name)
        .followed(repair.links.target.session().await?)
        .await?;
    for row in repair.journal.tables().await? {
        if row.differences > 0 && only.is_none_or(|only| *only == row.name) {
            // What the source shows of a stopped table is not what the target should hold.
            let stopped = |of: &FollowedRow| of.name == row.name && of.stopped.is_some();
            if followed.iter().any(stopped) {
                outcome.stopped_tables += 1;
                continue;
            }
            repair
                .table(&row.name, row.differences, &mut outcome)
                .await?;
        }
    }
    Ok(outcome)
}

/// What is done with the rows of a page that still differ.
#[derive(Clone, Copy, PartialEq)]
enum Pass {
    /// They are deleted, so that none holds a unique value that another one must get.
    Clear,
    /// They are brought to what the source holds.
    Mend,
}

struct Repair<'a> {
    task: &'a Task,
    journal: Journal,
    key: DigestKey,
    links: Links,
}

impl Repair<'_> {
    /// Repairs one table: page by page, each in one transaction.
    ///
    /// Rows that traded unique values must be repaired together. Where they may stand on different
    /// pages, all pages are cleared first.
    async fn table(
        &mut self,
        name: &TableName,
        differences: u64,
        outcome: &mut RepairOutcome,
    ) -> Result<()> {
        let table = self.journal.table_model(name).await?.ok_or_else(|| {
            Error::new(
                ErrorKind::Broken,
                format!("the journal does not know table {name}"),
            )
        })?;
        let unique = table.indexes.iter().filter(|index| index.unique).count() > 1;
        if unique && differences > ROWS_PER_TRANSACTION.cast_unsigned() {
            self.pages(&table, Pass::Clear, &mut RepairOutcome::default())
                .await?;
        }
        self.pages(&table, Pass::Mend, outcome).await
    }

    async fn pages(
        &mut self,
        table: &Table,
        pass: Pass,
        outcome: &mut RepairOutcome,
    ) -> Result<()> {
        let mut after = 0;
        loop {
            let rows = self
                .journal
                .differences(Some(&table.name), after, ROWS_PER_TRANSACTION)
                .await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = last.id;
            let repaired = self.page(table, pass, &rows).await?;
            outcome.repaired += repaired;
            outcome.already_equal += (rows.len() as u64).saturating_sub(repaired);
            if pass == Pass::Mend {
                for row in &rows {
                    self.journal.mark_repaired(row.id).await?;
                }
            }
        }
    }

    /// Repairs the rows of one page that still differ, and returns how many those were.
    async fn page(&mut self, table: &Table, pass: Pass, rows: &[DifferenceRow]) -> Result<u64> {
        let record = Record::new(&self.task.name);
        let (source, target) = self.links.sessions().await?;
        let w = lock_at_fence(self.task, &record, target).await?;
        let keys = rows.iter().map(|row| row.difference.key.as_slice());
        let condition = lookup_condition(table, keys);
        let (mut source_rows, mut target_rows) = (Rows::new(), Rows::new());
        source.set_snapshot(Some(w)).await?;
        source
            .scan(source_scan(table, Some(&condition), None), &mut source_rows)
            .await?;
        target
            .scan(target_scan(table, Some(&condition), None), &mut target_rows)
            .await?;
        let comparison =
            compare(table, &self.key, &source_rows, &target_rows).map_err(|error| {
                Error::new(
                    ErrorKind::Rejected,
                    format!("table {}: {error}", table.name),
                )
            })?;
        let found = &comparison.differences;
        for statement in delete_keys(table, found.iter().map(|found| found.key.as_slice())) {
            target.execute(statement).await?;
        }
        if pass == Pass::Mend {
            let rows = found.iter().filter_map(|found| found.source.as_deref());
            for statement in insert_rows(table, rows) {
                target.execute(statement).await?;
            }
        }
        target.execute("COMMIT").await?;
        Ok(found.len() as u64)
    }
}

/// Begins a transaction in which the applier can commit nothing, with the target at a fence, and
/// returns the fence's timestamp.
async fn lock_at_fence(
    task: &Task,
    record: &Record,
    target: &mut crate::database::Session,
) -> Result<crate::feed::CommitTs> {
    for _ in 0..LOCK_TRIES {
        target.execute("BEGIN").await?;
        record.lock_applier(target, APPLIER_SLOT).await?;
        match newest_fence(target, &task.name).await? {
            Some((row, fence)) if row.state == FenceState::Complete => return Ok(fence.w),
            Some(_) => {}
            None => break,
        }
        target.execute("ROLLBACK").await?;
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    target.execute("ROLLBACK").await?;
    Err(
        Error::new(ErrorKind::Refused, "the target stands at no fence").advise(
            "repair --apply works on a migration whose load is done; else use the printed SQL",
        ),
    )
}
