//! Rows of the feed that wait: in memory and, beyond its bound, on disk.

use super::{CommitTs, RowChange};
use crate::error::{Error, ErrorKind, Result};
use crate::row::{Cells, Spool};
use crate::schema::TableName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Where rows go that do not fit into memory, and how many bytes do.
#[derive(Clone, Debug)]
pub struct Spill {
    /// The directory, which must exist.
    pub dir: PathBuf,
    /// The bytes of rows that may be held in memory at once (INV-8).
    pub memory_bytes: usize,
}

/// Where a message stood in the feed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Position {
    /// The partition.
    pub partition: usize,
    /// The offset of its record.
    pub offset: i64,
}

/// The message of a change, by which people find it again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Origin {
    /// When the change committed.
    pub commit_ts: CommitTs,
    /// Where its message stood.
    pub position: Position,
}

/// Rows in no particular order, of which those up to a timestamp can be taken out.
///
/// INV-8: it holds no more than the bound of its [`Spill`] in memory, however large a transaction
/// is and however far one partition runs ahead of the others.
#[derive(Debug)]
pub struct Backlog {
    spill: Spill,
    memory: Vec<(Position, RowChange)>,
    memory_bytes: usize,
    runs: Vec<Run>,
}

/// Rows on disk, and what must be known of them without reading them.
#[derive(Debug)]
struct Run {
    spool: Spool,
    bytes: usize,
    least: CommitTs,
    most: CommitTs,
    first_offsets: BTreeMap<usize, i64>,
    tables: BTreeSet<TableName>,
}

impl Backlog {
    /// Makes an empty one.
    pub fn new(spill: Spill) -> Self {
        Backlog {
            spill,
            memory: Vec::new(),
            memory_bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If memory is full and the disk takes no more.
    pub fn push(&mut self, position: Position, row: RowChange) -> Result<()> {
        self.memory_bytes += row.byte_len();
        self.memory.push((position, row));
        if self.memory_bytes > self.spill.memory_bytes {
            let rows = std::mem::take(&mut self.memory);
            self.runs
                .push(Run::write(&self.spill, &rows, self.memory_bytes)?);
            self.memory_bytes = 0;
        }
        Ok(())
    }

    /// Returns the bytes of all rows.
    pub fn byte_len(&self) -> usize {
        self.memory_bytes + self.runs.iter().map(|run| run.bytes).sum::<usize>()
    }

    /// Returns where rows go that do not fit into memory.
    pub fn spill(&self) -> &Spill {
        &self.spill
    }

    /// Takes out the rows that committed at or before a timestamp.
    ///
    /// # Errors
    /// If rows on disk cannot be read or written.
    pub fn take_up_to(&mut self, to: CommitTs) -> Result<Backlog> {
        let mut taken = Backlog::new(self.spill.clone());
        let mut waiting = Backlog::new(self.spill.clone());
        for run in std::mem::take(&mut self.runs) {
            if run.most <= to {
                taken.runs.push(run);
            } else if run.least > to {
                waiting.runs.push(run);
            } else {
                let mut run = run;
                run.for_each(|position, row| match row.commit_ts <= to {
                    true => taken.push(position, row),
                    false => waiting.push(position, row),
                })?;
            }
        }
        for (position, row) in std::mem::take(&mut self.memory) {
            match row.commit_ts <= to {
                true => taken.push(position, row)?,
                false => waiting.push(position, row)?,
            }
        }
        *self = waiting;
        Ok(taken)
    }

    /// Returns the first offset of a waiting row on each partition that has one.
    pub fn first_offsets(&self) -> BTreeMap<usize, i64> {
        let mut offsets = BTreeMap::new();
        let on_disk = self.runs.iter().flat_map(|run| &run.first_offsets);
        let all = on_disk.map(|(partition, offset)| (*partition, *offset));
        let in_memory = self.memory.iter().map(|(at, _)| (at.partition, at.offset));
        for (partition, offset) in all.chain(in_memory) {
            let first = offsets.entry(partition).or_insert(offset);
            *first = offset.min(*first);
        }
        offsets
    }

    /// Returns the tables of the rows.
    pub fn tables(&self) -> BTreeSet<&TableName> {
        let on_disk = self.runs.iter().flat_map(|run| &run.tables);
        on_disk
            .chain(self.memory.iter().map(|(_, row)| &row.table))
            .collect()
    }

    /// Shows each row and where it stood, in no particular order.
    ///
    /// # Errors
    /// If rows on disk cannot be read, or with the first error of `see`.
    pub fn for_each(
        &mut self,
        mut see: impl FnMut(Position, &RowChange) -> Result<()>,
    ) -> Result<()> {
        for run in &mut self.runs {
            run.for_each(|position, row| see(position, &row))?;
        }
        let mut memory = self.memory.iter();
        memory.try_for_each(|(position, row)| see(*position, row))
    }
}

impl Run {
    fn write(spill: &Spill, rows: &[(Position, RowChange)], bytes: usize) -> Result<Run> {
        let mut run = Run {
            spool: Spool::new(&spill.dir)?,
            bytes,
            least: CommitTs::MAX,
            most: 0,
            first_offsets: BTreeMap::new(),
            tables: BTreeSet::new(),
        };
        for (position, row) in rows {
            run.spool.push([
                Some(row.commit_ts.to_le_bytes().as_slice()),
                Some(&(position.partition as u64).to_le_bytes()),
                Some(&position.offset.to_le_bytes()),
                Some(row.table.schema.as_bytes()),
                Some(row.table.table.as_bytes()),
                Some(row.value()),
                row.key_only.then_some(&[]),
            ])?;
            run.least = run.least.min(row.commit_ts);
            run.most = run.most.max(row.commit_ts);
            let first = run.first_offsets.entry(position.partition);
            let first = first.or_insert(position.offset);
            *first = position.offset.min(*first);
            if !run.tables.contains(&row.table) {
                run.tables.insert(row.table.clone());
            }
        }
        Ok(run)
    }

    fn for_each(&mut self, mut see: impl FnMut(Position, RowChange) -> Result<()>) -> Result<()> {
        self.spool.for_each(|row| {
            let (position, row) = unpacked(Cells::of(row)).ok_or_else(damaged)?;
            see(position, row)
        })
    }
}

fn unpacked(mut cells: Cells<'_>) -> Option<(Position, RowChange)> {
    let mut next = || cells.next().flatten();
    let commit_ts = CommitTs::from_le_bytes(next()?.try_into().ok()?);
    let partition = u64::from_le_bytes(next()?.try_into().ok()?) as usize;
    let offset = i64::from_le_bytes(next()?.try_into().ok()?);
    let schema = std::str::from_utf8(next()?).ok()?;
    let table = std::str::from_utf8(next()?).ok()?;
    let row = RowChange::new(commit_ts, TableName::new(schema, table), next()?);
    let row = row.with_key_only(cells.next()?.is_some());
    Some((Position { partition, offset }, row))
}

/// The error of a file that does not hold what was written to it.
pub(super) fn damaged() -> Error {
    let what = "changes that were kept on disk came back damaged";
    Error::new(ErrorKind::Broken, what).advise("look at the disk of the state directory")
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A place for tests, with so little memory that almost everything goes to disk.
    pub fn spill(memory_bytes: usize) -> Spill {
        Spill {
            dir: std::env::temp_dir(),
            memory_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::open_protocol::tests::row;
    use super::testing::spill;
    use super::*;

    fn timestamps(backlog: &mut Backlog) -> Vec<CommitTs> {
        let mut found = Vec::new();
        let seen = backlog.for_each(|_, row| {
            found.push(row.commit_ts);
            Ok(())
        });
        seen.expect("readable rows");
        found.sort_unstable();
        found
    }

    fn filled(memory_bytes: usize) -> Backlog {
        let mut backlog = Backlog::new(spill(memory_bytes));
        for ts in [5, 1, 9, 3, 7, 2, 8] {
            let position = Position {
                partition: usize::from(ts % 2 == 0),
                offset: 100 - i64::try_from(ts).expect("small"),
            };
            backlog.push(position, row(ts)).expect("room");
        }
        backlog
    }

    #[test]
    fn inv_8_rows_on_disk_are_taken_as_those_in_memory_are() {
        let row_bytes = row(1).byte_len();
        for memory_bytes in [0, row_bytes, 2 * row_bytes, 1 << 20] {
            let mut backlog = filled(memory_bytes);
            assert!(backlog.memory_bytes <= memory_bytes);
            let all = backlog.byte_len();
            let mut taken = backlog.take_up_to(5).expect("readable rows");
            assert_eq!(timestamps(&mut taken), [1, 2, 3, 5], "{memory_bytes}");
            assert_eq!(timestamps(&mut backlog), [7, 8, 9], "{memory_bytes}");
            assert_eq!(taken.byte_len() + backlog.byte_len(), all);
            assert_eq!(backlog.first_offsets(), BTreeMap::from([(0, 91), (1, 92)]));
            assert_eq!(backlog.tables().len(), 1);
            assert!(taken.memory_bytes <= memory_bytes);
        }
    }
}
