//! Whether the changefeed sends old values. Without them an update is told as an insert is, so that no
//! ledger can be carried on.
//!
//! A message with an image before and one after is proof that they are sent. Until one has come, some
//! of the keys that the feed calls new are looked up on the source as of the batch's start: one that
//! was there is proof that they are not. Were that missed, a ledger would not fit the target, and both
//! sides would be read: it never fits by mistake.

use super::link::{Link, Retries};
use crate::apply::lookup_condition;
use crate::chunk::CHUNK_BYTES_MAX;
use crate::database::source_scan;
use crate::engine::{Batch, Follow};
use crate::error::{ErrorKind, Result};
use crate::feed::CommitTs;
use crate::proof::{ledger_obstacle, retain_keys};
use crate::row::Rows;
use crate::schema::{Table, TableName};
use std::sync::Arc;

/// How many keys of a table are looked up in a batch.
const KEYS_PER_TABLE: usize = 20;

/// In how many tables of a batch keys are looked up.
const TABLES_PER_BATCH: usize = 8;

/// What is known of the changefeed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OldValues {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It sends old values.
    Sent,
    /// It does not.
    Hidden,
}

/// Keys of a table that the feed calls new.
struct Sample {
    table: Arc<Table>,
    keys: Vec<Vec<u8>>,
    since: CommitTs,
}

impl OldValues {
    /// Looks at a batch, and notes in it when no ledger can be carried on.
    ///
    /// # Errors
    /// If the source fails.
    pub async fn look(
        &mut self,
        follow: &Follow,
        batch: &mut Batch,
        source: &mut Link,
    ) -> Result<()> {
        if batch.old_values {
            *self = OldValues::Sent;
        } else if *self == OldValues::Unknown {
            for sample in samples(follow, batch)? {
                if sample.was_there(source).await? {
                    *self = OldValues::Hidden;
                    break;
                }
            }
        }
        batch.old_values_hidden = *self == OldValues::Hidden;
        Ok(())
    }
}

/// Takes some keys that the feed calls new out of a batch.
fn samples(follow: &Follow, batch: &mut Batch) -> Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = Vec::new();
    let since = |batch: &Batch, name: &TableName| batch.since(name, follow.tables()[name].base);
    let mut parts = std::mem::take(&mut batch.parts);
    for part in &mut parts {
        for folded in part.tables()?.iter() {
            let table = &folded.table;
            let known = samples.iter().any(|of| of.table.name == table.name);
            if known || samples.len() == TABLES_PER_BATCH || ledger_obstacle(table).is_some() {
                continue;
            }
            let new = folded.rows.iter().filter(|row| row.is_new);
            let keys: Vec<_> = new
                .take(KEYS_PER_TABLE)
                .map(|row| row.key.clone())
                .collect();
            if !keys.is_empty() {
                samples.push(Sample {
                    since: since(batch, &table.name),
                    table: Arc::clone(table),
                    keys,
                });
            }
        }
    }
    batch.parts = parts;
    Ok(samples)
}

impl Sample {
    /// Tells whether the source had any of the keys before the batch. What cannot be read any more
    /// shows nothing.
    async fn was_there(&self, source: &mut Link) -> Result<bool> {
        let mut retries = Retries::new();
        loop {
            let error = match self.look(source).await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            source.reset();
            match error.kind() {
                ErrorKind::Expired | ErrorKind::SchemaChanged => return Ok(false),
                _ => retries.pause(error.at("looking for old values")).await?,
            }
        }
    }

    async fn look(&self, source: &mut Link) -> Result<bool> {
        let table = &self.table;
        let keys: Vec<&[u8]> = self.keys.iter().map(Vec::as_slice).collect();
        let session = source.session().await?;
        session.set_snapshot(Some(self.since)).await?;
        let condition = lookup_condition(table, keys.iter().copied());
        let mut rows = Rows::new();
        session
            .scan_up_to(
                source_scan(table, Some(&condition)),
                &mut rows,
                CHUNK_BYTES_MAX,
            )
            .await?;
        let exact = retain_keys(table, rows, &keys);
        let exact = exact.map_err(|error| super::chunk_read::cell_failure(table, error))?;
        Ok(!exact.is_empty())
    }
}
