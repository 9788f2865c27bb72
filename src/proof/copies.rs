//! Rows without a key: how often each side holds the same row.

use super::{Comparison, Difference, DifferenceKind, RowHasher, Tally};
use crate::row::{CellError, Cells, RowDigest, Rows, Sum};
use std::collections::{BTreeMap, HashMap};

/// How many copies of one row that differ are listed one by one; all are counted.
const COPIES_LISTED: u64 = 1_000;

/// A row and how often it is there.
#[derive(Clone, Debug)]
pub struct Copies {
    /// The packed row, as the side that was counted printed it first.
    pub row: Vec<u8>,
    /// How often it is there.
    pub count: u64,
}

/// The rows of one side as a multiset. It holds each row once, however many copies there are.
#[derive(Debug, Default)]
pub struct Counted {
    rows: HashMap<RowDigest, Copies>,
    sum: Sum,
}

impl Counted {
    /// Counts rows.
    ///
    /// # Errors
    /// If a cell is no value of its column's type.
    pub fn add(&mut self, hasher: &mut RowHasher, rows: &Rows) -> Result<(), CellError> {
        for row in rows.iter() {
            let digest = hasher.row(row)?;
            self.add_row(digest, row);
        }
        Ok(())
    }

    /// Counts one row with this digest.
    pub fn add_row(&mut self, digest: RowDigest, row: &[u8]) {
        self.sum.add_row(&digest);
        let copies = self.rows.entry(digest).or_insert_with(|| Copies {
            row: row.to_vec(),
            count: 0,
        });
        copies.count += 1;
    }

    /// Returns the row with this digest and how often it is there.
    pub fn get(&self, digest: &RowDigest) -> Option<&Copies> {
        self.rows.get(digest)
    }

    fn count(&self, digest: &RowDigest) -> u64 {
        self.get(digest).map_or(0, |copies| copies.count)
    }
}

/// Compares the multisets of both sides. Each copy that one side lacks is a difference of its own,
/// whose key is [`copy_key`].
pub fn compare_copies(source: &Counted, target: &Counted) -> Comparison {
    let mut result = Comparison {
        tally: Tally {
            source: source.sum,
            target: target.sum,
            ..Tally::default()
        },
        ..Comparison::default()
    };
    let digests = source.rows.keys().chain(target.rows.keys());
    // One order makes lists and tests repeatable.
    let digests: BTreeMap<&[u8; 32], &RowDigest> =
        digests.map(|digest| (digest.as_bytes(), digest)).collect();
    for digest in digests.into_values() {
        let (on_source, on_target) = (source.count(digest), target.count(digest));
        let (kind, side) = match on_source.cmp(&on_target) {
            std::cmp::Ordering::Equal => continue,
            std::cmp::Ordering::Greater => (DifferenceKind::Missing, source),
            std::cmp::Ordering::Less => (DifferenceKind::Extra, target),
        };
        let surplus = on_source.abs_diff(on_target);
        match kind {
            DifferenceKind::Missing => result.tally.missing += surplus,
            _ => result.tally.extra += surplus,
        }
        let row = side.get(digest).map(|copies| copies.row.clone());
        let common = on_source.min(on_target);
        let missing = kind == DifferenceKind::Missing;
        let listed = surplus.min(COPIES_LISTED);
        for place in 1..=listed {
            // A statement for each names the number that must be reached: the last copy goes first,
            // and the first one comes first.
            let copy = common + if missing { place } else { listed + 1 - place };
            result.differences.push(Difference {
                kind,
                key: copy_key(digest, copy),
                source: row.clone().filter(|_| missing),
                target: row.clone().filter(|_| !missing),
                columns: Vec::new(),
            });
        }
    }
    result
}

/// Returns the key by which the copy with this number, counted from 1, of a row is known: two packed
/// cells, the digest and the number.
pub fn copy_key(digest: &RowDigest, copy: u64) -> Vec<u8> {
    let mut key = Rows::new();
    let number = copy.to_string();
    key.push_row([Some(digest.as_bytes().as_slice()), Some(number.as_bytes())]);
    key.packed(0).to_vec()
}

/// Returns the number of the copy from its key.
pub fn copy_number(key: &[u8]) -> Option<u64> {
    let number = Cells::of(key).nth(1)??;
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::DigestKey;
    use crate::schema::TableName;
    use crate::schema::testing::{column, table};

    fn counted(cells: &[Option<&str>]) -> Counted {
        let columns = vec![column("a", 1, "varchar(9)", true)];
        let table = table(TableName::new("s", "t"), columns, Vec::new());
        let mut hasher = RowHasher::new(&table, &DigestKey::from_bytes([1; 32]));
        let mut rows = Rows::new();
        for cell in cells {
            rows.push_row([cell.map(str::as_bytes)]);
        }
        let mut counted = Counted::default();
        counted.add(&mut hasher, &rows).expect("valid cells");
        counted
    }

    #[test]
    fn every_copy_counts_and_null_is_a_value_of_its_own() {
        let source = counted(&[Some("x"), Some("x"), Some("x"), None]);
        let target = counted(&[Some("x"), Some(""), None, None]);
        let found = compare_copies(&source, &target);
        assert_eq!((found.tally.missing, found.tally.extra), (2, 2));
        let mut missing: Vec<_> = found
            .differences
            .iter()
            .filter(|found| found.kind == DifferenceKind::Missing)
            .map(|found| Cells::of(&found.key).nth(1).flatten().expect("a number"))
            .collect();
        missing.sort_unstable();
        assert_eq!(missing, [b"2", b"3"], "the second and the third copy");
        let same = compare_copies(&source, &counted(&[None, Some("x"), Some("x"), Some("x")]));
        assert!(same.differences.is_empty() && same.tally.source == same.tally.target);
    }

    #[test]
    fn inv_8_a_crowd_of_copies_is_counted_and_not_listed() {
        let crowd = vec![Some("x"); 5_000];
        let found = compare_copies(&counted(&[]), &counted(&crowd));
        assert_eq!(found.tally.extra, 5_000);
        assert_eq!(found.differences.len() as u64, COPIES_LISTED);
    }
}
