//! Putting the feed's messages together again, up to the watermark.

use super::{CommitTs, Ddl, Message, RowChange, Watermarks};
use std::collections::BTreeMap;

/// Where a message stood in the feed.
#[derive(Clone, Copy, Debug)]
struct Position {
    partition: usize,
    offset: i64,
}

/// Rows and DDL that wait until the watermark passes them.
///
/// INV-4: what committed at or before the applied watermark is discarded, and what is repeated
/// changes nothing, because a stretch is folded to last images by commit timestamp.
#[derive(Debug)]
pub struct Assembly {
    watermarks: Watermarks,
    applied: CommitTs,
    rows: Vec<(Position, RowChange)>,
    ddls: Vec<(Position, Ddl)>,
    next_offsets: Vec<i64>,
    byte_len: usize,
}

/// Everything that the source committed above one timestamp up to another.
#[derive(Debug)]
pub struct Stretch {
    /// The timestamp above which the stretch begins.
    pub from: CommitTs,
    /// The last timestamp of the stretch.
    pub to: CommitTs,
    /// The rows in the order of their commit timestamps.
    pub rows: Vec<RowChange>,
    /// The schema changes in the order of their commit timestamps, each once.
    pub ddls: Vec<Ddl>,
    /// For each partition the offset from which reading must begin again once this is applied.
    pub offsets: Vec<i64>,
}

impl Assembly {
    /// Starts behind `applied` with the offsets at which the partitions are read first.
    pub fn new(applied: CommitTs, offsets: Vec<i64>) -> Self {
        Assembly {
            watermarks: Watermarks::new(offsets.len()),
            applied,
            rows: Vec::new(),
            ddls: Vec::new(),
            next_offsets: offsets,
            byte_len: 0,
        }
    }

    /// Takes in one message of the record at `offset` of a partition.
    pub fn push(&mut self, partition: usize, offset: i64, message: Message) {
        let position = Position { partition, offset };
        match message {
            Message::Row(row) if row.commit_ts > self.applied => {
                self.byte_len += row.byte_len();
                self.rows.push((position, row));
            }
            Message::Ddl(ddl) if ddl.commit_ts > self.applied => self.ddls.push((position, ddl)),
            Message::Row(_) | Message::Ddl(_) => {}
            Message::Watermark(ts) => self.watermarks.observe(partition, ts),
        }
        self.next_offsets[partition] = self.next_offsets[partition].max(offset + 1);
    }

    /// Returns the bytes of the rows that wait.
    pub fn byte_len(&self) -> usize {
        self.byte_len
    }

    /// Returns the timestamp up to which the feed is complete.
    pub fn resolved(&self) -> CommitTs {
        self.watermarks.resolved()
    }

    /// Takes out the stretch from the applied watermark to the newest resolved one, if that is at
    /// `at_least` or later and progress at all.
    ///
    /// After a crash within a large batch the target holds part of what lies up to some timestamp;
    /// `at_least` is then that timestamp, so that no fence is made before it.
    pub fn take(&mut self, at_least: CommitTs) -> Option<Stretch> {
        let to = self.resolved();
        if to <= self.applied || to < at_least {
            return None;
        }
        let from = std::mem::replace(&mut self.applied, to);
        let (mut rows, waiting): (Vec<_>, Vec<_>) = self
            .rows
            .drain(..)
            .partition(|(_, row)| row.commit_ts <= to);
        self.rows = waiting;
        self.byte_len = self.rows.iter().map(|(_, row)| row.byte_len()).sum();
        let (ddls, waiting): (Vec<_>, Vec<_>) = self
            .ddls
            .drain(..)
            .partition(|(_, ddl)| ddl.commit_ts <= to);
        self.ddls = waiting;
        rows.sort_by_key(|(_, row)| row.commit_ts);
        Some(Stretch {
            from,
            to,
            rows: rows.into_iter().map(|(_, row)| row).collect(),
            ddls: distinct(ddls),
            offsets: self.restart_offsets(),
        })
    }

    /// Returns for each partition the first offset that still holds something unapplied.
    fn restart_offsets(&self) -> Vec<i64> {
        let mut offsets = self.next_offsets.clone();
        let rows = self.rows.iter().map(|(position, _)| position);
        for position in rows.chain(self.ddls.iter().map(|(position, _)| position)) {
            let offset = &mut offsets[position.partition];
            *offset = (*offset).min(position.offset);
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
    use super::super::open_protocol::tests::{ddl, row};
    use super::*;

    fn timestamps(stretch: &Stretch) -> Vec<CommitTs> {
        stretch.rows.iter().map(|row| row.commit_ts).collect()
    }

    #[test]
    fn inv_4_events_at_or_below_the_applied_watermark_are_discarded() {
        let mut assembly = Assembly::new(10, vec![0]);
        for ts in [9, 10, 11] {
            assembly.push(0, 0, Message::Row(row(ts)));
        }
        assembly.push(0, 1, Message::Watermark(12));
        let stretch = assembly.take(0).expect("a stretch to 11");
        assert_eq!(
            (stretch.from, stretch.to, timestamps(&stretch)),
            (10, 11, vec![11])
        );
        assembly.push(0, 2, Message::Row(row(11)));
        assembly.push(0, 3, Message::Watermark(14));
        assert_eq!(
            timestamps(&assembly.take(0).expect("a stretch to 13")),
            Vec::<u64>::new()
        );
    }

    #[test]
    fn rows_above_the_watermark_wait_and_hold_the_offset() {
        let mut assembly = Assembly::new(0, vec![5, 7]);
        assembly.push(0, 5, Message::Row(row(20)));
        assembly.push(0, 6, Message::Row(row(3)));
        assembly.push(1, 7, Message::Row(row(2)));
        assembly.push(0, 7, Message::Watermark(10));
        assert!(assembly.take(0).is_none(), "partition 1 has no watermark");
        assembly.push(1, 8, Message::Watermark(10));
        let stretch = assembly.take(0).expect("a stretch to 9");
        assert_eq!(
            (timestamps(&stretch), stretch.offsets),
            (vec![2, 3], vec![5, 9])
        );
    }

    #[test]
    fn a_row_or_ddl_at_exactly_the_watermark_waits_for_the_next() {
        let mut assembly = Assembly::new(0, vec![0]);
        assembly.push(0, 0, Message::Watermark(10));
        assembly.push(0, 1, Message::Ddl(ddl(10)));
        assert!(assembly.take(0).expect("a stretch to 9").ddls.is_empty());
        assembly.push(0, 2, Message::Ddl(ddl(10)));
        assembly.push(0, 3, Message::Watermark(11));
        assert_eq!(assembly.take(0).expect("a stretch to 10").ddls.len(), 1);
    }

    #[test]
    fn no_stretch_ends_before_a_batch_that_was_begun() {
        let mut assembly = Assembly::new(0, vec![0]);
        assembly.push(0, 0, Message::Watermark(10));
        assert!(assembly.take(15).is_none());
        assembly.push(0, 1, Message::Watermark(16));
        assert_eq!(assembly.take(15).map(|stretch| stretch.to), Some(15));
    }
}
