//! Tables without a key: the copies of a row are counted on both sides, and the target's number is
//! brought to the source's.
//!
//! The feed only says which rows to count. It cannot say how many copies there are: it may repeat
//! itself, and a repeated insert looks like another copy. So what is written follows from the
//! source as of the fence to come, which makes it the same however often it is done (INV-4).

use super::chunk_read::{Moment, cell_failure};
use super::link::Links;
use crate::apply::{insert_rows, rows_condition};
use crate::database::{Scan, Session, source_scan, target_scan};
use crate::error::Result;
use crate::feed::FoldedTable;
use crate::fence::Scn;
use crate::proof::{Comparison, Counted, RowHasher, compare_copies};
use crate::repair::delete_copies;
use crate::row::{DigestKey, RowDigest, Rows};
use crate::schema::Table;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many rows one query looks for.
pub const ROWS_PER_QUERY: usize = 100;

/// The bytes of rows that are read before they are counted.
const PIECE_BYTES: usize = 1 << 20;

/// Rows of one table, each once, by digest.
#[derive(Debug)]
pub struct Wanted<'a> {
    table: &'a Arc<Table>,
    key: &'a DigestKey,
    rows: BTreeMap<[u8; 32], (RowDigest, &'a [u8])>,
}

impl<'a> Wanted<'a> {
    /// Names the rows to count.
    ///
    /// # Errors
    /// If a cell is no value of its column's type.
    pub fn new(
        table: &'a Arc<Table>,
        key: &'a DigestKey,
        rows: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Wanted<'a>> {
        let mut hasher = RowHasher::new(table, key);
        let mut wanted = BTreeMap::new();
        for row in rows {
            let digest = hasher
                .row(row)
                .map_err(|error| cell_failure(table, error))?;
            wanted.insert(*digest.as_bytes(), (digest, row));
        }
        let rows = wanted;
        Ok(Wanted { table, key, rows })
    }

    /// Returns the digests of the rows.
    pub fn digests(&self) -> impl Iterator<Item = &RowDigest> {
        self.rows.values().map(|(digest, _)| digest)
    }

    /// Counts the copies on the source, at the snapshot of the session.
    pub async fn on_source(&self, session: &mut Session) -> Result<Counted> {
        let (table, mut counted) = (self.table, Counted::default());
        for some in self.groups() {
            let condition = some.condition();
            let scan = session.open_scan(source_scan(table, Some(&condition)));
            some.count(scan, &mut counted).await?;
        }
        Ok(counted)
    }

    /// Counts the copies on the target, as of a snapshot or as they are now.
    pub async fn on_target(&self, session: &mut Session, snapshot: Option<Scn>) -> Result<Counted> {
        let (table, mut counted) = (self.table, Counted::default());
        for some in self.groups() {
            let condition = some.condition();
            let scan = session.open_scan(target_scan(table, Some(&condition), snapshot));
            some.count(scan, &mut counted).await?;
        }
        Ok(counted)
    }

    /// Cuts the rows into groups that one query looks for.
    fn groups(&self) -> Vec<Wanted<'a>> {
        let rows: Vec<_> = self.rows.iter().collect();
        let groups = rows.chunks(ROWS_PER_QUERY).map(|rows| Wanted {
            table: self.table,
            key: self.key,
            rows: rows.iter().map(|(place, row)| (**place, **row)).collect(),
        });
        groups.collect()
    }

    fn condition(&self) -> String {
        rows_condition(self.table, self.rows.values().map(|(_, row)| *row))
    }

    /// Counts what a scan finds, and drops what only looks alike to a collation.
    async fn count(&self, mut scan: Scan<'_>, counted: &mut Counted) -> Result<()> {
        let mut hasher = RowHasher::new(self.table, self.key);
        let mut rows = Rows::new();
        loop {
            let whole = scan.fill(&mut rows, PIECE_BYTES).await?;
            for row in rows.iter() {
                let digest = hasher
                    .row(row)
                    .map_err(|error| cell_failure(self.table, error))?;
                if self.rows.contains_key(digest.as_bytes()) {
                    counted.add_row(digest, row);
                }
            }
            rows.clear();
            if whole {
                return Ok(());
            }
        }
    }

    /// Counts the copies on both sides at a moment and compares them.
    pub async fn compare(&self, links: &mut Links, at: Moment<'_>) -> Result<Comparison> {
        let (source, target) = at.sessions(links).await?;
        let (source, target) = tokio::join!(self.on_source(source), self.on_target(target, at.s));
        Ok(compare_copies(&source?, &target?))
    }
}

/// The rows of one table of which the target has too many or too few.
#[derive(Debug)]
pub struct Adjustment {
    table: Arc<Table>,
    too_many: Vec<(Vec<u8>, u64)>,
    too_few: Vec<(Vec<u8>, u64)>,
}

impl Adjustment {
    /// Finds what brings the target's number of each row to the source's.
    pub fn new(wanted: &Wanted<'_>, source: &Counted, target: &Counted) -> Adjustment {
        let mut adjustment = Adjustment {
            table: Arc::clone(wanted.table),
            too_many: Vec::new(),
            too_few: Vec::new(),
        };
        for digest in wanted.digests() {
            let (left, right) = (source.get(digest), target.get(digest));
            let count = |copies: Option<&crate::proof::Copies>| copies.map_or(0, |of| of.count);
            let (wants, has) = (count(left), count(right));
            match (left, right) {
                (_, Some(copies)) if has > wants => {
                    adjustment.too_many.push((copies.row.clone(), has - wants));
                }
                (Some(copies), _) if wants > has => {
                    adjustment.too_few.push((copies.row.clone(), wants - has));
                }
                _ => {}
            }
        }
        adjustment
    }

    /// Tells whether these are rows of what a batch did to a table.
    pub fn is_of(&self, folded: &FoldedTable) -> bool {
        self.table.name == folded.table.name
    }

    /// Returns how many copies are too many or too few.
    pub fn copies(&self) -> u64 {
        let all = self.too_many.iter().chain(&self.too_few);
        all.map(|(_, count)| count).sum()
    }

    /// Returns the statements that delete what is too many.
    pub fn deletes(&self) -> impl Iterator<Item = String> {
        let rows = self.too_many.iter();
        rows.map(|(row, count)| delete_copies(&self.table, row, *count))
    }

    /// Returns the statements that insert what is too few.
    pub fn inserts(&self) -> impl Iterator<Item = String> {
        let rows = self.too_few.iter().flat_map(|(row, count)| {
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            std::iter::repeat_n(row.as_slice(), count)
        });
        insert_rows(&self.table, rows)
    }
}
