//! Applying repairs: under a lock that keeps the applier away, with the source read anew.

use super::applier::APPLIER_SLOT;
use super::chunk_read::{Moment, cell_failure};
use super::copies::{Adjustment, Wanted};
use super::link::{Links, Retries};
use crate::apply::{delete_keys, insert_rows, lookup_condition};
use crate::chunk::CHUNK_BYTES_MAX;
use crate::database::{
    FollowedRow, Record, Select, Session, newest_fence, source_scan, target_scan,
};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::FenceState;
use crate::journal::{DifferenceRow, Journal};
use crate::proof::{compare, retain_keys};
use crate::row::{DigestKey, Rows};
use crate::schema::{Pairing, Table, TableName};
use crate::task::Task;
use serde::Serialize;
use std::sync::Arc;

/// How many rows are repaired in one transaction: the applier waits meanwhile.
const ROWS_PER_TRANSACTION: i64 = 500;

/// How many keys are read at once: their rows may be large.
const KEYS_AT_ONCE: usize = 20;

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
    let list = async |links: &mut Links| {
        let target = links.target.session().await?;
        Record::new(&task.name).followed(target).await
    };
    let followed = repair.links.retried("listing the tables", list).await?;
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
        let indexes = table.indexes.iter().filter(|index| index.unique).count();
        let unique = indexes > usize::from(table.key_len > 0);
        let table = Arc::new(table);
        if unique && differences > ROWS_PER_TRANSACTION.cast_unsigned() {
            self.pages(&table, Pass::Clear, &mut RepairOutcome::default())
                .await?;
        }
        self.pages(&table, Pass::Mend, outcome).await
    }

    async fn pages(
        &mut self,
        table: &Arc<Table>,
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
            let Some(repaired) = self.page_retried(table, pass, &rows).await? else {
                outcome.stopped_tables += u64::from(pass == Pass::Mend);
                return Ok(());
            };
            outcome.repaired += repaired;
            outcome.already_equal += (rows.len() as u64).saturating_sub(repaired);
            if pass == Pass::Mend {
                for row in &rows {
                    self.journal.mark_repaired(row.id).await?;
                }
            }
        }
    }

    /// Repairs the rows of one page. After a passing fault it is done again: what was committed then
    /// differs no more.
    async fn page_retried(
        &mut self,
        table: &Arc<Table>,
        pass: Pass,
        rows: &[DifferenceRow],
    ) -> Result<Option<u64>> {
        let mut retries = Retries::new();
        loop {
            match self.page(table, pass, rows).await {
                Ok(repaired) => return Ok(repaired),
                Err(error) => {
                    self.links.reset();
                    let error = error.at(format!("repairing {}", table.name));
                    retries.pause(error).await?;
                }
            }
        }
    }

    /// Repairs the rows of one page that still differ, and returns how many those were; none if the
    /// table has been stopped meanwhile, and perhaps gets a fresh base. Stopping and joining take the
    /// applier's slot, so that neither can come in between.
    async fn page(
        &mut self,
        table: &Arc<Table>,
        pass: Pass,
        rows: &[DifferenceRow],
    ) -> Result<Option<u64>> {
        let record = Record::new(&self.task.name);
        let target = self.links.target.session().await?;
        let w = lock_at_fence(self.task, &record, target).await?;
        let followed = record.followed(target).await?;
        let stopped = |of: &FollowedRow| of.name == table.name && of.stopped.is_some();
        if followed.iter().any(stopped) {
            target.execute("ROLLBACK").await?;
            return Ok(None);
        }
        let at = Moment {
            task: &self.task.name,
            w,
            s: None,
        };
        let repaired = match table.pairing() {
            Pairing::Copies => self.copies(table, pass, rows, at).await?,
            Pairing::Ranges | Pairing::Buckets => self.keys(table, pass, rows, at).await?,
        };
        let target = self.links.target.session().await?;
        target.execute("COMMIT").await?;
        Ok(Some(repaired))
    }

    /// Brings the rows of some keys to what the source holds: first every one that differs is
    /// deleted, then they are inserted anew.
    async fn keys(
        &mut self,
        table: &Arc<Table>,
        pass: Pass,
        rows: &[DifferenceRow],
        at: Moment<'_>,
    ) -> Result<u64> {
        let keys: Vec<&[u8]> = rows.iter().map(|row| &row.difference.key[..]).collect();
        let (source, target) = at.sessions(&mut self.links).await?;
        let on_source = |condition: &str| source_scan(table, Some(condition));
        let on_target = |condition: &str| target_scan(table, Some(condition), None);
        let mut differing: Vec<Vec<u8>> = Vec::new();
        let mut groups: Vec<&[&[u8]]> = keys.chunks(KEYS_AT_ONCE).collect();
        while let Some(some) = groups.pop() {
            let source_rows = rows_of(source, table, some, on_source).await?;
            let target_rows = rows_of(target, table, some, on_target).await?;
            let (Some(source_rows), Some(target_rows)) = (source_rows, target_rows) else {
                groups.extend(halves(some));
                continue;
            };
            let comparison = compare(table, &self.key, (&source_rows, &target_rows), false)
                .map_err(|error| cell_failure(table, error))?;
            differing.extend(comparison.differences.into_iter().map(|found| found.key));
        }
        let differing: Vec<&[u8]> = differing.iter().map(Vec::as_slice).collect();
        for statement in delete_keys(table, differing.iter().copied()) {
            target.execute(statement).await?;
        }
        if pass == Pass::Mend {
            let mut groups: Vec<&[&[u8]]> = differing.chunks(KEYS_AT_ONCE).collect();
            while let Some(some) = groups.pop() {
                let Some(rows) = rows_of(source, table, some, on_source).await? else {
                    groups.extend(halves(some));
                    continue;
                };
                for statement in insert_rows(table, rows.iter()) {
                    target.execute(statement).await?;
                }
            }
        }
        Ok(differing.len() as u64)
    }

    /// Brings the number of copies of some rows to that of the source.
    async fn copies(
        &mut self,
        table: &Arc<Table>,
        pass: Pass,
        rows: &[DifferenceRow],
        at: Moment<'_>,
    ) -> Result<u64> {
        let rows = rows.iter().filter_map(|row| {
            let difference = &row.difference;
            difference
                .source
                .as_deref()
                .or(difference.target.as_deref())
        });
        let wanted = Wanted::new(table, &self.key, rows)?;
        let (source, target) = at.sessions(&mut self.links).await?;
        let on_source = wanted.on_source(source).await?;
        let on_target = wanted.on_target(target, None).await?;
        let adjustment = Adjustment::new(&wanted, &on_source, &on_target);
        for statement in adjustment.deletes() {
            target.execute(statement).await?;
        }
        if pass == Pass::Mend {
            for statement in adjustment.inserts() {
                target.execute(statement).await?;
            }
        }
        Ok(adjustment.copies())
    }
}

fn halves<'k, 'a>(keys: &'k [&'a [u8]]) -> [&'k [&'a [u8]]; 2] {
    let (left, right) = keys.split_at(keys.len() / 2);
    [left, right]
}

/// Reads the rows with exactly these packed keys by a query that looks for them; none if there are
/// more bytes than are held at once (INV-8), and more keys than one.
async fn rows_of(
    session: &mut Session,
    table: &Table,
    keys: &[&[u8]],
    query: impl Fn(&str) -> Select,
) -> Result<Option<Rows>> {
    let mut rows = Rows::new();
    let condition = lookup_condition(table, keys.iter().copied());
    let most = if keys.len() > 1 {
        CHUNK_BYTES_MAX
    } else {
        usize::MAX
    };
    let mut scan = session.open_scan(query(&condition));
    let fits = scan.fill(&mut rows, most).await?;
    let mut whole = fits;
    while !whole {
        // To leave the rest unread would cost the connection, and with it the transaction.
        rows.clear();
        whole = scan.fill(&mut rows, most).await?;
    }
    drop(scan);
    if !fits {
        return Ok(None);
    }
    let exact = retain_keys(table, rows, keys).map_err(|error| cell_failure(table, error))?;
    Ok(Some(exact))
}

/// Begins a transaction in which the applier can commit nothing, with the target at a fence, and
/// returns the fence's timestamp.
async fn lock_at_fence(
    task: &Task,
    record: &Record,
    target: &mut Session,
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
