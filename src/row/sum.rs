//! The digest of a set of rows: a sum that needs no order, merges and can be taken apart.

use super::RowDigest;
use std::fmt;
use std::iter;
use std::ops::{Add, AddAssign};

/// The sum of row digests modulo 2^256, and how many rows went into it.
///
/// Unlike an exclusive or of checksums it counts duplicates and sees two rows that swapped a
/// value; unlike a hash of a stream it needs no order, so that chunks may be cut anywhere.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sum {
    limbs: [u64; 4],
    rows: u64,
}

impl Sum {
    /// Adds one row.
    pub fn add_row(&mut self, digest: &RowDigest) {
        self.add_limbs(limbs_of(digest));
        self.rows += 1;
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
        self.rows += other.rows;
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
    fn carries_run_through_all_limbs() {
        let mut sum = Sum {
            limbs: [u64::MAX; 4],
            rows: 1,
        };
        sum.add_limbs([1, 0, 0, 0]);
        assert_eq!(sum.limbs, [0; 4]);
    }
}
