//! The ledger: the digest of a table's rows by buckets of their keys' hashes, carried from fence to
//! fence by what the feed says came and went.

use super::bucket::bucket_of;
use crate::row::{RowDigest, SUM_BYTES, Sum};
use crate::schema::Table;
use std::collections::BTreeMap;

/// The most buckets of a ledger, and those of a change: all of them take 10 KiB. A table is read whole
/// whatever its buckets say, so that more of them would tell nobody more.
const BUCKETS_MAX: u16 = 256;

/// How many rows a bucket has on average in a table that has not yet as many buckets as there can be.
/// A table with fewer rows has one bucket: thousands of small tables take a few bytes each (INV-8).
const ROWS_PER_BUCKET: u64 = 4_096;

/// The bucket of a key in a ledger that has as many as there can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bucket(u16);

impl Bucket {
    /// Returns the bucket of the key with this digest.
    pub fn of(key: &RowDigest) -> Bucket {
        Bucket(place(bucket_of(key), BUCKETS_MAX))
    }

    /// Takes a bucket from where it was stored.
    pub fn from_le_bytes(bytes: [u8; 2]) -> Bucket {
        Bucket(u16::from_le_bytes(bytes) % BUCKETS_MAX)
    }

    /// Returns the bytes by which a bucket is stored.
    pub fn to_le_bytes(self) -> [u8; 2] {
        self.0.to_le_bytes()
    }
}

/// Returns the place that a bucket of more has among fewer; both numbers are powers of two.
fn place(bucket: usize, buckets: u16) -> u16 {
    u16::try_from(bucket % usize::from(buckets)).expect("below a number of 16 bits")
}

/// Sums of row digests by buckets of their keys' hashes. It is the digest of a set of rows, or a change
/// of one: what was added, less what was removed.
///
/// D(W') = D(W) + sum h(new) - sum h(old), with the first old and the last new image of each key that
/// changed between W and W'. Order, grouping and repetition of the changes leave no trace in it, so
/// that the ledger of a table is what its rows alone would give (INV-4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ledger {
    /// A power of two.
    buckets: u16,
    /// The sums of the buckets that are not empty.
    sums: BTreeMap<u16, Sum>,
}

impl Default for Ledger {
    /// Makes the ledger of no rows, and of no change.
    fn default() -> Self {
        Ledger {
            buckets: BUCKETS_MAX,
            sums: BTreeMap::new(),
        }
    }
}

impl Ledger {
    /// Adds a row.
    pub fn add(&mut self, bucket: Bucket, row: &RowDigest) {
        self.change(bucket, |sum| sum.add_row(row));
    }

    /// Removes a row as it was.
    pub fn remove(&mut self, bucket: Bucket, row: &RowDigest) {
        self.change(bucket, |sum| sum.remove_row(row));
    }

    fn change(&mut self, bucket: Bucket, change: impl FnOnce(&mut Sum)) {
        let bucket = bucket.0 % self.buckets;
        let sum = self.sums.entry(bucket).or_default();
        change(sum);
        if sum.is_empty() {
            self.sums.remove(&bucket);
        }
    }

    /// Adds the rows of a set of which bucket by bucket only the sums are known; there must be at least
    /// as many buckets as a ledger has.
    pub(super) fn add_sums(&mut self, sums: &[Sum]) {
        for (bucket, sum) in sums.iter().enumerate() {
            self.add_sum(place(bucket, self.buckets), *sum);
        }
    }

    fn add_sum(&mut self, bucket: u16, sum: Sum) {
        let there = self.sums.entry(bucket).or_default();
        *there += sum;
        if there.is_empty() {
            self.sums.remove(&bucket);
        }
    }

    /// Adds another one: a change to what it changes, the rows of a part of a table to those of another.
    /// The result has as many buckets as the coarser of the two.
    pub fn merge(&mut self, other: &Ledger) {
        self.coarsen(other.buckets);
        for (bucket, sum) in &other.sums {
            self.add_sum(bucket % self.buckets, *sum);
        }
    }

    fn coarsen(&mut self, buckets: u16) {
        if buckets < self.buckets {
            self.buckets = buckets;
            for (bucket, sum) in std::mem::take(&mut self.sums) {
                self.add_sum(bucket % buckets, sum);
            }
        }
    }

    /// Returns the ledger of a set of rows with no more buckets than its rows are worth.
    #[must_use]
    pub fn fitted(mut self) -> Ledger {
        let wanted = (self.total().rows() / ROWS_PER_BUCKET).max(1);
        let mut buckets = 1;
        while u64::from(buckets) < wanted && buckets < BUCKETS_MAX {
            buckets *= 2;
        }
        self.coarsen(buckets);
        self
    }

    /// Returns the digest of all rows.
    pub fn total(&self) -> Sum {
        let sums = self.sums.values();
        sums.fold(Sum::default(), |total, sum| total + *sum)
    }

    /// Returns in how many buckets two sets of rows differ, and how many buckets there are.
    pub fn differing(&self, other: &Ledger) -> (usize, usize) {
        let (mut left, mut right) = (self.clone(), other.clone());
        left.coarsen(right.buckets);
        right.coarsen(left.buckets);
        let differs = |bucket: &u16| left.sums.get(bucket) != right.sums.get(bucket);
        let differing = (0..left.buckets).filter(differs).count();
        (differing, usize::from(left.buckets))
    }

    /// Returns about what the ledger takes in memory.
    pub fn byte_len(&self) -> usize {
        self.sums.len() * (2 + SUM_BYTES)
    }

    /// Returns the bytes by which the ledger is stored.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 + self.sums.len() * (2 + SUM_BYTES));
        bytes.extend_from_slice(&self.buckets.to_le_bytes());
        for (bucket, sum) in &self.sums {
            bytes.extend_from_slice(&bucket.to_le_bytes());
            bytes.extend_from_slice(&sum.to_bytes());
        }
        bytes
    }

    /// Reads a ledger from the bytes by which it was stored; none if they are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Ledger> {
        let (buckets, rest) = bytes.split_first_chunk()?;
        let buckets = u16::from_le_bytes(*buckets);
        let entries = rest.chunks_exact(2 + SUM_BYTES);
        if !buckets.is_power_of_two() || buckets > BUCKETS_MAX || !entries.remainder().is_empty() {
            return None;
        }
        let mut sums = BTreeMap::new();
        for entry in entries {
            let (bucket, sum) = entry.split_first_chunk()?;
            let bucket = u16::from_le_bytes(*bucket);
            let sum = Sum::from_bytes(sum.try_into().ok()?);
            if bucket >= buckets || sum.is_empty() || sums.insert(bucket, sum).is_some() {
                return None;
            }
        }
        Some(Ledger { buckets, sums })
    }
}

/// Returns why no ledger is kept of a table, if none can be.
pub fn ledger_obstacle(table: &Table) -> Option<&'static str> {
    if table.key_len == 0 {
        Some("the table has no key: what the feed repeats looks like another copy of a row")
    } else if table.filter.is_some() {
        Some("the table has a filter, which only the source can evaluate")
    } else if table.columns.iter().any(|column| column.is_virtual()) {
        Some("the table has virtual columns, which the feed does not send")
    } else if table.columns.iter().any(|column| column.policy.is_some()) {
        Some("the table has columns that are compared by policies, and a digest knows none")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::{Buckets, RowHasher};
    use crate::row::{DigestKey, Policy, Rows};
    use crate::schema::testing::integer_table;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn key() -> DigestKey {
        DigestKey::from_bytes([3; 32])
    }

    fn digests(id: u32, value: u32) -> (Bucket, RowDigest) {
        let key = key();
        let row = key.row(format!("{id}:{value}").as_bytes());
        (Bucket::of(&key.row(id.to_string().as_bytes())), row)
    }

    fn of_rows(rows: impl IntoIterator<Item = (u32, u32)>) -> Ledger {
        let mut ledger = Ledger::default();
        for (id, value) in rows {
            let (bucket, row) = digests(id, value);
            ledger.add(bucket, &row);
        }
        ledger
    }

    #[test]
    fn buckets_grow_with_the_rows() {
        let buckets = |rows: u32| {
            let ledger = of_rows((0..rows).map(|id| (id, 1))).fitted();
            (ledger.buckets, ledger.total().rows())
        };
        assert_eq!(buckets(0), (1, 0));
        assert_eq!(buckets(4_096), (1, 4_096));
        assert_eq!(buckets(20_000), (4, 20_000));
    }

    #[test]
    fn inv_8_a_ledger_never_takes_more_than_its_buckets() {
        let ledger = of_rows((0..50_000).map(|id| (id, 1)));
        assert_eq!(ledger.sums.len(), usize::from(BUCKETS_MAX));
        assert!(ledger.to_bytes().len() < 11_000);
        assert_eq!(of_rows([(1, 1)]).fitted().to_bytes().len(), 44);
    }

    #[test]
    fn the_bucket_of_what_differs_is_the_only_one_that_does() {
        let rows = || (0..20_000).map(|id| (id, 1));
        let equal = of_rows(rows()).fitted();
        assert_eq!(equal.differing(&of_rows(rows())), (0, 4));
        let swapped = of_rows(rows().map(|(id, value)| (id, value + u32::from(id == 7))));
        assert_eq!(equal.differing(&swapped), (1, 4));
    }

    #[test]
    fn buckets_of_a_whole_read_are_the_same_ledger() {
        let mut rows = Rows::new();
        for id in 0..1_000 {
            let id = id.to_string();
            rows.push_row([Some(id.as_bytes()), Some(b"5".as_slice())]);
        }
        let table = integer_table("s", "t");
        let mut hasher = RowHasher::new(&table, &key());
        let mut buckets = Buckets::default();
        buckets.add(&mut hasher, &rows).expect("integers");
        let mut ledger = Ledger::default();
        for row in rows.iter() {
            let (bucket, row) = hasher.bucket_and_row(row).expect("integers");
            ledger.add(bucket, &row);
        }
        assert_eq!(buckets.ledger(), ledger);
        assert_eq!(ledger.total(), buckets.total());
    }

    #[test]
    fn damaged_bytes_are_no_ledger() {
        let bytes = of_rows([(1, 1), (2, 2)]).to_bytes();
        assert!(Ledger::from_bytes(&bytes).is_some());
        assert!(Ledger::from_bytes(&bytes[..bytes.len() - 1]).is_none());
        assert!(Ledger::from_bytes(&[3, 0]).is_none());
        assert!(Ledger::from_bytes(&[]).is_none());
        let twice = [&bytes[..], &bytes[2..]].concat();
        assert!(Ledger::from_bytes(&twice).is_none());
    }

    #[test]
    fn a_table_that_no_ledger_can_be_kept_of_says_why() {
        let mut table = integer_table("s", "t");
        assert_eq!(ledger_obstacle(&table), None);
        table.columns[1].policy = Some(Policy::Ignore);
        assert!(ledger_obstacle(&table).is_some_and(|why| why.contains("policies")));
        table.filter = Some("value > 1".to_owned());
        assert!(ledger_obstacle(&table).is_some_and(|why| why.contains("filter")));
        table.key_len = 0;
        assert!(ledger_obstacle(&table).is_some_and(|why| why.contains("no key")));
    }

    proptest! {
        #[test]
        fn inv_4_a_ledger_is_what_its_rows_alone_would_give(
            history in prop::collection::vec((0..40_u32, prop::option::of(0..5_u32)), 0..300),
            cut in 1..20_usize,
        ) {
            let mut rows: HashMap<u32, u32> = HashMap::new();
            let mut carried = Ledger::default();
            for changes in history.chunks(cut) {
                let mut change = Ledger::default();
                for (id, value) in changes {
                    let before = match value {
                        Some(value) => rows.insert(*id, *value),
                        None => rows.remove(id),
                    };
                    if let Some(before) = before {
                        let (bucket, row) = digests(*id, before);
                        change.remove(bucket, &row);
                    }
                    if let Some(value) = value {
                        let (bucket, row) = digests(*id, *value);
                        change.add(bucket, &row);
                    }
                }
                // What is stored is what is carried on.
                let change = Ledger::from_bytes(&change.to_bytes()).expect("a change");
                carried.merge(&change);
                let alone = of_rows(rows.iter().map(|(id, value)| (*id, *value)));
                prop_assert_eq!(&carried, &alone);
                prop_assert_eq!(carried.clone().fitted().differing(&alone).0, 0);
            }
        }
    }
}
