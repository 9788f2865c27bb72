//! Changes of a key that the feed does not tell: the guard against a changefeed that neither sends
//! old values (`output-old-value = false`) nor splits updates of keys (`output-raw-change-event = true`).
//!
//! Such a feed says that a row came under its new key and never that the old one is gone, and its
//! message is that of an insert. TiCDC warns of it and allows it. Where the primary key is clustered
//! TiDB itself deletes and inserts; so does TiCDC by default, where it is not. For the rest, TiDB's
//! hidden row number stays with a row whose key changes: the rows that a batch left are asked for
//! theirs at its end, and these for their keys before the batch. A key that was there before, is not
//! there afterwards, and of which the feed says nothing, is proof that it hides changes.
//!
//! A message with an old image shows that the changefeed sends them, and ends the guard with its batch.
//! What it cannot see is a row whose key changed and that was deleted in one batch; a sweep does.

use super::link::{Link, Retries};
use crate::apply::lookup_condition;
use crate::database::{Session, has_row_ids, source_row_ids};
use crate::engine::{Batch, Follow};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, FoldedRow, LastState};
use crate::row::{Canonical, Rows};
use crate::schema::{Table, TableName};
use std::collections::{BTreeMap, HashMap, HashSet};

/// How many rows one query asks for.
const ROWS_PER_QUERY: usize = 500;

/// The guard, and what it has learnt.
#[derive(Debug, Default)]
pub struct MoveGuard {
    /// Whether the feed was seen to send old values.
    old_values: bool,
    /// Whether the rows of a table have numbers that stay with them.
    numbered: HashMap<TableName, bool>,
}

/// Keys by the number of their row: in canonical form, and packed.
type Keys = HashMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

/// A table's stretch: the timestamps between which its rows were changed.
struct Span<'a> {
    table: &'a Table,
    before: CommitTs,
    after: CommitTs,
}

impl MoveGuard {
    /// Looks at a batch that is about to be written.
    ///
    /// # Errors
    /// If the feed hides the change of a key, or the source fails.
    pub async fn look(
        &mut self,
        follow: &Follow,
        batch: &mut Batch,
        source: &mut Link,
    ) -> Result<()> {
        // A batch that shows old values is still looked at: the changefeed may have been told only in
        // the middle of it to send them.
        if self.old_values {
            return Ok(());
        }
        self.old_values = batch.old_values;
        let suspects = self.suspects(follow, batch, source).await?;
        for (name, old) in suspects {
            let touched = touched(&name, batch)?;
            if old.iter().any(|key| !touched.contains(key)) {
                return Err(hidden(&name));
            }
        }
        Ok(())
    }

    /// Returns the keys, in canonical form, that the source had before the batch and has no more, and
    /// that belonged to rows which the batch left under other keys.
    async fn suspects(
        &mut self,
        follow: &Follow,
        batch: &mut Batch,
        source: &mut Link,
    ) -> Result<BTreeMap<TableName, Vec<Vec<u8>>>> {
        let tables = follow.tables().iter();
        let since: BTreeMap<&TableName, CommitTs> = tables
            .map(|(name, followed)| (name, batch.since(name, followed.base)))
            .collect();
        let to = batch.to;
        let mut suspects = BTreeMap::new();
        for part in &mut batch.parts {
            for folded in part.tables()?.iter().filter(|of| of.table.key_len > 0) {
                let table = &*folded.table;
                let followed = &follow.tables()[&table.name];
                // A table that has ended is unproven, and a DDL may have moved its rows.
                if followed.stopped.is_some() {
                    continue;
                }
                let span = Span {
                    table,
                    before: since[&table.name],
                    after: to,
                };
                let left = folded
                    .rows
                    .iter()
                    .filter(|row| row.state != LastState::Gone);
                let left: Vec<&FoldedRow> = left.collect();
                if left.is_empty() || !self.is_numbered(table, source).await? {
                    continue;
                }
                for rows in left.chunks(ROWS_PER_QUERY) {
                    let keys: Vec<&[u8]> = rows.iter().map(|row| row.key.as_slice()).collect();
                    let vanished = span.vanished(&keys, source).await?;
                    let of_table: &mut Vec<_> = suspects.entry(table.name.clone()).or_default();
                    of_table.extend(vanished);
                }
            }
        }
        Ok(suspects)
    }

    async fn is_numbered(&mut self, table: &Table, source: &mut Link) -> Result<bool> {
        if let Some(numbered) = self.numbered.get(&table.name) {
            return Ok(*numbered);
        }
        let mut retries = Retries::new();
        let numbered = loop {
            let asked = match source.session().await {
                Ok(session) => has_row_ids(session, &table.name).await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(numbered) => break numbered,
                Err(error) => {
                    source.reset();
                    retries.pause(error).await?;
                }
            }
        };
        self.numbered.insert(table.name.clone(), numbered);
        Ok(numbered)
    }
}

impl Span<'_> {
    /// Returns the old keys of the rows with these keys that the source has no more. A span that
    /// cannot be read any more shows nothing.
    async fn vanished(&self, keys: &[&[u8]], source: &mut Link) -> Result<Vec<Vec<u8>>> {
        let mut retries = Retries::new();
        loop {
            let looked = match source.session().await {
                Ok(session) => self.look(keys, session).await,
                Err(error) => Err(error),
            };
            let error = match looked {
                Ok(vanished) => return Ok(vanished),
                Err(error) => error,
            };
            source.reset();
            if matches!(error.kind(), ErrorKind::Expired | ErrorKind::SchemaChanged) {
                tracing::warn!(table = %self.table.name, error = %error.message(), "cannot look for hidden changes of keys");
                return Ok(Vec::new());
            }
            retries.pause(error).await?;
        }
    }

    async fn look(&self, keys: &[&[u8]], session: &mut Session) -> Result<Vec<Vec<u8>>> {
        session.set_snapshot(Some(self.after)).await?;
        let condition = lookup_condition(self.table, keys.iter().copied());
        let now = self.keys(&condition, session).await?;
        if now.is_empty() {
            return Ok(Vec::new());
        }
        session.set_snapshot(Some(self.before)).await?;
        let numbers: Vec<String> = now
            .keys()
            .map(|number| String::from_utf8_lossy(number).into_owned())
            .collect();
        let condition = format!("_tidb_rowid IN ({})", numbers.join(", "));
        let mut old = self.keys(&condition, session).await?;
        old.retain(|number, (key, _)| now.get(number).is_none_or(|(now, _)| now != key));
        if old.is_empty() {
            return Ok(Vec::new());
        }
        // Another row may have taken the key since.
        session.set_snapshot(Some(self.after)).await?;
        let condition = lookup_condition(self.table, old.values().map(|(_, key)| key.as_slice()));
        let there = self.keys(&condition, session).await?;
        let there: HashSet<&Vec<u8>> = there.values().map(|(key, _)| key).collect();
        let vanished = old.values().map(|(key, _)| key);
        Ok(vanished
            .filter(|key| !there.contains(key))
            .cloned()
            .collect())
    }

    async fn keys(&self, condition: &str, session: &mut Session) -> Result<Keys> {
        let mut rows = Rows::new();
        session
            .scan(source_row_ids(self.table, condition), &mut rows)
            .await?;
        let mut canonical = Canonical::new();
        let mut keys = Keys::new();
        let mut key = Rows::new();
        for row in 0..rows.len() {
            let mut cells = rows.cells(row);
            let number = cells.next().flatten().unwrap_or_default().to_vec();
            key.clear();
            key.push_row(cells);
            let packed = key.packed(0).to_vec();
            keys.insert(
                number,
                (canonical_key(self.table, &mut canonical, &packed)?, packed),
            );
        }
        Ok(keys)
    }
}

fn canonical_key(table: &Table, canonical: &mut Canonical, key: &[u8]) -> Result<Vec<u8>> {
    let kinds = &table.kinds()[..table.key_len];
    let key = canonical.row(kinds, key).map_err(|error| {
        let what = format!("table {}: {error}", table.name);
        Error::new(ErrorKind::Rejected, what)
    });
    key.map(<[u8]>::to_vec)
}

/// Returns the keys of a table that the feed speaks of, in canonical form.
fn touched(name: &TableName, batch: &mut Batch) -> Result<HashSet<Vec<u8>>> {
    let mut touched = HashSet::new();
    let mut canonical = Canonical::new();
    for part in &mut batch.parts {
        let tables = part.tables()?;
        for folded in tables.iter().filter(|of| of.table.name == *name) {
            for row in &folded.rows {
                touched.insert(canonical_key(&folded.table, &mut canonical, &row.key)?);
            }
        }
    }
    Ok(touched)
}

fn hidden(table: &TableName) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!(
            "the key of a row of {table} was changed, and the feed does not say that the old one is \
             gone; nothing of this batch was written"
        ),
    )
    .advise(
        "the changefeed has output-old-value = false and output-raw-change-event = true: change one of \
         them, and begin again with a new task name; what is lost in the topic stays lost",
    )
}
