//! Whole tables compared without a common order: by buckets of a hash of the key.

use super::{Bucket, Ledger};
use crate::row::{Canonical, CellError, DigestKey, Kind, RowDigest, Rows, Sum};
use crate::schema::Table;

/// The number of buckets: of a billion rows each has sixty thousand, and all of them take less than
/// a megabyte for each side.
const BUCKETS: usize = 1 << 14;

/// Computes the digests of rows and of their keys.
#[derive(Debug)]
pub struct RowHasher {
    kinds: Vec<Kind>,
    key_len: usize,
    key: DigestKey,
    canonical: Canonical,
}

impl RowHasher {
    /// Makes a hasher for the rows of a table.
    pub fn new(table: &Table, key: &DigestKey) -> Self {
        RowHasher {
            kinds: table.kinds(),
            key_len: table.key_len,
            key: key.clone(),
            canonical: Canonical::new(),
        }
    }

    /// Returns the digest of a packed row.
    ///
    /// # Errors
    /// If a cell is no value of its column's type.
    pub fn row(&mut self, row: &[u8]) -> Result<RowDigest, CellError> {
        Ok(self.key.row(self.canonical.row(&self.kinds, row)?))
    }

    /// Returns the digest of what identifies a packed row: its key, or without one the whole row.
    ///
    /// # Errors
    /// If a cell is no value of its column's type.
    pub fn key(&mut self, row: &[u8]) -> Result<RowDigest, CellError> {
        if self.key_len == 0 {
            return self.row(row);
        }
        let kinds = &self.kinds[..self.key_len];
        Ok(self.key.row(self.canonical.row(kinds, row)?))
    }

    /// Returns the bucket and the digest of a packed row of a table with a key.
    ///
    /// # Errors
    /// If a cell is no value of its column's type.
    pub fn bucket_and_row(&mut self, row: &[u8]) -> Result<(Bucket, RowDigest), CellError> {
        let (key, row) = self.canonical.keyed_row(&self.kinds, self.key_len, row)?;
        Ok((Bucket::of(&self.key.row(key)), self.key.row(row)))
    }
}

/// The rows of one side, each in the bucket of its key's hash. No bucket holds rows: as long as both
/// sides have the same sum in each, nothing needs to be kept.
#[derive(Debug)]
pub struct Buckets {
    sums: Vec<Sum>,
}

impl Default for Buckets {
    /// Makes empty buckets.
    fn default() -> Self {
        Buckets {
            sums: vec![Sum::default(); BUCKETS],
        }
    }
}

impl Buckets {
    /// Puts rows into their buckets.
    ///
    /// # Errors
    /// If a cell is no value of its column's type.
    pub fn add(&mut self, hasher: &mut RowHasher, rows: &Rows) -> Result<(), CellError> {
        for row in rows.iter() {
            let bucket = bucket_of(&hasher.key(row)?);
            self.sums[bucket].add_row(&hasher.row(row)?);
        }
        Ok(())
    }

    /// Returns the same sums in the buckets of a ledger.
    pub fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.add_sums(&self.sums);
        ledger
    }

    /// Returns the digest of all rows.
    pub fn total(&self) -> Sum {
        self.sums
            .iter()
            .fold(Sum::default(), |total, sum| total + *sum)
    }

    /// Returns the buckets in which the two sides do not hold the same.
    pub fn differing(&self, other: &Buckets) -> DifferingBuckets {
        let pairs = self.sums.iter().zip(&other.sums);
        DifferingBuckets(pairs.map(|(left, right)| left != right).collect())
    }
}

/// The buckets that must be looked into.
#[derive(Clone, Debug)]
pub struct DifferingBuckets(Vec<bool>);

impl DifferingBuckets {
    /// Tells whether both sides hold the same.
    pub fn is_empty(&self) -> bool {
        !self.0.contains(&true)
    }

    /// Tells whether a key belongs into one of them.
    pub fn contains(&self, key: &RowDigest) -> bool {
        self.0[bucket_of(key)]
    }
}

/// Returns the bucket of a key: the first bits of its digest.
pub(super) fn bucket_of(key: &RowDigest) -> usize {
    let [high, low, ..] = *key.as_bytes();
    usize::from(u16::from_be_bytes([high, low])) % BUCKETS
}

/// Returns the part of `parts` into which a key belongs at a level of cutting: from bytes of its
/// digest that neither the buckets nor another level uses.
pub fn part_of(key: &RowDigest, level: usize, parts: usize) -> usize {
    usize::from(key.as_bytes()[2 + level]) % parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::integer_table;

    fn buckets(rows: &[(&str, &str)]) -> Buckets {
        let mut packed = Rows::new();
        for (id, value) in rows {
            packed.push_row([Some(id.as_bytes()), Some(value.as_bytes())]);
        }
        let key = DigestKey::from_bytes([1; 32]);
        let mut hasher = RowHasher::new(&integer_table("s", "t"), &key);
        let mut buckets = Buckets::default();
        buckets.add(&mut hasher, &packed).expect("valid cells");
        buckets
    }

    #[test]
    fn order_does_not_matter_and_every_value_does() {
        let left = buckets(&[("1", "10"), ("2", "20")]);
        let right = buckets(&[("2", "20"), ("01", "10")]);
        assert!(left.differing(&right).is_empty());
        assert_eq!(left.total(), right.total());
        let swapped = buckets(&[("1", "20"), ("2", "10")]);
        assert!(!left.differing(&swapped).is_empty());
    }

    #[test]
    fn only_the_buckets_of_what_differs_are_looked_into() {
        let rows: Vec<(String, String)> = (0..1_000)
            .map(|id: u32| (id.to_string(), "1".to_owned()))
            .collect();
        let as_texts = |rows: &[(String, String)]| {
            let rows: Vec<(&str, &str)> = rows.iter().map(|(a, b)| (&a[..], &b[..])).collect();
            buckets(&rows)
        };
        let left = as_texts(&rows);
        let right = as_texts(&rows[..999]);
        let differing = left.differing(&right);
        assert_eq!(differing.0.iter().filter(|differs| **differs).count(), 1);
    }
}
