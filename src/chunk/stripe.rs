//! Cutting a table into stripes that are worked on side by side.

use super::{Key, Range};

/// Cuts the integers from `low` to `high` into at most `count` stripes of equal width.
///
/// The first and the last stripe are open, so that all keys are covered, also those outside
/// `low..=high` that only the other side has. With a composite key the cut is by its first column:
/// `key_len` bounds need one cell per column, so such a table is one stripe.
pub fn stripes(low: i128, high: i128, count: u32) -> Vec<Range> {
    let width = (high - low).max(0) / i128::from(count.max(1));
    let mut ranges = Vec::new();
    let mut after = None;
    if width > 0 {
        for part in 1..count {
            let bound = Key::new(vec![
                (low + width * i128::from(part)).to_string().into_bytes(),
            ]);
            ranges.push(Range {
                after,
                up_to: Some(bound.clone()),
            });
            after = Some(bound);
        }
    }
    ranges.push(Range { after, up_to: None });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_share_their_ends_and_are_open_outside() {
        let ranges = stripes(-10, 90, 4);
        assert_eq!(ranges.len(), 4);
        assert_eq!(ranges[0].after, None);
        assert_eq!(ranges[3].up_to, None);
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].up_to, pair[1].after);
        }
        assert_eq!(ranges[1].after, Some(Key::new(vec![b"15".to_vec()])));
    }

    #[test]
    fn few_keys_are_one_stripe() {
        assert_eq!(stripes(5, 6, 4), [Range::default()]);
        assert_eq!(stripes(0, 0, 1), [Range::default()]);
    }

    #[test]
    fn the_whole_range_of_unsigned_bigints_fits() {
        assert_eq!(stripes(0, i128::from(u64::MAX), 8).len(), 8);
    }
}
