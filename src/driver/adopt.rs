//! Adopting tables that the target has already: rows that differ are cleared before the load, which
//! then writes only what the target lacks.

use super::chunk_read::{Findings, cell_failure, read_chunk};
use super::link::{Link, Links};
use super::load::Load;
use super::whole::compare_whole;
use crate::apply::{delete_keys, lookup_condition};
use crate::chunk::{Range, Walk};
use crate::database::target_keys;
use crate::error::Result;
use crate::proof::Difference;
use crate::row::{Canonical, Cells, Rows};
use crate::schema::{Pairing, Table};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How many keys one query looks up.
const KEYS_AT_ONCE: usize = 500;

/// Deletes rows of the target on a connection of its own, in transactions of a load's worker.
#[derive(Debug)]
pub struct Clearing<'a> {
    load: &'a Load,
    table: &'a Table,
    slot: u32,
    /// The connection, and how many rows were deleted.
    link: Mutex<(Link, usize)>,
}

impl Clearing<'_> {
    /// Deletes the rows that the target has, of those that differ.
    ///
    /// # Errors
    /// If the target refuses, or the lease is lost.
    pub async fn delete(&self, found: &[Difference]) -> Result<()> {
        let keys: Vec<&[u8]> = found
            .iter()
            .filter(|of| of.target.is_some())
            .map(|of| of.key.as_slice())
            .collect();
        let count = keys.len();
        let statements: Vec<String> = delete_keys(self.table, keys).collect();
        if count == 0 {
            return Ok(());
        }
        let mut link = self.link.lock().await;
        let target = link.0.session().await?;
        let epoch = self.load.lease.epoch;
        self.load.record.begin(target, self.slot, epoch).await?;
        for statement in statements {
            target.write(statement, self.table).await?;
        }
        target.execute("COMMIT").await?;
        link.1 += count;
        Ok(())
    }
}

impl Load {
    /// Deletes the rows of an adopted table that the source has otherwise, or not at all.
    ///
    /// All of them go before the first row is written: a unique value that one of them holds may be
    /// that of a row anywhere else in the table. After a crash it is done again, which changes
    /// nothing that was written meanwhile: that is equal.
    ///
    /// # Errors
    /// If a side cannot be read, or the target refuses to delete.
    pub(super) async fn clear(
        &self,
        links: &mut Links,
        slot: u32,
        table: &Arc<Table>,
        ranges: &[Range],
    ) -> Result<()> {
        let target = links.target.session().await?;
        let any = format!("SELECT 1 FROM {} LIMIT 1", table.target.sql());
        if target.text(any).await?.is_none() {
            return Ok(());
        }
        eprintln!(
            "{}: the rows there are compared to be adopted",
            table.target
        );
        let clearing = Clearing {
            load: self,
            table,
            slot,
            link: Mutex::new((Links::new(&self.task).target, 0)),
        };
        let findings = Findings {
            clearing: Some(&clearing),
            ..self.findings()
        };
        if table.pairing() == Pairing::Ranges {
            for range in ranges {
                self.clear_range(links, table, range, &findings).await?;
            }
        } else {
            let (at, key) = (self.moment(), &self.digest_key);
            compare_whole(links, at, table, key, &findings).await?;
        }
        let (_, count) = clearing.link.into_inner();
        eprintln!("{}: {count} rows that differed were cleared", table.target);
        Ok(())
    }

    async fn clear_range(
        &self,
        links: &mut Links,
        table: &Arc<Table>,
        range: &Range,
        findings: &Findings<'_>,
    ) -> Result<()> {
        let mut walk = Walk::new(range.clone(), table.row_bytes_estimate);
        while !self.stop.is_cancelled() {
            let source = links.source.session().await?;
            source.set_snapshot(Some(self.base)).await?;
            let Some((chunk, rows)) = read_chunk(source, table, &mut walk, &self.spare).await?
            else {
                return Ok(());
            };
            self.compare_chunk(links, table, &chunk.range, rows, findings)
                .await?;
        }
        Err(super::migrate::interrupted())
    }

    /// Returns those of the source's rows whose keys an adopted table lacks. What it has of them is
    /// equal since it was cleared; the proof of the chunk says so, or not.
    ///
    /// # Errors
    /// If the target cannot be read, or a cell is no value of its column's type.
    pub(super) async fn lacking(
        &self,
        links: &mut Links,
        table: &Table,
        rows: &Rows,
    ) -> Result<Rows> {
        let target = links.target.session().await?;
        let kinds = table.kinds();
        let kinds = &kinds[..table.key_len];
        let mut canonical = Canonical::new();
        let mut lacking = Rows::new();
        let rows: Vec<&[u8]> = rows.iter().collect();
        for some in rows.chunks(KEYS_AT_ONCE) {
            let keys = some.iter().map(|row| Cells::prefix(row, table.key_len));
            let mut found = Rows::new();
            let sql = target_keys(table, &lookup_condition(table, keys));
            target.scan(sql, &mut found).await?;
            let mut there = HashSet::new();
            for key in found.iter() {
                let key = canonical.row(kinds, key);
                there.insert(key.map_err(|error| cell_failure(table, error))?.to_vec());
            }
            for row in some {
                let key = canonical.row(kinds, Cells::prefix(row, table.key_len));
                if !there.contains(key.map_err(|error| cell_failure(table, error))?) {
                    lacking.push_packed(row);
                }
            }
        }
        Ok(lacking)
    }
}
