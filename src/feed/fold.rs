//! Folding a stretch of changes to the last image of each key.

use super::{CommitTs, RowChange, packed_row};
use crate::row::{Canonical, Kind, Rows};
use crate::schema::{Table, TableName};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a stretch did to one key: the row that is there afterwards, or none.
#[derive(Debug, Default)]
pub struct FoldedRow {
    /// The key's packed cells.
    pub key: Vec<u8>,
    /// The whole packed row, or none if the key is gone.
    pub row: Option<Vec<u8>>,
}

/// What a stretch did to one table.
#[derive(Debug)]
pub struct FoldedTable {
    /// The table.
    pub table: Arc<Table>,
    /// The keys that were touched, those that are gone included, each once.
    pub rows: Vec<FoldedRow>,
}

/// Folds rows, which must be sorted by commit timestamp, to the last image of each key.
///
/// Within one commit timestamp every key that was left comes before every key that was taken,
/// because TiCDC may split an update of a key and send its halves in any order.
///
/// # Errors
/// With the first change that cannot be carried.
pub fn fold(
    tables: &BTreeMap<TableName, Arc<Table>>,
    rows: &[RowChange],
) -> Result<Vec<FoldedTable>, FoldError> {
    let mut folding: BTreeMap<&TableName, Folding> = BTreeMap::new();
    for transaction in rows.chunk_by(|a, b| a.commit_ts == b.commit_ts) {
        let mut taken = Vec::new();
        for change in transaction {
            let Some((name, table)) = tables.get_key_value(&change.table) else {
                continue;
            };
            let table = folding.entry(name).or_insert_with(|| Folding::new(table));
            let after = table.leave(change).map_err(|what| FoldError {
                table: change.table.clone(),
                commit_ts: change.commit_ts,
                what,
            })?;
            taken.extend(after.map(|(key, row)| (name, key, row)));
        }
        for (name, key, row) in taken {
            if let Some(table) = folding.get_mut(name) {
                table.keys.insert(key, row);
            }
        }
    }
    Ok(folding.into_values().map(Folding::finish).collect())
}

/// A change that cannot be carried. It never holds a value (INV-7).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoldError {
    /// The table.
    pub table: TableName,
    /// When the change committed.
    pub commit_ts: CommitTs,
    /// What is wrong.
    pub what: String,
}

/// The last images of one table while they are folded, by canonical key.
struct Folding {
    table: Arc<Table>,
    kinds: Vec<Kind>,
    keys: HashMap<Vec<u8>, FoldedRow>,
    canonical: Canonical,
}

impl Folding {
    fn new(table: &Arc<Table>) -> Self {
        let kinds = table
            .key()
            .iter()
            .map(|column| column.kind.clone())
            .collect();
        let (table, keys, canonical) = (Arc::clone(table), HashMap::new(), Canonical::new());
        Folding {
            table,
            kinds,
            keys,
            canonical,
        }
    }

    /// Notes that the row before the change left its key; returns the row after it with its key.
    fn leave(&mut self, change: &RowChange) -> Result<Option<(Vec<u8>, FoldedRow)>, String> {
        let images = change.images()?;
        if let Some(after) = &images.after
            && after.len() != self.table.columns.len()
        {
            return Err("the message has other columns than the table".to_owned());
        }
        if let Some(mut before) = images.before {
            // With `only-output-updated-columns` the old image lacks what did not change.
            for (name, value) in images.after.iter().flatten() {
                before.entry(name.clone()).or_insert_with(|| value.clone());
            }
            let mut key = Rows::new();
            packed_row(&self.table, self.table.key_len, &before, &mut key)?;
            let key = key.packed(0).to_vec();
            let canonical = self.canonical_key(&key)?;
            self.keys.insert(canonical, FoldedRow { key, row: None });
        }
        let Some(after) = images.after else {
            return Ok(None);
        };
        let mut row = Rows::new();
        packed_row(&self.table, self.table.columns.len(), &after, &mut row)?;
        let row = row.packed(0).to_vec();
        let key = crate::row::Cells::prefix(&row, self.table.key_len).to_vec();
        let canonical = self.canonical_key(&key)?;
        Ok(Some((
            canonical,
            FoldedRow {
                key,
                row: Some(row),
            },
        )))
    }

    fn canonical_key(&mut self, key: &[u8]) -> Result<Vec<u8>, String> {
        let canonical = self
            .canonical
            .row(&self.kinds, key)
            .map_err(|error| error.to_string())?;
        Ok(canonical.to_vec())
    }

    fn finish(self) -> FoldedTable {
        let mut rows: Vec<FoldedRow> = self.keys.into_values().collect();
        // One order makes statements, and with them locks and tests, repeatable.
        rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        FoldedTable {
            table: self.table,
            rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::open_protocol::tests::change;
    use super::*;
    use crate::row::Cells;
    use crate::schema::testing::integer_table;

    fn insert(ts: CommitTs, id: u32, value: u32) -> RowChange {
        change(ts, &format!(r#"{{"u":{}}}"#, image(id, value)))
    }

    fn update(ts: CommitTs, before: (u32, u32), after: (u32, u32)) -> RowChange {
        let (before, after) = (image(before.0, before.1), image(after.0, after.1));
        change(ts, &format!(r#"{{"u":{after},"p":{before}}}"#))
    }

    fn delete(ts: CommitTs, id: u32) -> RowChange {
        change(ts, &format!(r#"{{"d":{}}}"#, image(id, 0)))
    }

    fn image(id: u32, value: u32) -> String {
        format!(r#"{{"id":{{"t":8,"f":11,"v":{id}}},"value":{{"t":8,"f":65,"v":{value}}}}}"#)
    }

    fn folded(rows: &[RowChange]) -> Vec<(String, Option<String>)> {
        let table = Arc::new(integer_table("s", "t"));
        let tables = BTreeMap::from([(table.name.clone(), table)]);
        let text = |cells: &[u8], at: usize| {
            let cell = Cells::of(cells).nth(at).flatten().expect("a cell");
            String::from_utf8(cell.to_vec()).expect("text")
        };
        let folded = fold(&tables, rows).expect("valid rows");
        let rows = folded.into_iter().flat_map(|table| table.rows);
        rows.map(|row| (text(&row.key, 0), row.row.map(|row| text(&row, 1))))
            .collect()
    }

    fn row(id: &str, value: Option<&str>) -> (String, Option<String>) {
        (id.to_owned(), value.map(str::to_owned))
    }

    #[test]
    fn the_last_image_of_a_key_stays() {
        let rows = [
            insert(1, 1, 10),
            update(2, (1, 10), (1, 11)),
            insert(2, 2, 20),
            delete(3, 2),
        ];
        assert_eq!(folded(&rows), [row("1", Some("11")), row("2", None)]);
    }

    #[test]
    fn the_old_key_of_an_update_is_gone() {
        assert_eq!(
            folded(&[update(5, (1, 10), (2, 10))]),
            [row("1", None), row("2", Some("10"))]
        );
    }

    #[test]
    fn keys_that_trade_places_in_one_transaction_both_stay() {
        let rows = [update(5, (1, 10), (2, 10)), update(5, (2, 20), (1, 20))];
        assert_eq!(folded(&rows), [row("1", Some("20")), row("2", Some("10"))]);
    }

    #[test]
    fn halves_of_a_split_update_may_come_in_any_order() {
        let rows = [insert(5, 1, 11), delete(5, 1)];
        assert_eq!(folded(&rows), [row("1", Some("11"))]);
    }

    #[test]
    fn inv_4_replays_and_duplicates_change_nothing() {
        let rows = [
            insert(1, 1, 10),
            insert(1, 1, 10),
            update(2, (1, 10), (1, 11)),
        ];
        let replayed = [
            insert(1, 1, 10),
            update(2, (1, 10), (1, 11)),
            update(2, (1, 10), (1, 11)),
        ];
        assert_eq!(folded(&rows), folded(&replayed));
    }

    #[test]
    fn a_message_without_a_column_is_an_error_without_values() {
        let table = Arc::new(integer_table("s", "t"));
        let tables = BTreeMap::from([(table.name.clone(), table)]);
        let row = change(
            7,
            r#"{"u":{"id":{"t":8,"f":11,"v":424242},"other":{"t":8,"f":65,"v":1}}}"#,
        );
        let error = fold(&tables, &[row]).expect_err("a column is missing");
        assert_eq!(error.what, "column value is missing in the message");
        assert_eq!(
            (error.table.to_string().as_str(), error.commit_ts),
            ("s.t", 7)
        );
        let row = change(8, r#"{"u":{"id":{"t":8,"f":11,"v":1}}}"#);
        assert!(
            fold(&tables, &[row]).is_err(),
            "a column that the table lacks is noticed too"
        );
    }
}
