//! What is noted of the changefeed, if TiCDC can be asked about it.

use super::ledger::end;
use super::{Journal, failure, from_json, json, ts_from_db, ts_to_db};
use crate::error::Result;
use crate::feed::{ChangefeedIdentity, CommitTs};
use crate::proof::Reason;
use crate::schema::TableName;
use sqlx::Row;
use std::collections::BTreeSet;

/// The changefeed that was last met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChangefeedNote {
    /// Which it was.
    pub identity: ChangefeedIdentity,
    /// It, and those before it, are known to have sent all that committed up to this.
    pub sent_to: CommitTs,
}

impl Journal {
    /// Returns the changefeed that was last met.
    pub async fn changefeed(&self) -> Result<Option<ChangefeedNote>> {
        let row = sqlx::query("SELECT identity, sent_to FROM changefeed WHERE id = 1")
            .fetch_optional(&self.pool)
            .await
            .map_err(failure)?;
        let note = |row: sqlx::sqlite::SqliteRow| {
            Ok(ChangefeedNote {
                identity: from_json(row.get("identity"))?,
                sent_to: ts_from_db(row.get("sent_to")),
            })
        };
        row.map(note).transpose()
    }

    /// Notes the changefeed, or that none was met yet.
    pub async fn set_changefeed(&self, note: Option<&ChangefeedNote>) -> Result<()> {
        let query = match note {
            Some(note) => sqlx::query("INSERT OR REPLACE INTO changefeed VALUES (1, ?, ?)")
                .bind(json(&note.identity))
                .bind(ts_to_db(note.sent_to)),
            None => sqlx::query("DELETE FROM changefeed"),
        };
        query.execute(&self.pool).await.map_err(failure)?;
        Ok(())
    }

    /// Returns the tables that were read whole on both sides at `w` or later, and compared.
    pub async fn read_since(&self, w: CommitTs) -> Result<BTreeSet<TableName>> {
        let sql = "SELECT table_schema, table_name FROM table_proof
                   WHERE w >= ? AND json_extract(verdict, '$.verdict') <> 'unproven'";
        let rows = sqlx::query(sql)
            .bind(ts_to_db(w))
            .fetch_all(&self.pool)
            .await
            .map_err(failure)?;
        let cell = |row: &sqlx::sqlite::SqliteRow, name: &str| row.get::<String, _>(name);
        let name = |row| TableName::new(cell(row, "table_schema"), cell(row, "table_name"));
        Ok(rows.iter().map(name).collect())
    }

    /// Withdraws what is said of tables of which the feed may have lost changes up to `w`; a later read
    /// of both sides stays.
    pub async fn withdraw_lost(
        &self,
        names: &[TableName],
        w: CommitTs,
        detail: &str,
    ) -> Result<()> {
        for name in names {
            self.withdraw(name, w, Reason::Lost, detail).await?;
        }
        let mut writing = self.writing().await?;
        for name in names {
            end(&mut writing, Some(name), detail).await?;
        }
        writing.commit().await.map_err(failure)
    }

    /// Withdraws what is said of the tables without a key at `w`, because the changefeed does not send
    /// them; until it is seen to, none is carried on from a later read either.
    pub async fn withdraw_keyless(&self, w: CommitTs, detail: &str) -> Result<()> {
        sqlx::query("DELETE FROM meta WHERE name = 'keyless'")
            .execute(&self.pool)
            .await
            .map_err(failure)?;
        for row in self.tables().await? {
            let table = self.table_model(&row.name).await?;
            if table.is_some_and(|table| table.key_len == 0) {
                self.withdraw(&row.name, w, Reason::NotFollowed, detail)
                    .await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::Fence;
    use crate::journal::FoundBy;
    use crate::proof::{Counts, How, Verdict};
    use crate::schema::Table;
    use crate::schema::testing::integer_table;

    const NOTE: ChangefeedNote = ChangefeedNote {
        identity: ChangefeedIdentity {
            created_ns: 1_795_473_424_123_456_789,
            start_ts: u64::MAX,
        },
        sent_to: 470_672_585_483_091_968,
    };

    async fn read(journal: &Journal, table: &Table, w: CommitTs) {
        let fence = Fence { w, s: w };
        let how = How::Read;
        let verdict = Verdict::Equal { fence, how };
        let (by, counts) = (FoundBy::Check, Counts::default());
        let kept = journal.set_table(table, by, &verdict, counts, "", w).await;
        kept.expect("kept");
    }

    async fn words(journal: &Journal) -> Vec<&'static str> {
        let tables = journal.tables().await.expect("tables");
        tables.iter().map(|row| row.verdict.word()).collect()
    }

    #[tokio::test]
    async fn inv_3_what_is_noted_of_a_changefeed_outlives_the_process() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).await.expect("a journal");
        assert_eq!(journal.changefeed().await.expect("read"), None);
        journal.set_changefeed(Some(&NOTE)).await.expect("noted");
        let again = Journal::open(dir.path()).await.expect("a journal");
        assert_eq!(again.changefeed().await.expect("read"), Some(NOTE));
        again.set_changefeed(None).await.expect("forgotten");
        assert_eq!(journal.changefeed().await.expect("read"), None);
    }

    #[tokio::test]
    async fn inv_2_what_may_have_lost_changes_is_unproven_until_a_later_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).await.expect("a journal");
        let (early, late) = (integer_table("s", "a"), integer_table("s", "b"));
        read(&journal, &early, 5).await;
        read(&journal, &late, 7).await;
        let since = journal.read_since(6).await.expect("read");
        assert_eq!(since, BTreeSet::from([late.name.clone()]));
        let both = [early.name.clone(), late.name.clone()];
        let withdrawn = journal.withdraw_lost(&both, 6, "a gap").await;
        withdrawn.expect("withdrawn");
        assert_eq!(words(&journal).await, ["unproven", "equal"]);
        // Such tables are what a fresh base is for.
        let asked = journal.request_bases(&[]).await.expect("asked");
        assert_eq!(asked, std::slice::from_ref(&early.name));
        assert!(
            !journal
                .read_since(6)
                .await
                .expect("read")
                .contains(&early.name)
        );
        read(&journal, &early, 8).await;
        assert_eq!(words(&journal).await, ["equal", "equal"]);
    }

    #[tokio::test]
    async fn inv_2_tables_without_a_key_that_are_not_sent_any_more_are_not_carried() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).await.expect("a journal");
        let keyed = integer_table("s", "a");
        let mut keyless = integer_table("s", "b");
        keyless.key_len = 0;
        for table in [&keyed, &keyless] {
            read(&journal, table, 5).await;
        }
        journal.note_keyless(5).await.expect("noted");
        assert_eq!(words(&journal).await, ["equal", "equal"]);
        journal.withdraw_keyless(6, "off").await.expect("withdrawn");
        assert_eq!(words(&journal).await, ["equal", "unproven"]);
    }
}
