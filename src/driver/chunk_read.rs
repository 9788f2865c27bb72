//! Reading and comparing one chunk, for the load and for checks alike.

use super::adopt::Clearing;
use super::link::Links;
use crate::chunk::{CHUNK_BYTES_MAX, Chunk, Key, Range, Walk, stripes};
use crate::database::{Session, key_bounds};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::CommitTs;
use crate::fence::{Fence, Scn};
use crate::journal::{FoundBy, Journal};
use crate::proof::{Comparison, Ledger, Tally, compare};
use crate::row::{CellError, DigestKey, Rows};
use crate::schema::{Table, TableName};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// The span of keys below which a table is not cut into stripes: it is read before the cuts pay.
/// TiDB's estimate of the rows is no help, it is zero until the table is analyzed.
const STRIPE_KEYS: i128 = 50_000;

/// How many buffers are kept for the next chunks.
const SPARE_MAX: usize = 16;

/// The bytes above which a buffer is given back to the system instead: its rows were larger than
/// expected, and INV-8 counts what is held.
const SPARE_BYTES_MAX: usize = 16 << 20;

/// Buffers of rows that were compared, to be filled again: the kernel clears fresh memory, which
/// costs as much as hashing what is then written to it.
#[derive(Clone, Debug, Default)]
pub struct Spare(Arc<Mutex<Vec<Rows>>>);

impl Spare {
    /// Returns an empty buffer.
    pub fn take(&self) -> Rows {
        self.lock().pop().unwrap_or_default()
    }

    /// Keeps a buffer for the next chunk, or gives it back to the system.
    fn put(&self, mut rows: Rows) {
        rows.clear();
        let mut spare = self.lock();
        if spare.len() < SPARE_MAX && rows.capacity() <= SPARE_BYTES_MAX {
            spare.push(rows);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Rows>> {
        self.0.lock().expect("no holder of the buffers panics")
    }
}

/// Cuts a table into stripes by the keys that the source holds at the snapshot of the session.
pub async fn cut(source: &mut Session, table: &Table, count: u32) -> Result<Vec<Range>> {
    Ok(match key_bounds(source, table).await? {
        Some((low, high)) if high - low >= STRIPE_KEYS => stripes(low, high, count),
        _ => vec![Range::default()],
    })
}

/// The moment at which both sides are read.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The task whose fence row is asserted.
    pub task: &'a str,
    /// The timestamp on the source.
    pub w: CommitTs,
    /// The snapshot on the target; none reads what is there now.
    pub s: Option<Scn>,
}

impl Moment<'_> {
    /// Returns both sessions, of which the source's reads at this moment and the target's is known
    /// to agree with the fence.
    pub async fn sessions<'l>(
        &self,
        links: &'l mut Links,
    ) -> Result<(&'l mut Session, &'l mut Session)> {
        let (source, target) = links.sessions().await?;
        source.set_snapshot(Some(self.w)).await?;
        if let Some(s) = self.s {
            target
                .assert_fence(self.task, Fence { w: self.w, s })
                .await?;
        }
        Ok((source, target))
    }
}

/// Where the rows go that are found to differ.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// The journal.
    pub journal: &'a Journal,
    /// The fence at which both sides are read.
    pub fence: Fence,
    /// What reads them.
    pub by: FoundBy,
    /// What deletes those that the target has, instead of keeping any.
    pub clearing: Option<&'a Clearing<'a>>,
    /// Where the ledger of the source's rows is gathered, if it is.
    pub ledger: Option<&'a Mutex<Ledger>>,
}

impl Findings<'_> {
    /// Adds rows of the source to the ledger that is gathered.
    pub fn add(&self, rows: &Ledger) {
        if let Some(ledger) = self.ledger {
            let mut ledger = ledger.lock().expect("no holder of the ledger panics");
            ledger.merge(rows);
        }
    }

    /// Keeps the rows that differ and returns the counts.
    pub async fn keep(&self, name: &TableName, comparison: &Comparison) -> Result<Tally> {
        let found = &comparison.differences;
        if let Some(clearing) = self.clearing {
            clearing.delete(found).await?;
        } else if !found.is_empty() {
            self.journal
                .add_differences(name, self.fence, self.by, found)
                .await?;
        }
        if let Some(rows) = &comparison.ledger {
            self.add(rows);
        }
        Ok(comparison.tally)
    }
}

/// Reads the next chunk of a walk on the source, at the snapshot of the session.
///
/// INV-8: rows that are larger than expected cut the chunk short, and a server that cannot hold
/// what was asked for is asked for less.
///
/// # Errors
/// If the read fails.
pub async fn read_chunk(
    source: &mut Session,
    table: &Table,
    walk: &mut Walk,
    spare: &Spare,
) -> Result<Option<(Chunk, Rows)>> {
    let mut rows = spare.take();
    while let Some((range, asked)) = walk.next_read() {
        rows.clear();
        let sql = range.source_sql(table, Some(asked));
        let mut scan = source.open_scan(sql);
        match scan.fill(&mut rows, CHUNK_BYTES_MAX).await {
            Ok(whole) => {
                let last = last_key(table, &rows, scan.guard());
                let chunk = walk.on_read(&rows, last, whole && rows.len() < asked);
                return Ok(Some((chunk, rows)));
            }
            Err(error) if error.kind() == ErrorKind::Memory && walk.shrink() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Returns the key of the last row; that of a table without one is the number before the row.
fn last_key(table: &Table, rows: &Rows, row_id: Option<&[u8]>) -> Option<Key> {
    let last = rows.len().checked_sub(1)?;
    Some(match table.key_len {
        0 => Key::new(vec![row_id?.to_vec()]),
        _ => Key::of(table, rows.packed(last)),
    })
}

/// Compares a range of which the target holds more rows than are held at once: it is cut at keys
/// of the target until every piece fits. Of the source it holds no more than a chunk (INV-8).
///
/// # Errors
/// If a side cannot be read, or a cell is no value of its column's type.
pub async fn compare_in_pieces(
    links: &mut Links,
    at: Moment<'_>,
    table: &Arc<Table>,
    key: &DigestKey,
    range: Range,
    findings: &Findings<'_>,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut waiting = vec![range];
    while let Some(range) = waiting.pop() {
        let (mut source_rows, mut target_rows) = (Rows::new(), Rows::new());
        let (_, target) = at.sessions(links).await?;
        let sql = range.target_sql(table, at.s);
        let whole = target
            .scan_up_to(sql, &mut target_rows, CHUNK_BYTES_MAX)
            .await?;
        let (source, target) = at.sessions(links).await?;
        if !whole {
            let mut last = Rows::new();
            let sql = range.target_key_sql(table, at.s, target_rows.len() - 1);
            target.scan(sql, &mut last).await?;
            let last = (!last.is_empty()).then(|| Key::of(table, last.packed(0)));
            // A range of one key is cut no further: the rows beyond the bound are left uncounted,
            // but those read already differ from the one that the source can have.
            if last.is_some() && last != range.up_to {
                waiting.push(Range {
                    after: last.clone(),
                    up_to: range.up_to,
                });
                waiting.push(Range {
                    after: range.after,
                    up_to: last,
                });
                continue;
            }
        }
        source
            .scan(range.source_sql(table, None), &mut source_rows)
            .await?;
        let spare = Spare::default();
        let (rows, wanted) = ((source_rows, target_rows), findings.ledger.is_some());
        let comparison = compare_rows(table, key, rows, wanted, &spare).await?;
        tally += findings.keep(&table.name, &comparison).await?;
    }
    Ok(tally)
}

/// Compares two sets of rows on the pool of rayon, so that the connections go on meanwhile; `ledger`
/// says whether that of the source's rows is wanted.
///
/// # Errors
/// If a cell is no value of its column's type, or the comparison panicked.
pub async fn compare_rows(
    table: &Arc<Table>,
    key: &DigestKey,
    (source, target): (Rows, Rows),
    ledger: bool,
    spare: &Spare,
) -> Result<Comparison> {
    let (send, receive) = oneshot::channel();
    let (table_there, key, spare) = (Arc::clone(table), key.clone(), spare.clone());
    rayon::spawn(move || {
        let compared = compare(&table_there, &key, (&source, &target), ledger);
        spare.put(source);
        spare.put(target);
        let _ = send.send(compared);
    });
    let compared = receive.await.map_err(|_| {
        Error::new(
            ErrorKind::Broken,
            format!("table {}: the comparison panicked", table.name),
        )
    })?;
    compared.map_err(|error| cell_failure(table, error))
}

/// Makes the error of a cell that is no value of its column's type; it names the column, never the
/// value (INV-7).
pub fn cell_failure(table: &Table, error: CellError) -> Error {
    let column = table
        .columns
        .get(error.column)
        .map_or("?", |column| column.name.as_str());
    Error::new(
        ErrorKind::Rejected,
        format!(
            "table {}: column {column} does not hold {}",
            table.name, error.expected
        ),
    )
}
