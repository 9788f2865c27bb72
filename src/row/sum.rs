//! The digest of a set of rows: a sum that needs no order, merges and can be taken apart.

use super::RowDigest;
use std::fmt;
use std::iter;
use std::ops::{Add, AddAssign};

/// The bytes of a sum where it is stored.
pub const SUM_BYTES: usize = 40;

/// The sum of row digests modulo 2^256, and how many rows went into it.
///
/// Unlike an exclusive or of checksums it counts duplicates and sees two rows that swapped a
/// value; unlike a hash of a stream it needs no order, so that chunks may be cut anywhere. What was
/// never added may be removed: the result is then a change, whose number of rows stands for a
/// negative one modulo 2^64, and which is a sum again once it is added to one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sum {
    limbs: [u64; 4],
    rows: u64,
}

impl Sum {
    /// Adds one row.
    pub fn add_row(&mut self, digest: &RowDigest) {
        self.add_limbs(limbs_of(digest));
        self.rows = self.rows.wrapping_add(1);
    }

    /// Removes one row.
    pub fn remove_row(&mut self, digest: &RowDigest) {
        // The complement of a number and one more is what takes it back.
        self.add_limbs(limbs_of(digest).map(|limb| !limb));
        self.add_limbs([1, 0, 0, 0]);
        self.rows = self.rows.wrapping_sub(1);
    }

    /// Tells whether nothing is in the sum.
    pub fn is_empty(&self) -> bool {
        *self == Sum::default()
    }

    /// Returns the bytes by which the sum is stored.
    pub fn to_bytes(&self) -> [u8; SUM_BYTES] {
        let mut bytes = [0; SUM_BYTES];
        let numbers = self.limbs.iter().chain([&self.rows]);
        for (place, number) in iter::zip(bytes.chunks_exact_mut(8), numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads a sum from the bytes by which it was stored.
    pub fn from_bytes(bytes: &[u8; SUM_BYTES]) -> Sum {
        let number = |place: usize| {
            let bytes = bytes[place * 8..][..8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes"))
        };
        Sum {
            limbs: [number(0), number(1), number(2), number(3)],
            rows: number(4),
        }
    }

    /// Returns the number of rows in the sum.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn add_limbs(&mut self, other: [u64; 4]) {
        let mut carry = false;
        for (limb, add) in iter::zip(&mut self.limbs, other) {
            let (sum, over) = limb.overflowing_add(add);
            let (sum, over_by_carry) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over || over_by_carry;
        }
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Sum) {
        self.add_limbs(other.limbs);
        self.rows = self.rows.wrapping_add(other.rows);
    }
}

impl Add for Sum {
    type Output = Sum;

    fn add(mut self, other: Sum) -> Sum {
        self += other;
        self
    }
}

impl fmt::Display for Sum {
    /// Prints the sum as 64 hexadecimal digits, most significant first, and the row count.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for limb in self.limbs.iter().rev() {
            write!(f, "{limb:016x}")?;
        }
        write!(f, "/{}", self.rows)
    }
}

fn limbs_of(digest: &RowDigest) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, bytes) in iter::zip(&mut limbs, digest.as_bytes().chunks_exact(8)) {
        *limb = u64::from_le_bytes(bytes.try_into().expect("a chunk of eight bytes"));
    }
    limbs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::DigestKey;

    fn digest(text: &str) -> RowDigest {
        DigestKey::from_bytes([7; 32]).row(text.as_bytes())
    }

    fn sum(rows: &[&str]) -> Sum {
        let mut sum = Sum::default();
        for row in rows {
            sum.add_row(&digest(row));
        }
        sum
    }

    #[test]
    fn order_and_grouping_do_not_matter() {
        assert_eq!(sum(&["a", "b", "c"]), sum(&["c", "a", "b"]));
        assert_eq!(sum(&["a", "b"]) + sum(&["c"]), sum(&["a", "b", "c"]));
    }

    #[test]
    fn duplicates_count() {
        assert_ne!(sum(&["a", "a"]), sum(&["b", "b"]));
        assert_ne!(sum(&["a", "a", "b"]), sum(&["b"]));
    }

    #[test]
    fn what_is_removed_was_never_there_in_whatever_order() {
        let mut changed = sum(&["a", "b"]);
        changed.remove_row(&digest("a"));
        assert_eq!(changed, sum(&["b"]));
        let mut change = Sum::default();
        change.remove_row(&digest("b"));
        change.remove_row(&digest("a"));
        change.add_row(&digest("c"));
        assert_eq!(sum(&["a", "b", "d"]) + change, sum(&["c", "d"]));
        assert!((sum(&["a", "b"]) + change + sum(&["d"])).rows() == 2);
        assert_eq!(Sum::from_bytes(&change.to_bytes()), change);
        change.add_row(&digest("a"));
        change.add_row(&digest("b"));
        change.remove_row(&digest("c"));
        assert!(change.is_empty());
    }

    #[test]
    fn carries_run_through_all_limbs() {
        let mut sum = Sum {
            limbs: [u64::MAX; 4],
            rows: 1,
        };
        sum.add_limbs([1, 0, 0, 0]);
        assert_eq!(sum.limbs, [0; 4]);
    }
}
