//! The proofs of tables and of the chunks of the load.

use super::ledger::add_to_load;
use super::{FoundBy, Journal, failure, from_json, json, now_ms, ts_from_db, ts_to_db};
use crate::chunk::Chunk;
use crate::error::Result;
use crate::feed::CommitTs;
use crate::fence::Fence;
use crate::proof::{Counts, How, Ledger, Reason, Verdict};
use crate::schema::{Table, TableName};
use serde::Serialize;
use sqlx::Row;

/// What is known of a table.
#[derive(Clone, Debug, Serialize)]
pub struct TableRow {
    /// The table.
    #[serde(flatten)]
    pub name: TableName,
    /// The verdict now: the last whole read, carried on by the batches proven since.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the last whole read counted.
    pub counts: Counts,
    /// The digest of the source in the last whole read.
    pub digest: String,
    /// What gave the last whole read: `load` or `check`.
    pub found_by: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Rows that are known to differ.
    pub differences: u64,
    /// Whether any of them was repaired and waits to be read again.
    pub repaired: u64,
    /// The policies by which its columns were compared less strictly in the last whole read; they
    /// are kept with the definition.
    pub policies: Vec<String>,
    /// What is known of its ledger; none if no read has begun one.
    pub ledger: Option<LedgerNote>,
}

/// What is known of a table's ledger.
#[derive(Clone, Debug, Serialize)]
pub struct LedgerNote {
    /// The timestamp of the read with which it began.
    pub since: CommitTs,
    /// Why it has ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

impl Journal {
    /// Keeps the verdict of a whole read of a table at timestamp `w`, and the definition by which it
    /// was read; unless something later is known of the table.
    pub async fn set_table(
        &self,
        table: &Table,
        found_by: FoundBy,
        verdict: &Verdict,
        counts: Counts,
        digest: &str,
        w: CommitTs,
    ) -> Result<()> {
        sqlx::query(
            "INSERT INTO table_proof
             (table_schema, table_name, verdict, counts, digest, found_by, at_ms, model, w)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (table_schema, table_name) DO UPDATE SET
               verdict = excluded.verdict, counts = excluded.counts, digest = excluded.digest,
               found_by = excluded.found_by, at_ms = excluded.at_ms, model = excluded.model,
               w = excluded.w
             WHERE excluded.w >= w AND excluded.verdict <> verdict",
        )
        .bind(&table.name.schema)
        .bind(&table.name.table)
        .bind(json(verdict))
        .bind(json(&counts))
        .bind(digest)
        .bind(found_by.as_str())
        .bind(now_ms())
        .bind(json(table))
        .bind(ts_to_db(w))
        .execute(&self.pool)
        .await
        .map_err(failure)?;
        Ok(())
    }

    /// Withdraws a table's verdict: at timestamp `w` something happened that was not proven. A
    /// verdict that was earned later stays.
    pub async fn withdraw(
        &self,
        name: &TableName,
        w: CommitTs,
        reason: Reason,
        detail: &str,
    ) -> Result<()> {
        let model = self.table_model(name).await?;
        let table = model.unwrap_or_else(|| Table::unknown(name.clone()));
        let verdict = Verdict::unproven(reason, detail);
        self.set_table(&table, FoundBy::Batch, &verdict, Counts::default(), "", w)
            .await
    }

    /// Forgets everything that an earlier migration with this state directory left: its chunks and
    /// differences are not those of the new one.
    pub async fn begin_anew(&self) -> Result<()> {
        let mut transaction = self.pool.begin().await.map_err(failure)?;
        for table in [
            "table_proof",
            "definition",
            "difference",
            "load_proof",
            "ledger",
            "proven",
            "batch",
            "changefeed",
        ] {
            let sql = format!("DELETE FROM {table}");
            sqlx::query(sqlx::AssertSqlSafe(sql))
                .execute(&mut *transaction)
                .await
                .map_err(failure)?;
        }
        sqlx::query("DELETE FROM meta WHERE name = 'keyless'")
            .execute(&mut *transaction)
            .await
            .map_err(failure)?;
        transaction.commit().await.map_err(failure)
    }

    /// Notes that the feed carries tables without a key: a change of one came, proven at `w`.
    pub async fn note_keyless(&self, w: CommitTs) -> Result<()> {
        sqlx::query("INSERT OR IGNORE INTO meta (name, value) VALUES ('keyless', ?)")
            .bind(w.to_string())
            .execute(&self.pool)
            .await
            .map_err(failure)?;
        Ok(())
    }

    /// Forgets tables that are no longer in scope.
    pub async fn forget_tables_but(&self, names: &[TableName]) -> Result<()> {
        for row in self.tables().await? {
            if !names.contains(&row.name) {
                for table in [
                    "table_proof",
                    "definition",
                    "difference",
                    "load_proof",
                    "ledger",
                ] {
                    let sql =
                        format!("DELETE FROM {table} WHERE table_schema = ? AND table_name = ?");
                    sqlx::query(sqlx::AssertSqlSafe(sql))
                        .bind(&row.name.schema)
                        .bind(&row.name.table)
                        .execute(&self.pool)
                        .await
                        .map_err(failure)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the definition by which a table was last read.
    pub async fn table_model(&self, name: &TableName) -> Result<Option<Table>> {
        let model: Option<String> = sqlx::query_scalar(
            "SELECT model FROM table_proof WHERE table_schema = ? AND table_name = ?",
        )
        .bind(&name.schema)
        .bind(&name.table)
        .fetch_optional(&self.pool)
        .await
        .map_err(failure)?;
        model.map(|model| from_json(&model)).transpose()
    }

    /// Returns what is known of every table.
    pub async fn tables(&self) -> Result<Vec<TableRow>> {
        let proven = self.status().await?.proven;
        let rows = sqlx::query(
            "SELECT t.*,
               (SELECT count(*) FROM difference d WHERE d.table_schema = t.table_schema
                  AND d.table_name = t.table_name) AS differences,
               (SELECT count(*) FROM difference d WHERE d.table_schema = t.table_schema
                  AND d.table_name = t.table_name AND d.repaired = 1) AS repaired,
               (SELECT max(w) FROM difference d WHERE d.table_schema = t.table_schema
                  AND d.table_name = t.table_name) AS different_w,
               (SELECT max(s) FROM difference d WHERE d.table_schema = t.table_schema
                  AND d.table_name = t.table_name) AS different_s,
               json_extract(t.model, '$.key_len') AS key_len,
               EXISTS (SELECT 1 FROM meta WHERE name = 'keyless') AS keyless,
               l.since AS ledger_since, l.reason AS ledger_ended
             FROM table_proof t LEFT JOIN ledger l ON l.table_schema = t.table_schema
               AND l.table_name = t.table_name AND l.stage = 'kept'
             ORDER BY t.table_schema, t.table_name",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failure)?;
        rows.iter().map(|row| table_of(row, proven)).collect()
    }

    /// Notes that a chunk of the load with this base was read back equal, and adds its rows to the
    /// ledger if the table can have one. A chunk counts once, whatever crashes when (INV-4).
    pub async fn add_load_proof(
        &self,
        table: &TableName,
        base: CommitTs,
        (stripe, chunk): (u32, &Chunk),
        rows: u64,
        ledger: Option<&Ledger>,
    ) -> Result<()> {
        let mut writing = self.writing().await?;
        let added = sqlx::query("INSERT OR IGNORE INTO load_proof VALUES (?, ?, ?, ?, ?)")
            .bind(&table.schema)
            .bind(&table.table)
            .bind(stripe)
            .bind(chunk.seq)
            .bind(ts_to_db(rows))
            .execute(&mut *writing)
            .await
            .map_err(failure)?;
        if let Some(ledger) = ledger
            && added.rows_affected() == 1
        {
            add_to_load(&mut writing, table, base, ledger).await?;
        }
        writing.commit().await.map_err(failure)
    }

    /// Tells whether a chunk of the load was read back equal, in this run or an earlier one.
    pub async fn has_load_proof(&self, table: &TableName, stripe: u32, seq: u32) -> Result<bool> {
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM load_proof
             WHERE table_schema = ? AND table_name = ? AND stripe = ? AND seq = ?",
        )
        .bind(&table.schema)
        .bind(&table.table)
        .bind(stripe)
        .bind(seq)
        .fetch_optional(&self.pool)
        .await
        .map_err(failure)?;
        Ok(found.is_some())
    }
}

fn table_of(row: &sqlx::sqlite::SqliteRow, proven: Option<Fence>) -> Result<TableRow> {
    let read: Verdict = from_json(row.get("verdict"))?;
    let differences = ts_from_db(row.get("differences"));
    let repaired = ts_from_db(row.get("repaired"));
    let seen = (
        row.get::<Option<i64>, _>("different_w"),
        row.get::<Option<i64>, _>("different_s"),
    );
    let seen = match seen {
        (Some(w), Some(s)) => Some(Fence {
            w: ts_from_db(w),
            s: ts_from_db(s),
        }),
        _ => None,
    };
    let verdict = verdict_now(read, proven, differences, repaired, seen);
    let ledger = row.get::<Option<i64>, _>("ledger_since");
    let ledger = ledger.map(|since| LedgerNote {
        since: ts_from_db(since),
        ended: row.get("ledger_ended"),
    });
    Ok(TableRow {
        name: TableName::new(
            row.get::<String, _>("table_schema"),
            row.get::<String, _>("table_name"),
        ),
        verdict: if row.get::<i64, _>("key_len") == 0 && !row.get::<bool, _>("keyless") {
            not_carried(verdict)
        } else {
            verdict
        },
        counts: from_json(row.get("counts"))?,
        digest: row.get("digest"),
        found_by: row.get("found_by"),
        at_ms: row.get("at_ms"),
        differences,
        repaired,
        policies: from_json::<Table>(row.get("model"))?.policies(),
        ledger,
    })
}

/// Returns what may be said of a table now, from its last whole read and what came since.
fn verdict_now(
    read: Verdict,
    proven: Option<Fence>,
    differences: u64,
    repaired: u64,
    seen: Option<Fence>,
) -> Verdict {
    match (read, seen) {
        // Rows that differed before a table was held, or lost changes, say little of it now; that it is
        // held does.
        (
            Verdict::Unproven {
                reason: reason @ (Reason::Held | Reason::Lost),
                detail,
            },
            _,
        ) => Verdict::unproven(reason, detail),
        (Verdict::Unproven { reason, detail }, None) => Verdict::Unproven { reason, detail },
        (_, Some(fence)) if repaired < differences => Verdict::Different {
            fence,
            rows: differences - repaired,
        },
        // INV-5: what was repaired is unproven until a later fence reads it.
        (_, Some(_)) => Verdict::unproven(Reason::NotRead, "repaired, and not read again since"),
        (Verdict::Equal { fence, how }, None) => match proven {
            Some(proven) if proven.w > fence.w => Verdict::Equal {
                fence: proven,
                how: How::Carried,
            },
            _ => Verdict::Equal { fence, how },
        },
        (Verdict::Different { .. }, None) => Verdict::unproven(
            Reason::NotRead,
            "every row that differed has been read equal since; check reads the whole table",
        ),
    }
}

/// INV-2: TiCDC sends nothing of tables without a key unless it is told to, and then they would
/// look unchanged for ever. Until the feed has shown a change of any such table, none is carried.
fn not_carried(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Equal {
            how: How::Carried, ..
        } => Verdict::unproven(
            Reason::NotFollowed,
            "it has no key, and no change of such a table has come through the feed: TiCDC sends \
             them with force-replicate = true only; check reads the table",
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Fence = Fence { w: 1, s: 1 };
    const NEW: Fence = Fence { w: 2, s: 2 };

    #[test]
    fn inv_2_a_table_that_the_feed_may_not_carry_is_not_carried_on() {
        let equal = |how| Verdict::Equal { fence: NEW, how };
        assert_eq!(not_carried(equal(How::Read)), equal(How::Read));
        assert_eq!(not_carried(equal(How::Carried)).word(), "unproven");
    }

    #[test]
    fn inv_2_a_read_is_carried_on_by_proven_batches_only() {
        let read = Verdict::Equal {
            fence: OLD,
            how: How::Read,
        };
        assert_eq!(verdict_now(read.clone(), None, 0, 0, None), read);
        let carried = Verdict::Equal {
            fence: NEW,
            how: How::Carried,
        };
        assert_eq!(verdict_now(read, Some(NEW), 0, 0, None), carried);
        let unproven = Verdict::unproven(Reason::Ddl, "stopped");
        assert_eq!(
            verdict_now(unproven.clone(), Some(NEW), 0, 0, None),
            unproven
        );
    }

    #[test]
    fn inv_2_a_table_with_a_fresh_base_is_carried_from_its_own_fence_on() {
        let equal = |fence| Verdict::Equal {
            fence,
            how: How::Carried,
        };
        // An older proven fence, as a status that is a moment old may show, says nothing of it.
        assert_eq!(verdict_now(equal(NEW), Some(OLD), 0, 0, None), equal(NEW));
        let newer = Fence { w: 3, s: 3 };
        assert_eq!(
            verdict_now(equal(NEW), Some(newer), 0, 0, None),
            equal(newer)
        );
    }

    #[test]
    fn inv_2_a_held_table_says_so_whatever_was_known_of_it_before() {
        let held = Verdict::unproven(Reason::Held, "error 1062");
        assert_eq!(verdict_now(held.clone(), Some(NEW), 2, 0, Some(OLD)), held);
        assert_eq!(verdict_now(held.clone(), Some(NEW), 0, 0, None), held);
    }

    #[test]
    fn inv_5_a_repaired_row_is_unproven_until_it_is_read() {
        let different = Verdict::Different {
            fence: OLD,
            rows: 2,
        };
        let word =
            |repaired| verdict_now(different.clone(), Some(NEW), 2, repaired, Some(OLD)).word();
        assert_eq!(
            (word(0), word(1), word(2)),
            ("different", "different", "unproven")
        );
    }

    #[tokio::test]
    async fn inv_2_an_older_read_does_not_undo_a_later_withdrawal() {
        let dir = std::env::temp_dir().join(format!("rowproof-withdraw-{}", std::process::id()));
        let journal = Journal::open(&dir).await.expect("a journal");
        let table = crate::schema::testing::integer_table("s", "t");
        let equal = Verdict::Equal {
            fence: OLD,
            how: How::Read,
        };
        let by = FoundBy::Check;
        journal
            .withdraw(&table.name, 5, Reason::Ddl, "stopped")
            .await
            .expect("withdrawn");
        journal
            .set_table(&table, by, &equal, Counts::default(), "", 4)
            .await
            .expect("kept");
        assert_eq!(
            journal.tables().await.expect("tables")[0].verdict.word(),
            "unproven"
        );
        journal
            .set_table(&table, by, &equal, Counts::default(), "", 6)
            .await
            .expect("kept");
        journal
            .withdraw(&table.name, 5, Reason::Ddl, "stopped")
            .await
            .expect("withdrawn");
        assert_eq!(
            journal.tables().await.expect("tables")[0].verdict.word(),
            "equal"
        );
        std::fs::remove_dir_all(dir).expect("the directory");
    }
}
