//! How far the feed is complete.

use super::{CommitTs, physical_ms};

/// How far a partition's watermark is behind the newest when the partition is slow.
const SLOW_MS: u64 = 5_000;

/// The highest watermark seen on each partition.
///
/// Watermarks may go back when TiCDC restarts and replays; a lower one says nothing new.
#[derive(Clone, Debug)]
pub struct Watermarks {
    partitions: Vec<CommitTs>,
}

impl Watermarks {
    /// Starts with no watermark on any of `count` partitions.
    pub fn new(count: usize) -> Self {
        Watermarks {
            partitions: vec![0; count],
        }
    }

    /// Adds partitions of a topic that came later; nothing is complete until they have watermarks.
    pub fn add(&mut self, count: usize) {
        self.partitions.resize(self.partitions.len() + count, 0);
    }

    /// Notes a watermark of a partition.
    ///
    /// # Panics
    /// If there is no such partition.
    pub fn observe(&mut self, partition: usize, ts: CommitTs) {
        let known = &mut self.partitions[partition];
        *known = (*known).max(ts);
    }

    /// Returns the partitions whose watermarks are far behind the newest one.
    pub fn slow(&self) -> impl Iterator<Item = usize> {
        let newest = self.partitions.iter().copied().max().unwrap_or_default();
        let is_slow = move |ts: CommitTs| physical_ms(newest) - physical_ms(ts) > SLOW_MS;
        let numbered = self.partitions.iter().enumerate();
        numbered.filter_map(move |(number, ts)| is_slow(*ts).then_some(number))
    }

    /// Returns the timestamp R up to which every row *and* every DDL has arrived: one below the
    /// minimum of the partitions, because a DDL may still come at exactly a watermark.
    pub fn resolved(&self) -> CommitTs {
        self.partitions
            .iter()
            .min()
            .map_or(0, |ts| ts.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_slow_when_others_are_far_ahead() {
        let mut watermarks = Watermarks::new(3);
        assert_eq!(watermarks.slow().count(), 0);
        for (partition, ms) in [(0, 20_000), (1, 15_000), (2, 14_999)] {
            watermarks.observe(partition, ms << 18);
        }
        assert_eq!(watermarks.slow().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn the_slowest_partition_decides_and_nothing_goes_back() {
        let mut watermarks = Watermarks::new(2);
        watermarks.observe(0, 10);
        assert_eq!(watermarks.resolved(), 0);
        watermarks.observe(1, 8);
        assert_eq!(watermarks.resolved(), 7);
        watermarks.observe(1, 3);
        assert_eq!(watermarks.resolved(), 7);
    }
}
