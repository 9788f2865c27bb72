//! What a stretch did to each key, in parts that fit into memory.

use super::backlog::damaged;
use super::{CommitTs, Origin, Position};
use crate::error::Result;
use crate::proof::{Bucket, Ledger, ledger_obstacle};
use crate::row::{Cells, RowDigest, Spool};
use crate::schema::Table;
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use indexmap::map::Entry;
use std::borrow::Cow;
use std::sync::Arc;

/// What a stretch did to one key: the row that is there afterwards, or none.
///
/// Of a table without a key it says only that copies of this row came or went. How many, the feed
/// cannot tell: what it repeats looks like another copy.
#[derive(Clone, Debug, Default)]
pub struct FoldedRow {
    /// The key's packed cells; the whole packed row where the table has no key.
    pub key: Vec<u8>,
    /// What is there under the key at the end of the stretch.
    pub state: LastState,
    /// Whether the stretch's first change of the key brought a row and took none away: there was no
    /// row under the key before. Only old values make it sure; without them an update looks like an
    /// insert.
    pub is_new: bool,
    /// The message of the last change.
    pub origin: Origin,
}

/// What the feed says of a key at the end of a stretch.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum LastState {
    /// No row.
    #[default]
    Gone,
    /// This packed row.
    Row(Vec<u8>),
    /// A row whose last message does not hold all of it: the source has it, at the end of the
    /// stretch. Whatever committed last under the key is what the source shows there.
    Unread,
}

impl LastState {
    /// Returns the row if the feed holds it.
    pub fn row(&self) -> Option<&[u8]> {
        match self {
            LastState::Row(row) => Some(row),
            LastState::Gone | LastState::Unread => None,
        }
    }
}

/// The rank of a step that takes a row away.
const TAKES: u8 = 0;

impl FoldedRow {
    /// Orders the steps of a key.
    fn time(&self) -> (CommitTs, u8) {
        (self.origin.commit_ts, self.rank())
    }

    /// Orders what one commit did to a key. What it left there comes after what it took away, because
    /// TiCDC may split an update of a key and send its halves in any order; and a message that may
    /// not hold all of a row is never taken back by another of the same commit.
    fn rank(&self) -> u8 {
        match self.state {
            LastState::Gone => TAKES,
            LastState::Row(_) => 1,
            LastState::Unread => 2,
        }
    }
}

/// What a stretch did to one table.
#[derive(Clone, Debug)]
pub struct FoldedTable {
    /// The table.
    pub table: Arc<Table>,
    /// The keys that were touched, those that are gone included, each once.
    pub rows: Vec<FoldedRow>,
    /// What the part changes in the table's ledger: the last images of its keys come, the first old
    /// ones go. Or why that cannot be told.
    pub ledger: std::result::Result<Ledger, &'static str>,
}

/// Some of the keys that a stretch touched; no key is in two parts.
#[derive(Debug)]
pub struct Part(Content);

#[derive(Debug)]
enum Content {
    Memory(Vec<FoldedTable>),
    /// The steps of the part's keys, folded anew each time they are read.
    Disk(Spool, Arc<[Arc<Table>]>),
}

impl Part {
    pub(super) fn in_memory(tables: Vec<FoldedTable>) -> Part {
        Part(Content::Memory(tables))
    }

    pub(super) fn on_disk(steps: Spool, tables: Arc<[Arc<Table>]>) -> Part {
        Part(Content::Disk(steps, tables))
    }

    /// Returns the last images of the part's keys, table by table.
    ///
    /// # Errors
    /// If they are on disk and cannot be read.
    pub fn tables(&mut self) -> Result<Cow<'_, [FoldedTable]>> {
        match &mut self.0 {
            Content::Memory(tables) => Ok(Cow::Borrowed(tables)),
            Content::Disk(steps, tables) => {
                let mut images = LastImages::new(tables.len(), steps.rows());
                steps.for_each(|row| {
                    let (table, step) = Step::unpacked(Cells::of(row)).ok_or_else(damaged)?;
                    images.add(table, step);
                    Ok(())
                })?;
                Ok(Cow::Owned(images.finish(tables)))
            }
        }
    }

    /// Returns how many keys the part has at most.
    pub fn keys_at_most(&self) -> usize {
        match &self.0 {
            Content::Memory(tables) => tables.iter().map(|table| table.rows.len()).sum(),
            Content::Disk(steps, _) => steps.rows(),
        }
    }

    /// Returns the last images of a part that is in memory, or gives back one that is on disk.
    ///
    /// # Errors
    /// With the part itself, if it is on disk.
    pub fn into_memory(self) -> std::result::Result<Vec<FoldedTable>, Part> {
        match self.0 {
            Content::Memory(tables) => Ok(tables),
            on_disk @ Content::Disk(..) => Err(Part(on_disk)),
        }
    }
}

/// What one change did to one key.
#[derive(Debug)]
pub(super) struct Step {
    /// The key in canonical form.
    pub canonical: Vec<u8>,
    /// The key and the row.
    pub row: FoldedRow,
    /// The digest of the row that came or went; none if the feed does not hold all of it, or the table
    /// can have no ledger.
    pub digest: Option<Digest>,
}

/// The digest of a row, and the bucket of its key.
pub(super) type Digest = (Bucket, RowDigest);

impl Step {
    pub(super) fn push_to(&self, table: usize, spool: &mut Spool) -> Result<()> {
        let digest = self.digest.as_ref();
        let bucket = digest.map(|(bucket, _)| bucket.to_le_bytes());
        spool.push([
            Some((table as u64).to_le_bytes().as_slice()),
            Some(&self.row.origin.commit_ts.to_le_bytes()),
            Some(&(self.row.origin.position.partition as u64).to_le_bytes()),
            Some(&self.row.origin.position.offset.to_le_bytes()),
            (self.row.state != LastState::Gone).then_some(&[]),
            Some(&self.canonical),
            Some(&self.row.key),
            self.row.state.row(),
            bucket.as_ref().map(<[u8; 2]>::as_slice),
            digest.map(|(_, row)| row.as_bytes().as_slice()),
        ])
    }

    fn unpacked(mut cells: Cells<'_>) -> Option<(usize, Step)> {
        let table = u64::from_le_bytes(cells.next()??.try_into().ok()?) as usize;
        let origin = Origin {
            commit_ts: CommitTs::from_le_bytes(cells.next()??.try_into().ok()?),
            position: Position {
                partition: u64::from_le_bytes(cells.next()??.try_into().ok()?) as usize,
                offset: i64::from_le_bytes(cells.next()??.try_into().ok()?),
            },
        };
        let taken = cells.next()?.is_some();
        let canonical = cells.next()??.to_vec();
        let key = cells.next()??.to_vec();
        let state = match cells.next()? {
            Some(row) => LastState::Row(row.to_vec()),
            None if taken => LastState::Unread,
            None => LastState::Gone,
        };
        let digest = match (cells.next()?, cells.next()?) {
            (Some(bucket), Some(row)) => Some((
                Bucket::from_le_bytes(bucket.try_into().ok()?),
                RowDigest::from_bytes(row.try_into().ok()?),
            )),
            _ => None,
        };
        let row = FoldedRow {
            key,
            state,
            is_new: false,
            origin,
        };
        let step = Step {
            canonical,
            row,
            digest,
        };
        Some((table, step))
    }
}

/// The last step of each key, whatever the order in which steps come; the keys stay in the order in which
/// they came, which mostly is their own.
#[derive(Debug)]
pub(super) struct LastImages {
    tables: Vec<IndexMap<Vec<u8>, Touched, RandomState>>,
    keys_of_table: usize,
}

/// The last step of a key, and of its first one the time, the rank and the digest.
#[derive(Debug)]
struct Touched {
    first: ((CommitTs, u8), Option<Digest>),
    last: (FoldedRow, Option<Digest>),
}

impl Touched {
    fn add(&mut self, row: FoldedRow, digest: Option<Digest>) {
        let at = row.time();
        // Of steps that are repeated, the one that holds more tells more.
        let earlier = at < self.first.0 || (at == self.first.0 && self.first.1.is_none());
        if earlier {
            self.first = (at, digest);
        }
        if self.last.0.time() <= at {
            self.last = (row, digest);
        }
    }

    fn is_new(&self) -> bool {
        self.first.0.1 != TAKES
    }

    /// Takes the row that was there before out of a ledger, and puts the one in that is there now.
    fn carry(&self, ledger: &mut Ledger) -> std::result::Result<(), &'static str> {
        if !self.is_new() {
            let (bucket, row) = self.first.1.as_ref().ok_or(NO_OLD_IMAGE)?;
            ledger.remove(*bucket, row);
        }
        if self.last.0.state != LastState::Gone {
            let (bucket, row) = self.last.1.as_ref().ok_or(NO_NEW_IMAGE)?;
            ledger.add(*bucket, row);
        }
        Ok(())
    }

    fn folded(mut self) -> FoldedRow {
        self.last.0.is_new = self.is_new();
        self.last.0
    }
}

/// Why a ledger ends with a row of which the feed shows only the key before the change.
const NO_OLD_IMAGE: &str = "the feed did not hold the whole row that a change replaced or deleted";

/// Why a ledger ends with a row that must be read from the source.
const NO_NEW_IMAGE: &str = "the feed did not hold the whole row that a change left";

impl LastImages {
    /// Begins with no key in any of `count` tables; about so many steps will come.
    pub(super) fn new(count: usize, steps: usize) -> Self {
        LastImages {
            tables: (0..count).map(|_| IndexMap::default()).collect(),
            keys_of_table: steps / count.max(1),
        }
    }

    pub(super) fn add(&mut self, table: usize, step: Step) {
        let Step {
            canonical,
            row,
            digest,
        } = step;
        let keys = &mut self.tables[table];
        if keys.capacity() == 0 {
            // Growing step by step would move all of them several times.
            keys.reserve(self.keys_of_table);
        }
        match keys.entry(canonical) {
            Entry::Vacant(untouched) => {
                untouched.insert(Touched {
                    first: (row.time(), digest),
                    last: (row, digest),
                });
            }
            Entry::Occupied(mut touched) => touched.get_mut().add(row, digest),
        }
    }

    pub(super) fn finish(self, tables: &[Arc<Table>]) -> Vec<FoldedTable> {
        let touched = self.tables.into_iter().zip(tables);
        touched
            .filter(|(keys, _)| !keys.is_empty())
            .map(|(keys, table)| {
                let mut ledger = Ledger::default();
                let carried = match ledger_obstacle(table) {
                    Some(obstacle) => Err(obstacle),
                    None => keys.values().try_for_each(|key| key.carry(&mut ledger)),
                };
                let mut rows: Vec<_> = keys.into_values().map(Touched::folded).collect();
                // One order makes statements, and with them locks and tests, repeatable.
                rows.sort_by(|a, b| a.key.cmp(&b.key));
                FoldedTable {
                    table: Arc::clone(table),
                    rows,
                    ledger: carried.map(|()| ledger),
                }
            })
            .collect()
    }
}
