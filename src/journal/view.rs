//! The differences as they stood at one moment, and how many there are of each kind.

use super::difference::difference_of;
use super::{DifferenceRow, Journal, failure, ts_from_db};
use crate::error::Result;
use crate::fence::Fence;
use crate::schema::TableName;
use sqlx::{Row, Sqlite, Transaction};
use std::collections::HashMap;

/// How many rows of a table differ now, by kind; repaired ones, which are unproven, apart.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KindCounts {
    /// Rows that only the source has.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows of one key whose columns differ.
    pub changed: u64,
    /// Rows that were repaired and not read since.
    pub repaired: u64,
}

/// A view of the differences that were not repaired yet, fixed when it was opened.
///
/// A repair script passes over the differences several times, and a row that it deletes in one pass
/// must still be there for the pass that inserts it. An open view holds one connection of the
/// journal: drop it soon.
#[derive(Debug)]
pub struct DifferenceView {
    transaction: Transaction<'static, Sqlite>,
}

impl Journal {
    /// Returns how many rows differ now in each table that has any.
    pub async fn difference_kinds(&self) -> Result<HashMap<TableName, KindCounts>> {
        let rows = sqlx::query(
            "SELECT table_schema, table_name, kind, repaired, count(*) AS rows FROM difference
             GROUP BY table_schema, table_name, repaired, kind",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failure)?;
        let mut kinds: HashMap<TableName, KindCounts> = HashMap::new();
        for row in &rows {
            let counts = kinds.entry(name_of(row)).or_default();
            let count = ts_from_db(row.get("rows"));
            match (row.get::<i64, _>("repaired"), row.get::<&str, _>("kind")) {
                (0, "missing") => counts.missing += count,
                (0, "extra") => counts.extra += count,
                (0, _) => counts.changed += count,
                _ => counts.repaired += count,
            }
        }
        Ok(kinds)
    }

    /// Opens a view of the differences as they stand now.
    pub async fn difference_view(&self) -> Result<DifferenceView> {
        Ok(DifferenceView {
            transaction: self.pool.begin().await.map_err(failure)?,
        })
    }
}

impl DifferenceView {
    /// Returns the tables that have differences, in order of their names.
    pub async fn tables(&mut self) -> Result<Vec<TableName>> {
        let rows = sqlx::query(
            "SELECT DISTINCT table_schema, table_name FROM difference WHERE repaired = 0
             ORDER BY table_schema, table_name",
        )
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failure)?;
        Ok(rows.iter().map(name_of).collect())
    }

    /// Returns how many rows of a table differ, and the newest fence at which one was read.
    pub async fn summary(&mut self, table: &TableName) -> Result<(u64, Option<Fence>)> {
        let row = sqlx::query(
            "SELECT count(*) AS rows, max(w) AS w, max(s) AS s FROM difference
             WHERE table_schema = ? AND table_name = ? AND repaired = 0",
        )
        .bind(&table.schema)
        .bind(&table.table)
        .fetch_one(&mut *self.transaction)
        .await
        .map_err(failure)?;
        let fence = match (
            row.get::<Option<i64>, _>("w"),
            row.get::<Option<i64>, _>("s"),
        ) {
            (Some(w), Some(s)) => Some(Fence {
                w: ts_from_db(w),
                s: ts_from_db(s),
            }),
            _ => None,
        };
        Ok((ts_from_db(row.get("rows")), fence))
    }

    /// Returns differences of a table in the order of their numbers, after number `after`.
    pub async fn page(
        &mut self,
        table: &TableName,
        after: i64,
        limit: i64,
    ) -> Result<Vec<DifferenceRow>> {
        let rows = sqlx::query(
            "SELECT * FROM difference
             WHERE table_schema = ? AND table_name = ? AND repaired = 0 AND id > ?
             ORDER BY id LIMIT ?",
        )
        .bind(&table.schema)
        .bind(&table.table)
        .bind(after)
        .bind(limit)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(failure)?;
        rows.iter().map(difference_of).collect()
    }
}

fn name_of(row: &sqlx::sqlite::SqliteRow) -> TableName {
    TableName::new(
        row.get::<String, _>("table_schema"),
        row.get::<String, _>("table_name"),
    )
}
