//! The rows that differ, as they were last seen.

use super::{Journal, failure, from_json, json, now_ms, ts_from_db, ts_to_db};
use crate::error::Result;
use crate::fence::Fence;
use crate::proof::{Difference, DifferenceKind, copy_key};
use crate::row::{Cells, RowDigest};
use crate::schema::TableName;
use serde::{Deserialize, Serialize};
use sqlx::Row;

/// What found a difference or gave a verdict.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FoundBy {
    /// A chunk of the load, read back.
    Load,
    /// A batch of the feed.
    Batch,
    /// `rowproof check`.
    Check,
}

impl FoundBy {
    /// Returns the word that stands in the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            FoundBy::Load => "load",
            FoundBy::Batch => "batch",
            FoundBy::Check => "check",
        }
    }
}

/// A difference in the journal.
#[derive(Clone, Debug)]
pub struct DifferenceRow {
    /// The number of the difference, growing with time.
    pub id: i64,
    /// The table.
    pub table: TableName,
    /// The row on both sides.
    pub difference: Difference,
    /// The fence at which both sides were read.
    pub fence: Fence,
    /// What found it: `load`, `batch` or `check`.
    pub found_by: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Whether it was repaired since: it is then unproven until a later fence reads it equal
    /// (INV-5).
    pub repaired: bool,
}

impl Journal {
    /// Keeps differences that were read at a fence; what was known of the same keys is replaced,
    /// unless it is newer.
    pub async fn add_differences(
        &self,
        table: &TableName,
        fence: Fence,
        found_by: FoundBy,
        differences: &[Difference],
    ) -> Result<()> {
        let mut transaction = self.pool.begin().await.map_err(failure)?;
        for difference in differences {
            sqlx::query(
                "INSERT INTO difference (table_schema, table_name, key, kind, source, target,
                                         columns, w, s, found_by, at_ms)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (table_schema, table_name, key) DO UPDATE SET
                   kind = excluded.kind, source = excluded.source, target = excluded.target,
                   columns = excluded.columns, w = excluded.w, s = excluded.s,
                   found_by = excluded.found_by, at_ms = excluded.at_ms, repaired = 0
                 WHERE excluded.w >= difference.w",
            )
            .bind(&table.schema)
            .bind(&table.table)
            .bind(&difference.key)
            .bind(word(difference.kind))
            .bind(&difference.source)
            .bind(&difference.target)
            .bind(json(&difference.columns))
            .bind(ts_to_db(fence.w))
            .bind(ts_to_db(fence.s))
            .bind(found_by.as_str())
            .bind(now_ms())
            .execute(&mut *transaction)
            .await
            .map_err(failure)?;
        }
        transaction.commit().await.map_err(failure)
    }

    /// Forgets what differed in a table, except what was seen at `fence.w` or later: the whole
    /// table has been read at that fence.
    pub async fn close_differences_before(&self, table: &TableName, fence: Fence) -> Result<u64> {
        let result = sqlx::query(
            "DELETE FROM difference WHERE table_schema = ? AND table_name = ? AND w < ?",
        )
        .bind(&table.schema)
        .bind(&table.table)
        .bind(ts_to_db(fence.w))
        .execute(&self.pool)
        .await
        .map_err(failure)?;
        Ok(result.rows_affected())
    }

    /// Forgets what differed before `fence` in rows that were read equal at it.
    pub async fn close_differences(
        &self,
        table: &TableName,
        fence: Fence,
        keys: &[&[u8]],
    ) -> Result<()> {
        if self.difference_count(Some(table)).await? == 0 {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await.map_err(failure)?;
        for key in keys {
            sqlx::query(
                "DELETE FROM difference
                 WHERE table_schema = ? AND table_name = ? AND key = ? AND w < ?",
            )
            .bind(&table.schema)
            .bind(&table.table)
            .bind(*key)
            .bind(ts_to_db(fence.w))
            .execute(&mut *transaction)
            .await
            .map_err(failure)?;
        }
        transaction.commit().await.map_err(failure)
    }

    /// Forgets what differed before `fence` in the copies of these rows of a table without a key,
    /// which were counted at it.
    pub async fn close_copies(
        &self,
        table: &TableName,
        fence: Fence,
        rows: impl Iterator<Item = &RowDigest>,
    ) -> Result<()> {
        if self.difference_count(Some(table)).await? == 0 {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await.map_err(failure)?;
        for row in rows {
            // What comes before the number of the copy (see `copy_key`).
            let key = copy_key(row, 1);
            let key = Cells::prefix(&key, 1);
            sqlx::query(
                "DELETE FROM difference WHERE table_schema = ?1 AND table_name = ?2
                   AND substr(key, 1, length(?3)) = ?3 AND w < ?4",
            )
            .bind(&table.schema)
            .bind(&table.table)
            .bind(key)
            .bind(ts_to_db(fence.w))
            .execute(&mut *transaction)
            .await
            .map_err(failure)?;
        }
        transaction.commit().await.map_err(failure)
    }

    /// INV-5: a repair is not a verification. It marks the difference, which stays until a later
    /// fence reads the row equal.
    pub async fn mark_repaired(&self, id: i64) -> Result<()> {
        sqlx::query("UPDATE difference SET repaired = 1 WHERE id = ?")
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(failure)?;
        Ok(())
    }

    /// Returns how many rows are known to differ, in one table or in all.
    pub async fn difference_count(&self, table: Option<&TableName>) -> Result<u64> {
        let (schema, name) = filter(table);
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM difference
             WHERE (?1 IS NULL OR table_schema = ?1) AND (?2 IS NULL OR table_name = ?2)",
        )
        .bind(schema)
        .bind(name)
        .fetch_one(&self.pool)
        .await
        .map_err(failure)?;
        Ok(ts_from_db(count))
    }

    /// Returns differences in the order of their numbers, after number `after`.
    pub async fn differences(
        &self,
        table: Option<&TableName>,
        after: i64,
        limit: i64,
    ) -> Result<Vec<DifferenceRow>> {
        let (schema, name) = filter(table);
        let rows = sqlx::query(
            "SELECT * FROM difference
             WHERE (?1 IS NULL OR table_schema = ?1) AND (?2 IS NULL OR table_name = ?2)
               AND id > ?3
             ORDER BY id LIMIT ?4",
        )
        .bind(schema)
        .bind(name)
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(failure)?;
        rows.iter().map(difference_of).collect()
    }
}

fn filter(table: Option<&TableName>) -> (Option<&str>, Option<&str>) {
    (
        table.map(|name| name.schema.as_str()),
        table.map(|name| name.table.as_str()),
    )
}

pub(super) fn difference_of(row: &sqlx::sqlite::SqliteRow) -> Result<DifferenceRow> {
    let kind = match row.get::<&str, _>("kind") {
        "missing" => DifferenceKind::Missing,
        "extra" => DifferenceKind::Extra,
        _ => DifferenceKind::Changed,
    };
    Ok(DifferenceRow {
        id: row.get("id"),
        table: TableName::new(
            row.get::<String, _>("table_schema"),
            row.get::<String, _>("table_name"),
        ),
        difference: Difference {
            kind,
            key: row.get("key"),
            source: row.get("source"),
            target: row.get("target"),
            columns: from_json(row.get("columns"))?,
        },
        fence: Fence {
            w: ts_from_db(row.get("w")),
            s: ts_from_db(row.get("s")),
        },
        found_by: row.get("found_by"),
        at_ms: row.get("at_ms"),
        repaired: row.get::<i64, _>("repaired") != 0,
    })
}

/// Returns the word for a kind of difference.
fn word(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::Missing => "missing",
        DifferenceKind::Extra => "extra",
        DifferenceKind::Changed => "changed",
    }
}
