//! The walk through one stripe of a table, chunk by chunk.

use super::{ChunkSize, Key, Range};
use crate::row::Rows;

/// The walk through one stripe: every chunk begins behind the last key of the one before.
#[derive(Clone, Debug)]
pub struct Walk {
    stripe: Range,
    after: Option<Key>,
    seq: u32,
    size: ChunkSize,
    finished: bool,
}

/// A chunk that the walk has read on the source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Chunk {
    /// The place of the chunk in its stripe.
    pub seq: u32,
    /// The keys that the chunk covers; the last chunk of a stripe ends where the stripe ends.
    pub range: Range,
}

impl Walk {
    /// Starts at the beginning of a stripe.
    pub fn new(stripe: Range, row_bytes_estimate: u64) -> Self {
        let after = stripe.after.clone();
        Walk {
            stripe,
            after,
            seq: 0,
            size: ChunkSize::new(row_bytes_estimate),
            finished: false,
        }
    }

    /// Goes on behind a chunk that the target already holds.
    pub fn resume_after(&mut self, chunk: &Chunk) {
        self.seq = chunk.seq + 1;
        self.finished = chunk.range.up_to == self.stripe.up_to;
        self.after.clone_from(&chunk.range.up_to);
    }

    /// Goes back to the beginning of a chunk, to read it again.
    pub fn rewind_to(&mut self, chunk: &Chunk) {
        self.seq = chunk.seq;
        self.finished = false;
        self.after.clone_from(&chunk.range.after);
    }

    /// Returns the range to read next and how many rows to read of it, or nothing at the end.
    pub fn next_read(&self) -> Option<(Range, usize)> {
        let range = Range {
            after: self.after.clone(),
            up_to: self.stripe.up_to.clone(),
        };
        (!self.finished).then(|| (range, self.size.rows()))
    }

    /// Makes the next reads much smaller, because the server could not hold the last one; false if
    /// they are of one row already.
    pub fn shrink(&mut self) -> bool {
        self.size.shrink()
    }

    /// Takes in what the read brought and returns the chunk that it makes up.
    ///
    /// `last` is the key of the last row. `exhausted` says that the read came back short: its chunk
    /// is the last and covers all keys to the end of the stripe, so that the proof sees rows that
    /// only the target has.
    pub fn on_read(&mut self, rows: &Rows, last: Option<Key>, exhausted: bool) -> Chunk {
        let after = self.after.take();
        let up_to = if exhausted {
            self.stripe.up_to.clone()
        } else {
            last
        };
        self.finished = exhausted || up_to == self.stripe.up_to;
        self.size.learn(rows.len(), rows.byte_len());
        self.after.clone_from(&up_to);
        let chunk = Chunk {
            seq: self.seq,
            range: Range { after, up_to },
        };
        self.seq += 1;
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn rows(ids: std::ops::Range<u32>) -> Rows {
        let mut rows = Rows::new();
        for id in ids {
            rows.push_row([Some(id.to_string().as_bytes()), None]);
        }
        rows
    }

    fn key(id: u32) -> Option<Key> {
        Some(Key::new(vec![id.to_string().into_bytes()]))
    }

    #[test]
    fn chunks_share_their_ends_and_the_last_is_open() {
        let mut walk = Walk::new(Range::default(), 0);
        let (range, asked) = walk.next_read().expect("a first chunk");
        assert_eq!((range, asked), (Range::default(), 1_000));
        let first = walk.on_read(&rows(0..1_000), key(999), false);
        assert_eq!(
            first.range,
            Range {
                after: None,
                up_to: key(999)
            }
        );
        let (range, _) = walk.next_read().expect("a second chunk");
        assert_eq!(range.after, key(999));
        let second = walk.on_read(&rows(1_000..1_003), key(1_002), true);
        assert_eq!(
            second,
            Chunk {
                seq: 1,
                range: Range {
                    after: key(999),
                    up_to: None
                }
            }
        );
        assert!(walk.next_read().is_none());
    }

    #[test]
    fn inv_3_a_resumed_walk_goes_on_behind_the_last_committed_chunk() {
        let stripe = Range {
            after: None,
            up_to: key(5_000),
        };
        let mut walk = Walk::new(stripe.clone(), 0);
        let first = walk.on_read(&rows(0..1_000), key(999), false);
        let mut resumed = Walk::new(stripe, 0);
        resumed.resume_after(&first);
        assert_eq!(
            resumed.next_read().map(|(range, _)| range),
            walk.next_read().map(|(r, _)| r)
        );
        let last = Chunk {
            seq: 1,
            range: Range {
                after: key(999),
                up_to: key(5_000),
            },
        };
        resumed.resume_after(&last);
        assert!(resumed.next_read().is_none());
    }

    #[test]
    fn an_empty_table_is_one_chunk_over_everything() {
        let mut walk = Walk::new(Range::default(), 0);
        let chunk = walk.on_read(&rows(0..0), None, true);
        assert_eq!(chunk.range, Range::default());
        assert!(walk.next_read().is_none());
    }
}
