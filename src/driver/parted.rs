//! Rows that wait to be compared, on disk when they are many.

use super::chunk_read::cell_failure;
use crate::error::{Error, Result};
use crate::proof::{
    Comparison, Counted, DifferingBuckets, RowHasher, compare, compare_copies, part_of,
};
use crate::row::{DigestKey, Rows, Spool};
use crate::schema::Table;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Into how many parts rows are cut by the hash of their keys, and each part that is still too large
/// again.
const PARTS: usize = 64;

/// How often rows are cut: after that, what is together has one key or one content.
const LEVELS: usize = 8;

/// The bytes of a part's rows that are kept in memory before they are written.
const PART_BYTES: usize = 64 << 10;

/// The bytes of both sides that are compared at once (INV-8).
const COMPARED_BYTES: u64 = 16 << 20;

/// The rows of one side, cut into parts by the hash of their keys.
#[derive(Debug)]
pub struct Parted {
    dir: PathBuf,
    level: usize,
    parts: Vec<Part>,
}

/// What waits of one part: its newest rows in memory, the others on disk.
#[derive(Debug, Default)]
struct Part {
    rows: Rows,
    older: Option<Spool>,
    bytes: u64,
}

impl Parted {
    /// Makes an empty one whose files lie in a directory.
    pub fn new(dir: &Path) -> Parted {
        Parted::at(dir, 0)
    }

    fn at(dir: &Path, level: usize) -> Parted {
        Parted {
            dir: dir.to_owned(),
            level,
            parts: (0..PARTS).map(|_| Part::default()).collect(),
        }
    }

    /// Takes in those of the rows that belong into buckets that differ.
    pub fn add(
        &mut self,
        table: &Table,
        hasher: &mut RowHasher,
        differing: &DifferingBuckets,
        rows: &Rows,
    ) -> Result<()> {
        for row in rows.iter() {
            let key = hasher
                .key(row)
                .map_err(|error| cell_failure(table, error))?;
            if differing.contains(&key) {
                let part = part_of(&key, self.level, PARTS);
                self.parts[part].push(row, &self.dir)?;
            }
        }
        Ok(())
    }

    /// Compares the rows of both sides part by part and hands what was found to `found`.
    pub fn compare(
        source: Parted,
        target: Parted,
        table: &Arc<Table>,
        key: &DigestKey,
        found: &mut impl FnMut(Comparison) -> Result<()>,
    ) -> Result<()> {
        let level = source.level;
        let dir = source.dir.clone();
        for (left, right) in source.parts.into_iter().zip(target.parts) {
            if left.bytes + right.bytes <= COMPARED_BYTES {
                let (left, right) = (left.into_rows()?, right.into_rows()?);
                let compared = compare(table, key, (&left, &right), false);
                found(compared.map_err(|error| cell_failure(table, error))?)?;
            } else if level + 1 < LEVELS {
                let cut = |part: Part| part.cut(&dir, level + 1, table, key);
                Parted::compare(cut(left)?, cut(right)?, table, key, found)?;
            } else {
                found(compare_crowds(left, right, table, key)?)?;
            }
        }
        Ok(())
    }
}

/// Compares parts that cannot be cut further. Copies of one row need only be counted. Of many rows
/// of one key, which only a target without its unique key can have, those that fit are compared:
/// they differ, whatever the others are.
fn compare_crowds(
    source: Part,
    target: Part,
    table: &Arc<Table>,
    key: &DigestKey,
) -> Result<Comparison> {
    let failed = |error| cell_failure(table, error);
    if table.key_len == 0 {
        let mut hasher = RowHasher::new(table, key);
        let mut count = |part: Part| {
            let mut counted = Counted::default();
            part.read(|rows| counted.add(&mut hasher, rows).map_err(failed))?;
            Ok::<_, Error>(counted)
        };
        return Ok(compare_copies(&count(source)?, &count(target)?));
    }
    let first = |part: Part| {
        let mut first = Rows::new();
        part.read(|rows| {
            if (first.byte_len() as u64) < COMPARED_BYTES / 2 {
                rows.iter().for_each(|row| first.push_packed(row));
            }
            Ok(())
        })?;
        Ok::<_, Error>(first)
    };
    compare(table, key, (&first(source)?, &first(target)?), false).map_err(failed)
}

impl Part {
    fn push(&mut self, row: &[u8], dir: &Path) -> Result<()> {
        self.rows.push_packed(row);
        self.bytes += row.len() as u64;
        if self.rows.byte_len() > PART_BYTES {
            if self.older.is_none() {
                self.older = Some(Spool::new(dir)?);
            }
            let older = self.older.as_mut().expect("it was just made");
            self.rows
                .iter()
                .try_for_each(|row| older.push_packed(row))?;
            self.rows = Rows::new();
        }
        Ok(())
    }

    /// Hands all rows to `take`, piece by piece.
    fn read(self, mut take: impl FnMut(&Rows) -> Result<()>) -> Result<()> {
        if let Some(mut older) = self.older {
            let mut piece = Rows::new();
            older.for_each(|row| {
                piece.push_packed(row);
                if piece.byte_len() > PART_BYTES {
                    take(&piece)?;
                    piece.clear();
                }
                Ok(())
            })?;
            take(&piece)?;
        }
        take(&self.rows)
    }

    fn into_rows(self) -> Result<Rows> {
        if self.older.is_none() {
            return Ok(self.rows);
        }
        let mut all = Rows::new();
        self.read(|rows| {
            rows.iter().for_each(|row| all.push_packed(row));
            Ok(())
        })?;
        Ok(all)
    }

    /// Cuts a part by other bits of the hash.
    fn cut(self, dir: &Path, level: usize, table: &Table, key: &DigestKey) -> Result<Parted> {
        let mut parted = Parted::at(dir, level);
        let mut hasher = RowHasher::new(table, key);
        self.read(|rows| {
            for row in rows.iter() {
                let key = hasher
                    .key(row)
                    .map_err(|error| cell_failure(table, error))?;
                parted.parts[part_of(&key, level, PARTS)].push(row, dir)?;
            }
            Ok(())
        })?;
        Ok(parted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::{Buckets, Tally};
    use crate::schema::TableName;
    use crate::schema::testing::{column, integer_table, table};

    fn rows(count: u32, body: &str) -> Rows {
        let mut rows = Rows::new();
        for id in 0..count {
            rows.push_row([Some(id.to_string().as_bytes()), Some(body.as_bytes())]);
        }
        rows
    }

    fn compared(table: Table, source: &Rows, target: &Rows) -> (Tally, usize) {
        let dir = std::env::temp_dir();
        let table = Arc::new(table);
        let key = DigestKey::from_bytes([1; 32]);
        let mut hasher = RowHasher::new(&table, &key);
        let (mut left, mut right) = (Buckets::default(), Buckets::default());
        left.add(&mut hasher, source).expect("valid cells");
        right.add(&mut hasher, target).expect("valid cells");
        let differing = left.differing(&right);
        let mut parted = |rows: &Rows| {
            let mut side = Parted::new(&dir);
            side.add(&table, &mut hasher, &differing, rows)
                .expect("a disk");
            side
        };
        let (source, target) = (parted(source), parted(target));
        let (mut tally, mut largest) = (Tally::default(), 0);
        Parted::compare(
            source,
            target,
            &table,
            &key,
            &mut |comparison: Comparison| {
                tally += comparison.tally;
                largest = largest.max(comparison.differences.len());
                Ok(())
            },
        )
        .expect("compared");
        (tally, largest)
    }

    #[test]
    fn inv_8_a_whole_table_that_differs_is_compared_from_disk_in_parts() {
        let table = integer_table("s", "t");
        let (left, right) = (
            rows(40_000, &"7".repeat(500)),
            rows(40_000, &"8".repeat(500)),
        );
        let (tally, largest) = compared(table, &left, &right);
        assert_eq!(tally.changed, 40_000);
        assert_eq!((tally.missing, tally.extra), (0, 0));
        assert!(largest < 40_000, "{largest} at once");
    }

    #[test]
    fn inv_8_more_copies_of_one_row_than_fit_are_counted() {
        let columns = vec![column("a", 1, "text", true)];
        let table = table(TableName::new("s", "t"), columns, Vec::new());
        let copies = |count: u32| {
            let mut rows = Rows::new();
            for _ in 0..count {
                rows.push_row([Some("x".repeat(1_000).as_bytes())]);
            }
            rows
        };
        let (tally, _) = compared(table, &copies(12_000), &copies(9_000));
        assert_eq!((tally.missing, tally.extra), (3_000, 0));
    }
}
