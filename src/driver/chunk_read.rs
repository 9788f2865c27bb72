//! Reading and comparing one chunk, for the load and for checks alike.

use crate::chunk::{Chunk, Range, Walk, stripes};
use crate::database::{Session, key_bounds};
use crate::error::{Error, ErrorKind, Result};
use crate::proof::{Comparison, compare};
use crate::row::{DigestKey, Rows};
use crate::schema::Table;
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

/// Reads the next chunk of a walk on the source, at the snapshot of the session.
///
/// # Errors
/// If the read fails.
pub async fn read_chunk(
    source: &mut Session,
    table: &Table,
    walk: &mut Walk,
    spare: &Spare,
) -> Result<Option<(Chunk, Rows)>> {
    let Some((range, asked)) = walk.next_read() else {
        return Ok(None);
    };
    let mut rows = spare.take();
    source
        .scan(range.source_sql(table, Some(asked)), &mut rows)
        .await?;
    let exhausted = rows.len() < asked;
    let chunk = walk.on_read(table, &rows, exhausted);
    Ok(Some((chunk, rows)))
}

/// Compares two sets of rows on the pool of rayon, so that the connections go on meanwhile.
///
/// # Errors
/// If a cell is no value of its column's type, or the comparison panicked.
pub async fn compare_rows(
    table: &Arc<Table>,
    key: &DigestKey,
    source: Rows,
    target: Rows,
    spare: &Spare,
) -> Result<Comparison> {
    let (send, receive) = oneshot::channel();
    let (table_there, key, spare) = (Arc::clone(table), key.clone(), spare.clone());
    rayon::spawn(move || {
        let compared = compare(&table_there, &key, &source, &target);
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
    compared.map_err(|error| {
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
    })
}
