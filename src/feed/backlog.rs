//! Rows of the feed that wait: in memory and, beyond its bound, on disk.

use super::{CommitTs, RowChange};
use crate::error::{Error, ErrorKind, Result};
use crate::row::{Cells, Place, Spool};
use crate::schema::TableName;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// How many runs a full memory would make. Half of it is kept: what committed first is wanted first.
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

/// Rows on disk in the order of their commit timestamps, and what must be known of them without reading
/// them.
#[derive(Debug)]
struct Run {
    spool: Spool,
    /// Where those begin that are not taken yet; what follows is of them.
    from: Place,
    bytes: usize,
    least: CommitTs,
    most: CommitTs,
    whence: Whence,
}

/// Where rows stood in the feed, and of which tables they are.
#[derive(Debug, Default)]
struct Whence {
    first_offsets: BTreeMap<usize, i64>,
    tables: BTreeSet<TableName>,
}

impl Whence {
    fn note(&mut self, position: Position, table: &TableName) {
        let first = self.first_offsets.entry(position.partition);
        let first = first.or_insert(position.offset);
        *first = position.offset.min(*first);
        if !self.tables.contains(table) {
            self.tables.insert(table.clone());
        }
    }
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

    /// Writes the later half of what is in memory to disk, in runs that follow each other in time, so
    /// that a stretch can be cut between them.
    fn write_runs(&mut self) -> Result<()> {
        self.memory.sort_by_key(|(_, row)| row.commit_ts);
        let mut kept_bytes = 0;
        let kept = self.memory.iter().take_while(|(_, row)| {
            kept_bytes += row.byte_len();
            kept_bytes <= self.spill.memory_bytes / 2
        });
        let kept = kept.count();
        let rows = self.memory.split_off(kept);
        let most = self.memory_bytes / RUNS_OF_MEMORY;
        let (mut from, mut bytes) = (0, 0);
        for next in 0..rows.len() {
            bytes += rows[next].1.byte_len();
            if bytes > most || next + 1 == rows.len() {
                let run = Run::write(&self.spill, &rows[from..=next], bytes)?;
                self.runs.push(run);
                self.memory_bytes -= bytes;
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

    /// Returns the bytes of the rows up to a timestamp at least: of rows on disk those of whole runs, which
    /// need not be read for it.
    pub fn bytes_up_to(&self, to: CommitTs) -> usize {
        let runs = self.runs.iter().filter(|run| run.most <= to);
        let memory = self.memory.iter().filter(|(_, row)| row.commit_ts <= to);
        let in_memory = memory.map(|(_, row)| row.byte_len()).sum::<usize>();
        in_memory + runs.map(|run| run.bytes).sum::<usize>()
    }

    /// Returns the bytes of all rows.
    pub fn byte_len(&self) -> usize {
        self.memory_bytes + self.runs.iter().map(|run| run.bytes).sum::<usize>()
    }

    /// Returns how many rows these are at most.
    pub fn rows(&self) -> usize {
        let on_disk = self.runs.iter().map(|run| run.spool.rows());
        self.memory.len() + on_disk.sum::<usize>()
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
        for mut run in std::mem::take(&mut self.runs) {
            if run.most <= to {
                taken.runs.push(run);
                continue;
            }
            if run.least <= to {
                run.take_up_to(to, |position, row| taken.push(position, row))?;
            }
            waiting.runs.push(run);
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
        let on_disk = self.runs.iter().flat_map(|run| &run.whence.first_offsets);
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
        let on_disk = self.runs.iter().flat_map(|run| &run.whence.tables);
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
            from: Place::default(),
            bytes,
            least: CommitTs::MAX,
            most: 0,
            whence: Whence::default(),
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
            run.whence.note(*position, &row.table);
        }
        Ok(run)
    }

    /// Shows all rows that are left.
    fn for_each(&mut self, mut see: impl FnMut(Position, RowChange) -> Result<()>) -> Result<()> {
        let mut table = None;
        let all = |packed: &[u8]| {
            let (position, row) = unpacked(packed, &mut table).ok_or_else(damaged)?;
            see(position, row).map(|()| true)
        };
        self.spool.for_each_from(self.from, all).map(|_| ())
    }

    /// Takes out the rows that committed at or before a timestamp; they come first.
    fn take_up_to(
        &mut self,
        to: CommitTs,
        mut take: impl FnMut(Position, RowChange) -> Result<()>,
    ) -> Result<()> {
        let mut table = None;
        self.from = self.spool.for_each_from(self.from, |packed| {
            let head = Head::of(&mut Cells::of(packed), &mut table).ok_or_else(damaged)?;
            if head.commit_ts > to {
                self.least = head.commit_ts;
                return Ok(false);
            }
            let (position, row) = unpacked(packed, &mut table).ok_or_else(damaged)?;
            self.bytes -= row.byte_len();
            take(position, row).map(|()| true)
        })?;
        let mut whence = Whence::default();
        self.spool.for_each_from(self.from, |packed| {
            let head = Head::of(&mut Cells::of(packed), &mut table).ok_or_else(damaged)?;
            whence.note(head.position, &head.table);
            Ok(true)
        })?;
        self.whence = whence;
        Ok(())
    }
}

/// What stands before the value of a row on disk.
struct Head {
    commit_ts: CommitTs,
    position: Position,
    table: Arc<TableName>,
}

impl Head {
    /// Reads it; `table` is that of the row before, and becomes its own.
    fn of(cells: &mut Cells<'_>, table: &mut Option<Arc<TableName>>) -> Option<Head> {
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
        Some(Head {
            commit_ts,
            position: Position { partition, offset },
            table: Arc::clone(name),
        })
    }
}

/// Reads a row back; `table` is that of the row before, and becomes its own.
fn unpacked(packed: &[u8], table: &mut Option<Arc<TableName>>) -> Option<(Position, RowChange)> {
    let mut cells = Cells::of(packed);
    let head = Head::of(&mut cells, table)?;
    let value = std::str::from_utf8(cells.next()??).ok()?;
    let row = RowChange::new(head.commit_ts, head.table, value);
    let row = row.with_key_only(cells.next()?.is_some());
    Some((head.position, row))
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

    /// A partition that runs ahead of the others has its rows on disk, and they are taken from there
    /// piece by piece.
    #[test]
    fn inv_8_whatever_is_pushed_and_taken_the_same_rows_wait_as_would_in_memory() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..60 {
            let memory_bytes = random.usize(..20) * row(1).byte_len();
            let mut backlog = Backlog::new(spill(memory_bytes));
            let mut model: Vec<(CommitTs, Position)> = Vec::new();
            let (mut now, mut offsets) = (1, [0_i64; 3]);
            for _ in 0..40 {
                for _ in 0..random.usize(..30) {
                    let partition = random.usize(..3);
                    offsets[partition] += random.i64(0..3);
                    let position = Position {
                        partition,
                        offset: offsets[partition],
                    };
                    let ahead = [5, 50, 400][partition];
                    let ts = now + random.u64(..ahead);
                    backlog.push(position, row(ts)).expect("room");
                    model.push((ts, position));
                }
                now += random.u64(..60);
                let mut taken = backlog.take_up_to(now).expect("readable rows");
                let wanted: Vec<_> = model.extract_if(.., |(ts, _)| *ts <= now).collect();
                assert_eq!(sorted(&wanted), timestamps(&mut taken));
                assert_eq!(sorted(&model), timestamps(&mut backlog));
                assert!(backlog.memory_bytes <= memory_bytes);
                let bytes = model.len() * row(1).byte_len();
                assert_eq!(backlog.byte_len(), bytes);
                let mut first = BTreeMap::new();
                for (_, at) in &model {
                    let first = first.entry(at.partition).or_insert(at.offset);
                    *first = at.offset.min(*first);
                }
                assert_eq!(backlog.first_offsets(), first);
                assert_eq!(backlog.tables().is_empty(), model.is_empty());
            }
        }
    }

    fn sorted(rows: &[(CommitTs, Position)]) -> Vec<CommitTs> {
        let mut all: Vec<CommitTs> = rows.iter().map(|(ts, _)| *ts).collect();
        all.sort_unstable();
        all
    }
}
