//! The verdicts on definitions, and how the target prints expressions.

use super::{Journal, failure, from_json, json, now_ms, ts_from_db, ts_to_db};
use crate::error::Result;
use crate::feed::CommitTs;
use crate::schema::{SchemaVerdict, Spellings, TableName};
use sqlx::Row;

/// What is known of a table's definition.
#[derive(Clone, Debug)]
pub struct DefinitionRow {
    /// The table.
    pub name: TableName,
    /// The verdict of the last comparison.
    pub verdict: SchemaVerdict,
    /// The timestamp as of which the source's definition was read.
    pub w: CommitTs,
}

impl Journal {
    /// Keeps the verdict on a table's definition, unless a later one is known.
    pub async fn set_definition(
        &self,
        name: &TableName,
        verdict: &SchemaVerdict,
        w: CommitTs,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO definition (table_schema, table_name, verdict, w, at_ms)
             VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (table_schema, table_name) DO UPDATE SET
               verdict = excluded.verdict, w = excluded.w, at_ms = excluded.at_ms
             WHERE excluded.w >= w",
        )
        .bind(&name.schema)
        .bind(&name.table)
        .bind(json(verdict))
        .bind(ts_to_db(w))
        .bind(now_ms())
        .execute(&self.pool)
        .await
        .map_err(failure)?;
        Ok(())
    }

    /// Returns the verdicts on definitions, in the order of the tables' names.
    pub async fn definitions(&self) -> Result<Vec<DefinitionRow>> {
        let rows = sqlx::query(
            "SELECT table_schema, table_name, verdict, w FROM definition
             ORDER BY table_schema, table_name",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failure)?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(DefinitionRow {
                name: TableName::new(
                    row.get::<String, _>("table_schema"),
                    row.get::<String, _>("table_name"),
                ),
                verdict: from_json(row.get("verdict"))?,
                w: ts_from_db(row.get("w")),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Notes that rowproof is about to make something on the target whose expressions the target may
    /// print otherwise.
    pub async fn add_unspelled(&self, name: &TableName) -> Result<()> {
        sqlx::query("INSERT OR IGNORE INTO unspelled (table_schema, table_name) VALUES (?, ?)")
            .bind(&name.schema)
            .bind(&name.table)
            .execute(&self.pool)
            .await
            .map_err(failure)?;
        Ok(())
    }

    /// Returns what rowproof has made and not yet read back, under its names on the target.
    pub async fn unspelled(&self) -> Result<Vec<TableName>> {
        let rows = sqlx::query("SELECT table_schema, table_name FROM unspelled")
            .fetch_all(&self.pool)
            .await
            .map_err(failure)?;
        let name = |row: &sqlx::sqlite::SqliteRow| {
            TableName::new(row.get::<String, _>(0), row.get::<String, _>(1))
        };
        Ok(rows.iter().map(name).collect())
    }

    /// Notes that everything was read back.
    pub async fn clear_unspelled(&self) -> Result<()> {
        let done = sqlx::query("DELETE FROM unspelled").execute(&self.pool);
        done.await.map_err(failure)?;
        Ok(())
    }

    /// Keeps how the target prints expressions that rowproof gave it.
    pub async fn add_spellings(&self, spellings: &Spellings) -> Result<()> {
        for (source, target) in spellings.iter() {
            sqlx::query("INSERT OR IGNORE INTO spelling (source, target) VALUES (?, ?)")
                .bind(source)
                .bind(target)
                .execute(&self.pool)
                .await
                .map_err(failure)?;
        }
        Ok(())
    }

    /// Returns how the target prints the expressions that rowproof gave it.
    pub async fn spellings(&self) -> Result<Spellings> {
        let rows = sqlx::query("SELECT source, target FROM spelling")
            .fetch_all(&self.pool)
            .await
            .map_err(failure)?;
        let mut spellings = Spellings::default();
        for row in &rows {
            let (source, target): (String, String) = (row.get("source"), row.get("target"));
            spellings.add(source, target);
        }
        Ok(spellings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::empty_journal;
    use crate::schema::SchemaWord;

    #[tokio::test]
    async fn the_latest_verdict_on_a_definition_stays() {
        let test = empty_journal().await;
        let name = TableName::new("s", "t");
        let missing = SchemaVerdict::missing("CREATE TABLE t".to_owned());
        let equal = SchemaVerdict::of(Vec::new());
        for (verdict, w) in [(&missing, 20), (&equal, 10)] {
            let kept = test.journal.set_definition(&name, verdict, w).await;
            kept.expect("kept");
        }
        let rows = test.journal.definitions().await.expect("verdicts");
        assert_eq!((rows.len(), rows[0].w), (1, 20));
        assert_eq!(rows[0].verdict.verdict, SchemaWord::Different);
    }

    #[tokio::test]
    async fn spellings_are_kept() {
        let test = empty_journal().await;
        let mut spellings = Spellings::default();
        spellings.add("if(a, 1, 2)", "(case when a then 1 else 2 end)");
        for _ in 0..2 {
            test.journal.add_spellings(&spellings).await.expect("kept");
        }
        assert_eq!(test.journal.spellings().await.expect("read"), spellings);
        let name = TableName::new("s", "t");
        for _ in 0..2 {
            test.journal.add_unspelled(&name).await.expect("noted");
        }
        assert_eq!(test.journal.unspelled().await.expect("read"), [name]);
        test.journal.clear_unspelled().await.expect("cleared");
        assert_eq!(test.journal.unspelled().await.expect("read"), []);
    }
}
