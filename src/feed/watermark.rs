//! How far the feed is complete.

use super::CommitTs;

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
