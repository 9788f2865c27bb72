//! Rows of the feed that wait: in memory and, beyond its bound, on disk.

use super::{CommitTs, RowChange};
use crate::error::{Error, ErrorKind, Result};
use crate::row::{Cells, Spool};
use crate::schema::TableName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// How many runs a full memory makes.
const RUNS_OF_MEMORY: usize = 4;

/// The most rows of a group.
const GROUP_ROWS: usize = 4_096;

/// The bytes after which a group that is read from disk ends.
const GROUP_BYTES: usize = 4 << 20;

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
            self.write_runs()?;
        }
        Ok(())
    }

    /// Writes what is in memory to disk, in runs that follow each other in time, so that a stretch
    /// can be cut between them.
    fn write_runs(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.memory);
        rows.sort_by_key(|(_, row)| row.commit_ts);
        let most = std::mem::take(&mut self.memory_bytes) / RUNS_OF_MEMORY;
        let (mut from, mut bytes) = (0, 0);
        for next in 0..rows.len() {
            bytes += rows[next].1.byte_len();
            if bytes > most || next + 1 == rows.len() {
                let run = Run::write(&self.spill, &rows[from..=next], bytes)?;
                self.runs.push(run);
                (from, bytes) = (next + 1, 0);
            }
        }
        Ok(())
    }

    /// Returns the latest timestamp, not above `to`, up to which the rows take about `bytes` at most:
    /// that of a commit, and of the earliest one if even that takes more.
    pub fn cut(&self, to: CommitTs, bytes: usize) -> CommitTs {
        if self.byte_len() <= bytes {
            return to;
        }
        let runs = self.runs.iter().map(|run| (run.most, run.bytes));
        let memory = self.memory.iter();
        let memory = memory.map(|(_, row)| (row.commit_ts, row.byte_len()));
        let mut pieces: Vec<_> = runs.chain(memory).filter(|(ts, _)| *ts <= to).collect();
        pieces.sort_unstable();
        let (mut sum, mut fits) = (0, None);
        for commit in pieces.chunk_by(|a, b| a.0 == b.0) {
            sum += commit.iter().map(|(_, bytes)| bytes).sum::<usize>();
            if sum > bytes {
                return fits.unwrap_or(commit[0].0);
            }
            fits = Some(commit[0].0);
        }
        to
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
        // Few rows wait, as a rule, and they stay where they are.
        let mut ripe = std::mem::take(&mut self.memory);
        for (position, row) in ripe.extract_if(.., |(_, row)| row.commit_ts > to) {
            waiting.push(position, row)?;
        }
        if taken.memory.is_empty() {
            taken.memory_bytes = ripe.iter().map(|(_, row)| row.byte_len()).sum();
            taken.memory = ripe;
        } else {
            let mut ripe = ripe.into_iter();
            ripe.try_for_each(|(position, row)| taken.push(position, row))?;
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
            .chain(self.memory.iter().map(|(_, row)| &*row.table))
            .collect()
    }

    /// Shows all rows and where they stood, in groups and in no particular order.
    ///
    /// # Errors
    /// If rows on disk cannot be read, or with the first error of `see`.
    pub fn for_each_group(
        &mut self,
        mut see: impl FnMut(&[(Position, RowChange)]) -> Result<()>,
    ) -> Result<()> {
        let mut group = Vec::new();
        for run in &mut self.runs {
            let mut bytes = 0;
            run.for_each(|position, row| {
                bytes += row.byte_len();
                group.push((position, row));
                if bytes < GROUP_BYTES && group.len() < GROUP_ROWS {
                    return Ok(());
                }
                see(&group)?;
                group.clear();
                bytes = 0;
                Ok(())
            })?;
            see(&group)?;
            group.clear();
        }
        self.memory.chunks(GROUP_ROWS).try_for_each(see)
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
                Some(row.value().as_bytes()),
                row.key_only.then_some(&[]),
            ])?;
            run.least = run.least.min(row.commit_ts);
            run.most = run.most.max(row.commit_ts);
            let first = run.first_offsets.entry(position.partition);
            let first = first.or_insert(position.offset);
            *first = position.offset.min(*first);
            if !run.tables.contains(&row.table) {
                run.tables.insert((*row.table).clone());
            }
        }
        Ok(run)
    }

    fn for_each(&mut self, mut see: impl FnMut(Position, RowChange) -> Result<()>) -> Result<()> {
        let mut table = None;
        self.spool.for_each(|row| {
            let (position, row) = unpacked(Cells::of(row), &mut table).ok_or_else(damaged)?;
            see(position, row)
        })
    }
}

/// Reads a row back; `table` is that of the row before, and becomes its own.
fn unpacked(
    mut cells: Cells<'_>,
    table: &mut Option<Arc<TableName>>,
) -> Option<(Position, RowChange)> {
    let mut next = || cells.next().flatten();
    let commit_ts = CommitTs::from_le_bytes(next()?.try_into().ok()?);
    let partition = u64::from_le_bytes(next()?.try_into().ok()?) as usize;
    let offset = i64::from_le_bytes(next()?.try_into().ok()?);
    let schema = std::str::from_utf8(next()?).ok()?;
    let name = std::str::from_utf8(next()?).ok()?;
    let same = table
        .take()
        .filter(|of| of.schema == schema && of.table == name);
    let name = table.insert(same.unwrap_or_else(|| Arc::new(TableName::new(schema, name))));
    let value = std::str::from_utf8(next()?).ok()?;
    let row = RowChange::new(commit_ts, Arc::clone(name), value);
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
        let seen = backlog.for_each_group(|group| {
            found.extend(group.iter().map(|(_, row)| row.commit_ts));
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
    fn a_stretch_is_cut_behind_the_last_commit_that_fits() {
        let row_bytes = row(1).byte_len();
        for memory_bytes in [row_bytes, 3 * row_bytes, 1 << 20] {
            let mut backlog = filled(memory_bytes);
            let position = Position::default();
            backlog.push(position, row(2)).expect("room");
            for (to, rows, cut) in [(9, 9, 9), (100, 8, 100), (9, 0, 1), (2, 1, 1), (2, 3, 2)] {
                let found = backlog.cut(to, rows * row_bytes);
                assert!(found >= cut, "{memory_bytes} {to} {rows}");
                // Rows on disk are cut between runs only.
                assert!(found == cut || memory_bytes < 1 << 20);
                assert!(found <= to);
            }
            let mut taken = Vec::new();
            while backlog.byte_len() > 0 {
                let cut = backlog.cut(100, 2 * row_bytes);
                let mut stretch = backlog.take_up_to(cut).expect("readable rows");
                let found = timestamps(&mut stretch);
                assert!(!found.is_empty() && found.iter().all(|ts| *ts <= cut));
                assert!(timestamps(&mut backlog).iter().all(|ts| *ts > cut));
                taken.extend(found);
            }
            assert_eq!(taken, [1, 2, 2, 3, 5, 7, 8, 9], "{memory_bytes}");
        }
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
