//! Rows of which only some take part: the source says which, at the fence that is to be made.

use crate::apply::lookup_condition;
use crate::database::{Session, source_scan};
use crate::engine::Follow;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, FoldedRow, FoldedTable};
use crate::row::{Canonical, Cells, Rows};
use std::collections::HashMap;

/// How many keys one query looks up.
const KEYS_PER_QUERY: usize = 500;

/// Replaces the images of rows in tables with a filter by what the filter shows of them on the
/// source at the end of the batch, or at the end of following.
///
/// A condition can be evaluated by nobody but the source, and an event does not say whether its row
/// came into the filter, left it or stayed. Reading the touched keys does, and what is read is exactly
/// what the proof of the batch will read.
///
/// # Errors
/// If the source cannot be read there any more.
pub async fn read_filtered(
    source: &mut Session,
    follow: &Follow,
    to: CommitTs,
    tables: &mut [FoldedTable],
) -> Result<()> {
    // Copies of rows without a key are counted on the source anyway.
    let keyed = tables.iter_mut().filter(|folded| folded.table.key_len > 0);
    for folded in keyed.filter(|folded| folded.table.filter.is_some()) {
        let stop = &follow.tables()[&folded.table.name].stopped;
        let at = stop.as_ref().map_or(to, |stop| stop.at.min(to));
        match read_table(source, folded, at).await {
            Ok(()) => {}
            // A DDL has ended the table: it is unproven from here on, whatever its last rows were.
            Err(error) if error.kind() == ErrorKind::SchemaChanged && stop.is_some() => {
                folded.rows.clear();
            }
            Err(error) => return Err(error.at(format!("reading {}", folded.table.name))),
        }
    }
    Ok(())
}

async fn read_table(source: &mut Session, folded: &mut FoldedTable, at: CommitTs) -> Result<()> {
    source.set_snapshot(Some(at)).await?;
    let table = &folded.table;
    let kinds = table.kinds();
    let kinds = &kinds[..table.key_len];
    let mut canonical = Canonical::new();
    let mut key_of = |key: &[u8]| match canonical.row(kinds, key) {
        Ok(key) => Ok(key.to_vec()),
        Err(error) => Err(Error::new(
            ErrorKind::Rejected,
            format!("table {}: {error}", table.name),
        )),
    };
    for rows in folded.rows.chunks_mut(KEYS_PER_QUERY) {
        let condition = lookup_condition(table, rows.iter().map(|row| row.key.as_slice()));
        let mut found = Rows::new();
        source
            .scan(source_scan(table, Some(&condition)), &mut found)
            .await?;
        let mut by_key = HashMap::new();
        for row in found.iter() {
            by_key.insert(key_of(Cells::prefix(row, table.key_len))?, row.to_vec());
        }
        for FoldedRow { key, row } in rows {
            *row = by_key.remove(&key_of(key)?);
        }
    }
    Ok(())
}
