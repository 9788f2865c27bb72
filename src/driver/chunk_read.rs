//! Reading and comparing one chunk, for the load and for checks alike.

use crate::chunk::{Chunk, Range, Walk, stripes};
use crate::database::{Session, key_bounds};
use crate::error::{Error, ErrorKind, Result};
use crate::proof::{Comparison, compare};
use crate::row::{DigestKey, Rows};
use crate::schema::Table;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The span of keys below which a table is not cut into stripes: it is read before the cuts pay.
/// TiDB's estimate of the rows is no help, it is zero until the table is analyzed.
const STRIPE_KEYS: i128 = 50_000;

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
) -> Result<Option<(Chunk, Rows)>> {
    let Some((range, asked)) = walk.next_read() else {
        return Ok(None);
    };
    let mut rows = Rows::new();
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
) -> Result<Comparison> {
    let (send, receive) = oneshot::channel();
    let (table_there, key) = (Arc::clone(table), key.clone());
    rayon::spawn(move || {
        let _ = send.send(compare(&table_there, &key, &source, &target));
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
