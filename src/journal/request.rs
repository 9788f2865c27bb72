//! What people ask of a running migration, or of the next one.

use super::{Journal, failure, now_ms};
use crate::error::Result;
use crate::proof::{Reason, Verdict};
use crate::schema::TableName;
use sqlx::Row;

impl Journal {
    /// Asks for fresh bases of some tables, or of all that are stopped or lack changes, and returns
    /// which.
    ///
    /// The request outlives the process: the migration that runs takes it up, or the next one.
    pub async fn request_bases(&self, names: &[TableName]) -> Result<Vec<TableName>> {
        let mut wanted = names.to_vec();
        if wanted.is_empty() {
            let is_stopped = |verdict: &Verdict| {
                let stopped = [Reason::Held, Reason::Ddl, Reason::Lost];
                matches!(verdict, Verdict::Unproven { reason, .. } if stopped.contains(reason))
            };
            let tables = self.tables().await?.into_iter();
            wanted.extend(
                tables
                    .filter(|table| is_stopped(&table.verdict))
                    .map(|table| table.name),
            );
        }
        for name in &wanted {
            sqlx::query("INSERT OR IGNORE INTO base_request VALUES (?, ?, ?)")
                .bind(&name.schema)
                .bind(&name.table)
                .bind(now_ms())
                .execute(&self.pool)
                .await
                .map_err(failure)?;
        }
        Ok(wanted)
    }

    /// Returns the tables for which a fresh base is asked for.
    pub async fn base_requests(&self) -> Result<Vec<TableName>> {
        let rows = sqlx::query("SELECT * FROM base_request ORDER BY table_schema, table_name")
            .fetch_all(&self.pool)
            .await
            .map_err(failure)?;
        let name = |row: &sqlx::sqlite::SqliteRow| {
            let cell = |name: &str| row.get::<String, _>(name);
            TableName::new(cell("table_schema"), cell("table_name"))
        };
        Ok(rows.iter().map(name).collect())
    }

    /// Forgets that a fresh base is asked for: it was begun, or cannot be.
    pub async fn end_request(&self, name: &TableName) -> Result<()> {
        self.forget(name, &["base_request"]).await
    }

    /// Forgets what was found of the chunks and rows of an older base.
    pub async fn forget_base(&self, name: &TableName) -> Result<()> {
        self.forget(name, &["load_proof", "difference", "ledger"])
            .await
    }

    async fn forget(&self, name: &TableName, tables: &[&str]) -> Result<()> {
        for table in tables {
            let sql = format!("DELETE FROM {table} WHERE table_schema = ? AND table_name = ?");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .bind(&name.schema)
                .bind(&name.table)
                .execute(&self.pool)
                .await
                .map_err(failure)?;
        }
        Ok(())
    }
}
