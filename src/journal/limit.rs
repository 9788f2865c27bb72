//! The limits that were changed since the task file was written.

use super::{Journal, failure, now_ms};
use crate::error::Result;
use crate::throttle::{LimitChange, LimitName, Side};
use sqlx::Row;

impl Journal {
    /// Changes a limit; it outlives the process. A migration that runs takes it up within a second.
    pub async fn set_limit(&self, change: LimitChange) -> Result<()> {
        sqlx::query("INSERT OR REPLACE INTO limit_change VALUES (?, ?, ?, ?)")
            .bind(change.side.as_str())
            .bind(change.name.as_str())
            .bind(
                change
                    .value
                    .map(|value| i64::try_from(value).unwrap_or(i64::MAX)),
            )
            .bind(now_ms())
            .execute(&self.pool)
            .await
            .map_err(failure)?;
        Ok(())
    }

    /// Forgets the change of a limit: what the task file says counts again.
    pub async fn forget_limit(&self, side: Side, name: LimitName) -> Result<()> {
        sqlx::query("DELETE FROM limit_change WHERE side = ? AND name = ?")
            .bind(side.as_str())
            .bind(name.as_str())
            .execute(&self.pool)
            .await
            .map_err(failure)?;
        Ok(())
    }

    /// Returns all changes.
    pub async fn limit_changes(&self) -> Result<Vec<LimitChange>> {
        let rows = sqlx::query("SELECT side, name, value FROM limit_change ORDER BY side, name")
            .fetch_all(&self.pool)
            .await
            .map_err(failure)?;
        let change = |row: &sqlx::sqlite::SqliteRow| {
            Some(LimitChange {
                side: Side::parse(row.get("side"))?,
                name: LimitName::parse(row.get("name"))?,
                value: row.get::<Option<i64>, _>("value").map(i64::cast_unsigned),
            })
        };
        Ok(rows.iter().filter_map(change).collect())
    }
}
