//! How many rows a chunk may have, so that its memory is bounded whatever the rows are.

/// The packed bytes that a chunk aims at: large enough that a round trip costs little, small
/// enough that a dozen chunks in flight stay far below the memory bound (INV-8).
const BYTES_AIMED: usize = 4 << 20;

/// The most rows of a chunk, so that narrow rows do not make statements of endless length.
const ROWS_MAX: usize = 20_000;

/// The rows of the first chunk of a table whose row size the server does not know.
const ROWS_FIRST: usize = 1_000;

/// The bytes at which the read of a chunk is cut, whatever was expected: its rows so far make the
/// chunk. What is held is at most this and one row (INV-8).
pub const CHUNK_BYTES_MAX: usize = 2 * BYTES_AIMED;

/// The number of rows of the next chunk, corrected by what the last one weighed.
#[derive(Clone, Copy, Debug)]
pub struct ChunkSize {
    rows: usize,
}

impl ChunkSize {
    /// Starts from the server's estimate of a row's bytes; 0 when it has none.
    pub fn new(row_bytes_estimate: u64) -> Self {
        let rows = match row_bytes_estimate {
            0 => ROWS_FIRST,
            bytes => BYTES_AIMED / usize::try_from(bytes).unwrap_or(usize::MAX),
        };
        // An estimate may be far off, so the first chunk is small however good it looks.
        ChunkSize {
            rows: rows.clamp(1, ROWS_FIRST * 5),
        }
    }

    /// Returns how many rows the next chunk may have.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Makes chunks much smaller: the server could not hold what was asked of it. False if they are
    /// of one row already.
    pub fn shrink(&mut self) -> bool {
        let shrinks = self.rows > 1;
        self.rows = (self.rows / 16).max(1);
        shrinks
    }

    /// Corrects the size by a chunk that was read.
    pub fn learn(&mut self, rows: usize, bytes: usize) {
        if let Some(per_row) = bytes.checked_div(rows) {
            let per_row = per_row.max(1);
            // Growth is limited, because the rows ahead may be much larger than those behind.
            let most = self.rows.saturating_mul(4);
            self.rows = (BYTES_AIMED / per_row).clamp(1, ROWS_MAX.min(most));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_rows_make_small_chunks_and_small_rows_do_not_make_endless_ones() {
        let mut size = ChunkSize::new(0);
        size.learn(1_000, 1_000 * 10);
        assert_eq!(size.rows(), 4_000);
        size.learn(4_000, 40_000);
        size.learn(16_000, 160_000);
        assert_eq!(size.rows(), ROWS_MAX);
        size.learn(10, 10 * BYTES_AIMED);
        assert_eq!(size.rows(), 1);
    }

    #[test]
    fn a_server_that_is_short_of_memory_is_asked_for_less_until_for_one_row() {
        let mut size = ChunkSize::new(0);
        assert!(size.shrink() && size.shrink() && size.shrink());
        assert_eq!(size.rows(), 1);
        assert!(!size.shrink());
    }
}
