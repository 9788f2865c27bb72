//! Putting the feed's messages together again, up to the watermark.

use super::{Backlog, Claim, CommitTs, Ddl, Message, Offsets, Position, Spill, Watermarks};
use crate::error::Result;
use std::collections::BTreeMap;

/// The share of the memory for rows that a stretch which is cut leaves free: its rows on disk are cut
/// coarsely.
const SPARE_SHARE: usize = 4;

/// Rows and DDL that wait until the watermark passes them.
///
/// INV-4: what committed at or before the applied watermark is discarded, and what is repeated
/// changes nothing, because a stretch is folded to last images by commit timestamp.
#[derive(Debug)]
pub struct Assembly {
    watermarks: Watermarks,
    applied: CommitTs,
    rows: Backlog,
    /// The bytes of those that the watermark has passed, at least.
    resolved_bytes: usize,
    ddls: Vec<(Position, Ddl)>,
    next_offsets: Offsets,
}

/// Everything that the source committed above one timestamp up to another.
#[derive(Debug)]
pub struct Stretch {
    /// The timestamp above which the stretch begins.
    pub from: CommitTs,
    /// The last timestamp of the stretch.
    pub to: CommitTs,
    /// The rows, in no particular order.
    pub rows: Backlog,
    /// The schema changes in the order of their commit timestamps, each once.
    pub ddls: Vec<Ddl>,
    /// For each partition the offset from which reading must begin again once this is applied.
    pub offsets: Offsets,
}

impl Assembly {
    /// Starts behind `applied` with the offsets at which the partitions are read first.
    pub fn new(applied: CommitTs, offsets: Offsets, spill: Spill) -> Self {
        Assembly {
            watermarks: Watermarks::new(offsets.len()),
            applied,
            rows: Backlog::new(spill),
            resolved_bytes: 0,
            ddls: Vec::new(),
            next_offsets: offsets,
        }
    }

    /// Takes in one message of the record at `offset` of a partition.
    ///
    /// # Errors
    /// If it fits neither into memory nor on the disk.
    pub fn push(&mut self, partition: usize, offset: i64, message: Message) -> Result<()> {
        self.skip(partition, offset);
        let position = Position { partition, offset };
        match message {
            // Without its file a claim is a row of which only the handle key is known.
            Message::Row(row) | Message::Claim(Claim { row, .. })
                if row.commit_ts > self.applied =>
            {
                if row.commit_ts <= self.resolved() {
                    self.resolved_bytes += row.byte_len();
                }
                self.rows.push(position, row)?;
            }
            Message::Ddl(ddl) if ddl.commit_ts > self.applied => self.ddls.push((position, ddl)),
            Message::Row(_) | Message::Claim(_) | Message::Ddl(_) => {}
            Message::Watermark(ts) => {
                let before = self.resolved();
                self.watermarks.observe(partition, ts);
                if self.resolved() > before {
                    self.resolved_bytes = self.rows.bytes_up_to(self.resolved());
                }
            }
        }
        Ok(())
    }

    /// Passes over a message of the record at `offset` of a partition that is to be discarded.
    pub fn skip(&mut self, partition: usize, offset: i64) {
        let next = self.next_offsets.at_mut(partition);
        *next = (offset + 1).max(*next);
    }

    /// Adds a topic that came later; its partitions are numbered behind the others.
    pub fn add_topic(&mut self, topic: &str, offsets: Vec<i64>) {
        self.watermarks.add(offsets.len());
        self.next_offsets.add(topic, offsets);
    }

    /// Returns the bytes of the rows that wait.
    pub fn byte_len(&self) -> usize {
        self.rows.byte_len()
    }

    /// Returns the bytes of the rows that wait and that the watermark has passed, at least: a stretch of
    /// them can be taken.
    pub fn resolved_bytes(&self) -> usize {
        self.resolved_bytes
    }

    /// Returns the timestamp at or below which messages are discarded.
    pub fn applied(&self) -> CommitTs {
        self.applied
    }

    /// Returns topic and partition of each that is far behind the others.
    pub fn slow_partitions(&self) -> Vec<(String, usize)> {
        let places: Vec<_> = self.next_offsets.places().collect();
        let slow = self.watermarks.slow().map(|number| places[number]);
        slow.map(|(topic, partition, _)| (topic.to_owned(), partition))
            .collect()
    }

    /// Returns the timestamp up to which the feed is complete.
    pub fn resolved(&self) -> CommitTs {
        self.watermarks.resolved()
    }

    /// Takes out the stretch from the applied watermark to the newest resolved one, if that is at
    /// `at_least` or later and progress at all.
    ///
    /// A stretch that does not fit into memory ends at a commit before: all up to any timestamp below
    /// a watermark has arrived, so a fence may stand there too. What is left is taken next.
    ///
    /// After a crash within a large batch the target holds part of what lies up to some timestamp;
    /// `at_least` is then that timestamp, so that no fence is made before it.
    ///
    /// # Errors
    /// If rows on disk cannot be read or written.
    pub fn take(&mut self, at_least: CommitTs) -> Result<Option<Stretch>> {
        let to = self.resolved();
        if to <= self.applied || to < at_least {
            return Ok(None);
        }
        let memory_bytes = self.rows.spill().memory_bytes;
        let fitting = self.rows.cut(to, memory_bytes - memory_bytes / SPARE_SHARE);
        let to = fitting.max(at_least);
        let rows = self.rows.take_up_to(to)?;
        self.resolved_bytes = self.rows.bytes_up_to(self.resolved());
        let from = std::mem::replace(&mut self.applied, to);
        let (ddls, waiting): (Vec<_>, Vec<_>) = self
            .ddls
            .drain(..)
            .partition(|(_, ddl)| ddl.commit_ts <= to);
        self.ddls = waiting;
        Ok(Some(Stretch {
            from,
            to,
            rows,
            ddls: distinct(ddls),
            offsets: self.restart_offsets(),
        }))
    }

    /// Returns for each partition the first offset that still holds something unapplied.
    fn restart_offsets(&self) -> Offsets {
        let mut offsets = self.next_offsets.clone();
        let ddls = self.ddls.iter().map(|(at, _)| (at.partition, at.offset));
        for (partition, first) in self.rows.first_offsets().into_iter().chain(ddls) {
            let next = offsets.at_mut(partition);
            *next = first.min(*next);
        }
        offsets
    }
}

/// Keeps each DDL once: TiCDC sends it to every partition, and perhaps again after a restart.
fn distinct(ddls: Vec<(Position, Ddl)>) -> Vec<Ddl> {
    let mut kept: BTreeMap<(CommitTs, String, String, String), Ddl> = BTreeMap::new();
    for (_, ddl) in ddls {
        let table = ddl.table.clone();
        let identity = (ddl.commit_ts, table.schema, table.table, ddl.query.clone());
        kept.entry(identity).or_insert(ddl);
    }
    kept.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::super::backlog::testing::spill;
    use super::super::open_protocol::tests::{ddl, row};
    use super::*;

    fn timestamps(stretch: &mut Stretch) -> Vec<CommitTs> {
        let mut found = Vec::new();
        let seen = stretch.rows.for_each_group(|group| {
            found.extend(group.iter().map(|(_, row)| row.commit_ts));
            Ok(())
        });
        seen.expect("readable rows");
        found.sort_unstable();
        found
    }

    fn assembly(applied: CommitTs, offsets: Vec<i64>) -> Assembly {
        Assembly::new(applied, offsets.into(), spill(1 << 20))
    }

    fn push(assembly: &mut Assembly, partition: usize, offset: i64, message: Message) {
        let pushed = assembly.push(partition, offset, message);
        pushed.expect("room");
    }

    fn take(assembly: &mut Assembly, at_least: CommitTs) -> Option<Stretch> {
        assembly.take(at_least).expect("readable rows")
    }

    #[test]
    fn inv_4_events_at_or_below_the_applied_watermark_are_discarded() {
        let mut assembly = assembly(10, vec![0]);
        for ts in [9, 10, 11] {
            push(&mut assembly, 0, 0, Message::Row(row(ts)));
        }
        push(&mut assembly, 0, 1, Message::Watermark(12));
        let mut stretch = take(&mut assembly, 0).expect("a stretch to 11");
        assert_eq!(
            (stretch.from, stretch.to, timestamps(&mut stretch)),
            (10, 11, vec![11])
        );
        push(&mut assembly, 0, 2, Message::Row(row(11)));
        push(&mut assembly, 0, 3, Message::Watermark(14));
        assert_eq!(
            timestamps(&mut take(&mut assembly, 0).expect("a stretch to 13")),
            Vec::<u64>::new()
        );
    }

    #[test]
    fn a_stretch_that_does_not_fit_into_memory_is_cut_between_commits() {
        let memory = 4 * row(1).byte_len();
        let mut assembly = Assembly::new(0, vec![0].into(), spill(memory));
        for (offset, ts) in [(0, 10), (1, 20), (2, 20), (3, 30), (4, 40), (5, 50)] {
            push(&mut assembly, 0, offset, Message::Row(row(ts)));
        }
        push(&mut assembly, 0, 6, Message::Watermark(61));
        let mut taken = Vec::new();
        let mut from = 0;
        while let Some(mut stretch) = take(&mut assembly, 0) {
            let found = timestamps(&mut stretch);
            assert_eq!(stretch.from, from);
            assert!(found.iter().all(|ts| (from + 1..=stretch.to).contains(ts)));
            from = stretch.to;
            // What waits is read again after a crash.
            let waits = [10, 20, 20, 30, 40, 50]
                .iter()
                .position(|ts| *ts > stretch.to);
            assert_eq!(
                stretch.offsets,
                vec![waits.map_or(7, |at| at as i64)].into()
            );
            taken.push(found);
        }
        assert_eq!(from, 60);
        assert!(taken.len() > 1, "{taken:?}");
        assert_eq!(taken.concat(), [10, 20, 20, 30, 40, 50]);
    }

    #[test]
    fn bytes_below_the_watermark_are_those_that_can_be_taken() {
        let bytes = row(1).byte_len();
        let mut assembly = assembly(0, vec![0, 0]);
        let resolved = |of: &Assembly| of.resolved_bytes() / bytes;
        for ts in [5, 9, 20] {
            push(&mut assembly, 0, 0, Message::Row(row(ts)));
        }
        push(&mut assembly, 0, 1, Message::Watermark(30));
        assert_eq!(resolved(&assembly), 0);
        push(&mut assembly, 1, 0, Message::Watermark(10));
        assert_eq!(resolved(&assembly), 2);
        // What comes once more counts too.
        push(&mut assembly, 1, 1, Message::Row(row(9)));
        push(&mut assembly, 1, 2, Message::Row(row(21)));
        assert_eq!(resolved(&assembly), 3);
        take(&mut assembly, 0).expect("a stretch to 9");
        assert_eq!((resolved(&assembly), assembly.byte_len()), (0, 2 * bytes));
        push(&mut assembly, 1, 3, Message::Watermark(30));
        assert_eq!(resolved(&assembly), 2);
    }

    #[test]
    fn rows_above_the_watermark_wait_and_hold_the_offset() {
        let mut assembly = assembly(0, vec![5, 7]);
        push(&mut assembly, 0, 5, Message::Row(row(20)));
        push(&mut assembly, 0, 6, Message::Row(row(3)));
        push(&mut assembly, 1, 7, Message::Row(row(2)));
        push(&mut assembly, 0, 7, Message::Watermark(10));
        assert!(
            take(&mut assembly, 0).is_none(),
            "partition 1 has no watermark"
        );
        push(&mut assembly, 1, 8, Message::Watermark(10));
        let mut stretch = take(&mut assembly, 0).expect("a stretch to 9");
        assert_eq!(
            (timestamps(&mut stretch), stretch.offsets),
            (vec![2, 3], vec![5, 9].into())
        );
    }

    #[test]
    fn a_row_or_ddl_at_exactly_the_watermark_waits_for_the_next() {
        let mut assembly = assembly(0, vec![0]);
        push(&mut assembly, 0, 0, Message::Watermark(10));
        push(&mut assembly, 0, 1, Message::Ddl(ddl(10)));
        assert!(
            take(&mut assembly, 0)
                .expect("a stretch to 9")
                .ddls
                .is_empty()
        );
        push(&mut assembly, 0, 2, Message::Ddl(ddl(10)));
        push(&mut assembly, 0, 3, Message::Watermark(11));
        assert_eq!(
            take(&mut assembly, 0).expect("a stretch to 10").ddls.len(),
            1
        );
    }

    #[test]
    fn no_stretch_ends_before_a_batch_that_was_begun() {
        let mut assembly = assembly(0, vec![0]);
        push(&mut assembly, 0, 0, Message::Watermark(10));
        assert!(take(&mut assembly, 15).is_none());
        push(&mut assembly, 0, 1, Message::Watermark(16));
        assert_eq!(take(&mut assembly, 15).map(|stretch| stretch.to), Some(15));
    }
}
