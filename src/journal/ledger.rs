//! The ledgers of tables: begun by a read, carried on by proven batches, ended with a reason.

use super::{Journal, failure, json, ts_from_db, ts_to_db};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, Offsets};
use crate::fence::Fence;
use crate::proof::Ledger;
use crate::schema::TableName;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use std::collections::{BTreeMap, BTreeSet};

/// Where a ledger stands in its life; a table has at most one at each stage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// The rows that a load has read equal so far.
    Load,
    /// What came and went since the fence at which a check reads the table.
    Opening,
    /// The ledger of the table.
    Kept,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Stage::Load => "load",
            Stage::Opening => "opening",
            Stage::Kept => "kept",
        }
    }
}

/// What proven batches do to ledgers.
#[derive(Clone, Debug, Default)]
pub struct LedgerStep {
    /// The tables that join with the batches: their ledgers begin with the loads of their bases.
    pub joined: BTreeSet<TableName>,
    /// The tables whose ledgers end, and why.
    pub ended: BTreeMap<TableName, String>,
    /// Why all ledgers end, if they do.
    pub all_ended: Option<&'static str>,
    /// What changes in the ledgers of tables between two timestamps.
    changes: BTreeMap<(TableName, CommitTs, CommitTs), std::result::Result<Ledger, &'static str>>,
}

impl LedgerStep {
    /// Begins with batches that these tables join.
    pub fn joining(joined: BTreeSet<TableName>) -> LedgerStep {
        LedgerStep {
            joined,
            ..LedgerStep::default()
        }
    }

    /// Adds what a part of a batch that reaches from one timestamp to another changes in the ledger of a
    /// table, or why nobody can tell.
    pub fn carry(
        &mut self,
        name: &TableName,
        (from, to): (CommitTs, CommitTs),
        change: &std::result::Result<Ledger, &'static str>,
    ) {
        let key = (name.clone(), from, to);
        let known = self.changes.entry(key).or_insert(Ok(Ledger::default()));
        match (known, change) {
            (Ok(known), Ok(change)) => known.merge(change),
            (known @ Ok(_), Err(why)) => *known = Err(why),
            (Err(_), _) => {}
        }
    }

    /// Adds what newer batches do.
    pub fn add(&mut self, newer: LedgerStep) {
        self.joined.extend(newer.joined);
        self.ended.extend(newer.ended);
        self.all_ended = self.all_ended.or(newer.all_ended);
        for ((name, from, to), change) in newer.changes {
            self.carry(&name, (from, to), &change);
        }
    }

    /// Returns about what it takes in memory.
    pub fn byte_len(&self) -> usize {
        let changes = self.changes.iter();
        let bytes = changes.map(|((name, ..), change)| {
            let names = name.schema.len() + name.table.len();
            size_of_val(change) + names + change.as_ref().map_or(0, Ledger::byte_len)
        });
        bytes.sum()
    }
}

/// The ledger that is kept of a table.
#[derive(Clone, Debug)]
pub struct LedgerRow {
    /// The timestamp of the read with which it began.
    pub since: CommitTs,
    /// The ledger at the newest proven fence, or why it has ended.
    pub ledger: std::result::Result<Ledger, String>,
}

/// A ledger in the journal.
struct Entry {
    since: CommitTs,
    w: CommitTs,
    ledger: Ledger,
    reason: Option<String>,
}

impl Entry {
    fn new(w: CommitTs, ledger: Ledger) -> Entry {
        Entry {
            since: w,
            w,
            ledger,
            reason: None,
        }
    }

    /// Takes in what a batch changes; `joins` says that the batch tells all that came since the ledger
    /// began. What the ledger knows already it is not told again (INV-4).
    fn carry(
        &mut self,
        (from, to): (CommitTs, CommitTs),
        joins: bool,
        change: &std::result::Result<Ledger, &'static str>,
    ) {
        if self.reason.is_some() || to <= self.w {
            return;
        }
        match change {
            Err(why) => self.reason = Some((*why).to_owned()),
            Ok(_) if from < self.w && !joins => {
                let why = "the read with which it would begin lies within a batch";
                self.reason = Some(why.to_owned());
            }
            Ok(change) => {
                self.ledger.merge(change);
                self.w = to;
            }
        }
    }
}

impl Journal {
    /// Keeps the newest fence up to which every batch is proven, for each partition the offset at which
    /// the feed goes on there, and what the batches did to the ledgers.
    ///
    /// After a crash the feed is read again from here: batches that were applied but not yet proven
    /// are folded anew into the first batch, so that none stays unproven. INV-3: the ledgers move in the
    /// same transaction, so that they stand at the proven fence, whatever crashes when.
    pub async fn set_proven(
        &self,
        fence: Fence,
        offsets: &Offsets,
        step: &LedgerStep,
    ) -> Result<()> {
        let mut writing = self.writing().await?;
        sqlx::query("INSERT OR REPLACE INTO proven (id, w, s, offsets) VALUES (1, ?, ?, ?)")
            .bind(ts_to_db(fence.w))
            .bind(ts_to_db(fence.s))
            .bind(json(offsets))
            .execute(&mut *writing)
            .await
            .map_err(failure)?;
        for name in &step.joined {
            begin_loaded(&mut writing, name).await?;
        }
        // What batches that are proven together changed in one table stands side by side, in order.
        let changes: Vec<_> = step.changes.iter().collect();
        for of_table in changes.chunk_by(|((one, ..), _), ((other, ..), _)| one == other) {
            let ((name, ..), _) = of_table[0];
            for stage in [Stage::Opening, Stage::Kept] {
                if let Some(mut entry) = entry(&mut writing, name, stage).await? {
                    let joins = stage == Stage::Kept && step.joined.contains(name);
                    for ((_, from, to), change) in of_table {
                        entry.carry((*from, *to), joins, change);
                    }
                    put(&mut writing, name, stage, &entry).await?;
                }
            }
        }
        for (name, reason) in &step.ended {
            end(&mut writing, Some(name), reason).await?;
        }
        if let Some(reason) = step.all_ended {
            end(&mut writing, None, reason).await?;
        }
        writing.commit().await.map_err(failure)
    }

    /// Gathers what changes in tables from a fence on, at which they are about to be read; false if a
    /// later fence is proven already: then a newer one must be taken.
    pub async fn open_ledgers(&self, names: &[TableName], fence: Fence) -> Result<bool> {
        let mut writing = self.writing().await?;
        let proven: Option<i64> = sqlx::query_scalar("SELECT w FROM proven WHERE id = 1")
            .fetch_optional(&mut *writing)
            .await
            .map_err(failure)?;
        if proven.is_some_and(|w| ts_from_db(w) > fence.w) {
            return Ok(false);
        }
        for name in names {
            let entry = Entry::new(fence.w, Ledger::default());
            put(&mut writing, name, Stage::Opening, &entry).await?;
        }
        writing.commit().await.map_err(failure)?;
        Ok(true)
    }

    /// Ends what [`Journal::open_ledgers`] has begun for a table. If the table was read equal at that
    /// fence, `rows` is the ledger of its rows there: it is kept from now on, with what came since.
    pub async fn close_opening(
        &self,
        name: &TableName,
        fence: Fence,
        rows: Option<Ledger>,
    ) -> Result<()> {
        let mut writing = self.writing().await?;
        let opening = entry(&mut writing, name, Stage::Opening).await?;
        let Some(opening) = opening.filter(|opening| opening.since == fence.w) else {
            // Another check has begun since, and may do better.
            return Ok(());
        };
        if let Some(rows) = rows {
            let known = entry(&mut writing, name, Stage::Kept).await?;
            let kept = match opening.reason {
                None => {
                    let mut ledger = rows;
                    ledger.merge(&opening.ledger);
                    let ledger = ledger.fitted();
                    Some(Entry { ledger, ..opening })
                }
                // One that began earlier may still be good.
                Some(_) if known.is_some_and(|known| known.reason.is_none()) => None,
                Some(_) => Some(opening),
            };
            if let Some(kept) = kept {
                put(&mut writing, name, Stage::Kept, &kept).await?;
            }
        }
        delete(&mut writing, Some(name), Stage::Opening).await?;
        writing.commit().await.map_err(failure)
    }

    /// Keeps the ledger of all rows that a load has read equal, as of its base.
    pub async fn set_load_ledger(
        &self,
        name: &TableName,
        base: CommitTs,
        rows: Ledger,
    ) -> Result<()> {
        let mut writing = self.writing().await?;
        put(&mut writing, name, Stage::Load, &Entry::new(base, rows)).await?;
        writing.commit().await.map_err(failure)
    }

    /// Begins the ledger of a table that was loaded and read equal; harmless when it was done before,
    /// as long as nothing is followed yet.
    pub async fn begin_loaded_ledger(&self, name: &TableName) -> Result<()> {
        let mut writing = self.writing().await?;
        begin_loaded(&mut writing, name).await?;
        writing.commit().await.map_err(failure)
    }

    /// Forgets what the load of one table, or of all, has gathered for a ledger: it has begun, or must
    /// not begin.
    pub async fn end_load_ledger(&self, name: Option<&TableName>) -> Result<()> {
        let mut writing = self.writing().await?;
        delete(&mut writing, name, Stage::Load).await?;
        writing.commit().await.map_err(failure)
    }

    /// Returns the newest proven fence, and of each table that has or had one the ledger there.
    pub async fn ledgers(&self) -> Result<(Option<Fence>, BTreeMap<TableName, LedgerRow>)> {
        // Both are of one moment: a transaction that only reads sees one state.
        let mut reading = self.pool.begin().await.map_err(failure)?;
        let proven = sqlx::query("SELECT w, s FROM proven WHERE id = 1")
            .fetch_optional(&mut *reading)
            .await
            .map_err(failure)?;
        let proven = proven.map(|row| Fence {
            w: ts_from_db(row.get("w")),
            s: ts_from_db(row.get("s")),
        });
        let rows = sqlx::query("SELECT * FROM ledger WHERE stage = ?")
            .bind(Stage::Kept.as_str())
            .fetch_all(&mut *reading)
            .await
            .map_err(failure)?;
        let at = proven.map_or(0, |fence| fence.w);
        let mut ledgers = BTreeMap::new();
        for row in &rows {
            let name = TableName::new(
                row.get::<String, _>("table_schema"),
                row.get::<String, _>("table_name"),
            );
            let entry = entry_of(row)?;
            let ledger = match entry.reason {
                Some(reason) => Err(reason),
                None if entry.w > at => {
                    Err("it begins at a fence up to which nothing is proven yet".to_owned())
                }
                None => Ok(entry.ledger),
            };
            let since = entry.since;
            ledgers.insert(name, LedgerRow { since, ledger });
        }
        Ok((proven, ledgers))
    }

    /// Begins a transaction that writes, so that what it reads stays true until it has.
    pub(super) async fn writing(&self) -> Result<Transaction<'static, Sqlite>> {
        let begun = self.pool.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(failure)
    }
}

/// Adds the rows of a chunk that was read equal to what a load has gathered.
pub(super) async fn add_to_load(
    writing: &mut Transaction<'static, Sqlite>,
    name: &TableName,
    base: CommitTs,
    rows: &Ledger,
) -> Result<()> {
    let known = entry(writing, name, Stage::Load).await?;
    let mut known = known.unwrap_or_else(|| Entry::new(base, Ledger::default()));
    known.ledger.merge(rows);
    put(writing, name, Stage::Load, &known).await
}

/// Begins the ledger of a table with what its load has gathered, or ends it if that is nothing.
async fn begin_loaded(writing: &mut Transaction<'static, Sqlite>, name: &TableName) -> Result<()> {
    match entry(writing, name, Stage::Load).await? {
        Some(loaded) => {
            let kept = Entry::new(loaded.w, loaded.ledger.fitted());
            put(writing, name, Stage::Kept, &kept).await
        }
        None => end(writing, Some(name), "no load has read the table equal").await,
    }
}

async fn entry(
    writing: &mut Transaction<'static, Sqlite>,
    name: &TableName,
    stage: Stage,
) -> Result<Option<Entry>> {
    let sql = "SELECT * FROM ledger WHERE table_schema = ? AND table_name = ? AND stage = ?";
    let row = sqlx::query(sql)
        .bind(&name.schema)
        .bind(&name.table)
        .bind(stage.as_str())
        .fetch_optional(&mut **writing)
        .await
        .map_err(failure)?;
    row.as_ref().map(entry_of).transpose()
}

fn entry_of(row: &SqliteRow) -> Result<Entry> {
    let ledger = Ledger::from_bytes(row.get::<&[u8], _>("sums")).ok_or_else(|| {
        Error::new(ErrorKind::Broken, "the journal holds a damaged ledger")
            .advise("restore the state directory from a copy")
    })?;
    Ok(Entry {
        since: ts_from_db(row.get("since")),
        w: ts_from_db(row.get("w")),
        ledger,
        reason: row.get("reason"),
    })
}

/// Keeps a ledger; of one that has ended the sums are of no use any more.
async fn put(
    writing: &mut Transaction<'static, Sqlite>,
    name: &TableName,
    stage: Stage,
    entry: &Entry,
) -> Result<()> {
    let sums = match entry.reason {
        None => entry.ledger.to_bytes(),
        Some(_) => Ledger::default().to_bytes(),
    };
    sqlx::query("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)")
        .bind(&name.schema)
        .bind(&name.table)
        .bind(stage.as_str())
        .bind(ts_to_db(entry.since))
        .bind(ts_to_db(entry.w))
        .bind(sums)
        .bind(&entry.reason)
        .execute(&mut **writing)
        .await
        .map_err(failure)?;
    Ok(())
}

/// Ends the ledgers of one table or of all, and what may become one.
pub(super) async fn end(
    writing: &mut Transaction<'static, Sqlite>,
    name: Option<&TableName>,
    reason: &str,
) -> Result<()> {
    sqlx::query(
        "UPDATE ledger SET reason = ?1, sums = ?2
         WHERE stage <> 'load' AND reason IS NULL
           AND (?3 IS NULL OR table_schema = ?3) AND (?4 IS NULL OR table_name = ?4)",
    )
    .bind(reason)
    .bind(Ledger::default().to_bytes())
    .bind(name.map(|name| name.schema.as_str()))
    .bind(name.map(|name| name.table.as_str()))
    .execute(&mut **writing)
    .await
    .map_err(failure)?;
    Ok(())
}

async fn delete(
    writing: &mut Transaction<'static, Sqlite>,
    name: Option<&TableName>,
    stage: Stage,
) -> Result<()> {
    sqlx::query(
        "DELETE FROM ledger WHERE stage = ?1
           AND (?2 IS NULL OR table_schema = ?2) AND (?3 IS NULL OR table_name = ?3)",
    )
    .bind(stage.as_str())
    .bind(name.map(|name| name.schema.as_str()))
    .bind(name.map(|name| name.table.as_str()))
    .execute(&mut **writing)
    .await
    .map_err(failure)?;
    Ok(())
}

#[cfg(test)]
mod tests;
