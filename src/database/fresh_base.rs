//! The fresh bases of tables, as rowproof's record on the target keeps them.

use super::record::{damaged, model_literal, offsets_literal};
use super::{Record, Session};
use crate::apply::text_literal;
use crate::error::Result;
use crate::feed::{CommitTs, Offsets};
use crate::fence::BaseState;
use crate::schema::{Table, TableName};

/// A table that gets a fresh base while the others are followed.
#[derive(Clone, Debug)]
pub struct FreshBase {
    /// The definition that the source has at the base.
    pub table: Table,
    /// The timestamp of the base.
    pub base: CommitTs,
    /// For each partition the offset behind the last message before the base.
    pub offsets: Offsets,
    /// How far it is.
    pub state: BaseState,
    /// What the load has proven, as JSON; none before it is done.
    pub proof: Option<String>,
}

impl Record {
    /// Reads the fresh bases that no proven fence speaks of yet.
    pub async fn fresh_bases(&self, session: &mut Session) -> Result<Vec<FreshBase>> {
        let sql = format!(
            "SELECT model, base, offsets, state, proof FROM rowproof.fresh_base \
             WHERE task = '{}' ORDER BY table_schema, table_name",
            self.task
        );
        let rows = session.texts(sql).await?;
        let bases = rows.into_iter();
        bases
            .map(|row| fresh_base_of(&row).ok_or_else(|| damaged("fresh_base")))
            .collect()
    }

    /// Notes a fresh base of a table that is stopped, before anything of it is touched.
    pub async fn begin_base(&self, session: &mut Session, base: &FreshBase) -> Result<()> {
        let name = &base.table.name;
        let sql = format!(
            "REPLACE INTO rowproof.fresh_base \
             (task, table_schema, table_name, base, offsets, state, model) \
             VALUES ('{}', {}, {}, {}, {}, '{}', {})",
            self.task,
            text_literal(name.schema.as_bytes()),
            text_literal(name.table.as_bytes()),
            base.base,
            offsets_literal(&base.offsets),
            base.state.as_str(),
            model_literal(&base.table)
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Notes how far a fresh base is, and what its load has proven.
    pub async fn set_base_state(&self, session: &mut Session, base: &FreshBase) -> Result<()> {
        let proof = base.proof.as_ref().map(|proof| proof.as_bytes());
        let sql = format!(
            "UPDATE rowproof.fresh_base SET state = '{}', proof = {} WHERE {}",
            base.state.as_str(),
            proof.map_or_else(|| "NULL".to_owned(), text_literal),
            self.of_table(&base.table.name)
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Follows a table from its fresh base on; in the transaction of the batch that brings it to the
    /// fence (INV-3). What it was stopped for is over.
    pub async fn join_followed(
        &self,
        session: &mut Session,
        table: &Table,
        base: CommitTs,
    ) -> Result<()> {
        let (model, name) = (model_literal(table), &table.name);
        let sql = format!(
            "INSERT INTO rowproof.followed_table (task, table_schema, table_name, base, model) \
             VALUES ('{}', {}, {}, {base}, {model}) ON DUPLICATE KEY UPDATE \
             base = {base}, model = {model}, stopped_at = NULL, reason = NULL",
            self.task,
            text_literal(name.schema.as_bytes()),
            text_literal(name.table.as_bytes())
        );
        session.execute(sql).await?;
        let condition = self.of_table(name);
        for sql in [
            format!("DELETE FROM rowproof.dead_letter WHERE {condition}"),
            format!(
                "UPDATE rowproof.fresh_base SET state = '{}' WHERE {condition}",
                BaseState::Joined.as_str()
            ),
        ] {
            session.execute(sql).await?;
        }
        Ok(())
    }

    /// Forgets a fresh base that came to nothing.
    pub async fn end_base(&self, session: &mut Session, name: &TableName) -> Result<()> {
        let condition = self.of_table(name);
        let sql = format!("DELETE FROM rowproof.fresh_base WHERE {condition}");
        session.execute(sql).await.map(|_| ())
    }

    /// Forgets a fresh base that has joined, and no newer one of the same table.
    pub async fn conclude_base(&self, session: &mut Session, base: &FreshBase) -> Result<()> {
        let sql = format!(
            "DELETE FROM rowproof.fresh_base WHERE {} AND base = {} AND state = '{}'",
            self.of_table(&base.table.name),
            base.base,
            BaseState::Joined.as_str()
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Gives up a fresh base, with the reason; the table stays stopped where it was.
    pub async fn fail_base(
        &self,
        session: &mut Session,
        name: &TableName,
        reason: &str,
    ) -> Result<()> {
        let sql = format!(
            "UPDATE rowproof.followed_table SET reason = {} WHERE {} AND stopped_at IS NOT NULL",
            text_literal(reason.as_bytes()),
            self.of_table(name)
        );
        session.execute(sql).await?;
        self.end_base(session, name).await
    }

    /// Waits for what earlier sessions of the load's workers have not ended yet: each holds its slot.
    /// In a transaction of one of those slots.
    pub async fn pass_workers(&self, session: &mut Session, epoch: u64) -> Result<()> {
        let sql = format!(
            "UPDATE rowproof.slot SET writes = writes + 1 \
             WHERE task = '{}' AND slot > 0 AND epoch = {epoch}",
            self.task
        );
        session.execute(sql).await.map(|_| ())
    }

    /// Forgets the chunks of an older base.
    pub async fn forget_chunks(&self, session: &mut Session, name: &TableName) -> Result<()> {
        let condition = self.of_table(name);
        let sql = format!("DELETE FROM rowproof.load_chunk WHERE {condition}");
        session.execute(sql).await.map(|_| ())
    }

    fn of_table(&self, name: &TableName) -> String {
        format!(
            "task = '{}' AND table_schema = {} AND table_name = {}",
            self.task,
            text_literal(name.schema.as_bytes()),
            text_literal(name.table.as_bytes())
        )
    }
}

fn fresh_base_of(row: &[Option<String>]) -> Option<FreshBase> {
    let [Some(model), Some(base), Some(offsets), Some(state), proof] = row else {
        return None;
    };
    Some(FreshBase {
        table: serde_json::from_str(model).ok()?,
        base: base.parse().ok()?,
        offsets: serde_json::from_str(offsets).ok()?,
        state: BaseState::parse(state)?,
        proof: proof.clone(),
    })
}
