//! The condition by which rows are looked up and deleted.

use super::statement::{key_tuple, push_key};
use crate::row::{Cells, Kind};
use crate::schema::{Table, quote};

/// How many keys a run must have on average to be looked up as a range. Of a table in many partitions a range
/// asks each of them, and a list only those of its keys.
const KEYS_PER_RUN: usize = 16;

/// Returns the condition that finds the rows with these packed keys, and no others.
///
/// Whole numbers that follow each other, as those of rows that are inserted do, are looked up as ranges: TiDB
/// was seen to take half the processor time for 500 keys that it takes for a list of them, OceanBase two
/// thirds, for reading them as for deleting them.
pub fn lookup_condition<'a>(table: &Table, keys: impl IntoIterator<Item = &'a [u8]>) -> String {
    let keys: Vec<&[u8]> = keys.into_iter().collect();
    match runs(table, &keys) {
        Some(runs) => ranges(table, &runs),
        None => list(table, &keys),
    }
}

fn list(table: &Table, keys: &[&[u8]]) -> String {
    let mut sql = format!("{} IN (", key_tuple(table));
    for (place, key) in keys.iter().enumerate() {
        if place > 0 {
            sql.push_str(", ");
        }
        push_key(table, key, &mut sql);
    }
    sql.push(')');
    sql
}

fn ranges(table: &Table, runs: &[(i128, i128)]) -> String {
    let name = quote(&table.key()[0].name);
    let ranges = runs
        .iter()
        .map(|(first, last)| format!("{name} BETWEEN {first} AND {last}"));
    format!("({})", ranges.collect::<Vec<_>>().join(" OR "))
}

/// Returns the first and the last number of each run of keys, if the key is one whole number and the runs
/// are long.
fn runs(table: &Table, keys: &[&[u8]]) -> Option<Vec<(i128, i128)>> {
    let [column] = table.key() else { return None };
    if column.kind != Kind::Integer {
        return None;
    }
    let number = |key: &&[u8]| {
        let cell = Cells::of(key).next()??;
        std::str::from_utf8(cell).ok()?.parse::<i128>().ok()
    };
    let mut numbers = keys.iter().map(number).collect::<Option<Vec<_>>>()?;
    numbers.sort_unstable();
    let follows = |one: &i128, next: &i128| *next - *one <= 1;
    let runs = numbers
        .chunk_by(follows)
        .map(|run| (run[0], run[run.len() - 1]));
    let runs: Vec<_> = runs.collect();
    (runs.len() * KEYS_PER_RUN <= keys.len() && !runs.is_empty()).then_some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Rows;
    use crate::schema::testing::integer_table;
    use std::collections::BTreeSet;

    fn packed(numbers: impl Iterator<Item = i128>) -> Rows {
        let mut keys = Rows::new();
        for number in numbers {
            keys.push_row([Some(number.to_string().as_bytes())]);
        }
        keys
    }

    fn condition(numbers: impl Iterator<Item = i128>) -> String {
        lookup_condition(&integer_table("s", "t"), packed(numbers).iter())
    }

    #[test]
    fn numbers_that_follow_each_other_are_looked_up_as_ranges() {
        assert_eq!(condition(-20..20), "(`id` BETWEEN -20 AND 19)");
        assert_eq!(
            condition((0..40).rev().chain(100..140)),
            "(`id` BETWEEN 0 AND 39 OR `id` BETWEEN 100 AND 139)"
        );
        let last = i128::from(u64::MAX);
        assert_eq!(
            condition(last - 15..=last),
            "(`id` BETWEEN 18446744073709551600 AND 18446744073709551615)"
        );
    }

    #[test]
    fn other_numbers_are_looked_up_one_by_one() {
        assert_eq!(condition([3, 1, 2].into_iter()), "`id` IN (3, 1, 2)");
        let apart = condition((0..40).map(|n| 2 * n));
        assert!(apart.starts_with("`id` IN (0, 2, 4, "), "{apart}");
    }

    /// What is between two runs would look like a row that the feed never told of.
    #[test]
    fn ranges_hold_the_keys_and_no_others() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let mut keys = BTreeSet::new();
            while keys.len() < 200 {
                let from = random.i64(-3_000..3_000);
                keys.extend(from..from + random.i64(1..120));
            }
            let packed = packed(keys.iter().map(|key| i128::from(*key)));
            let packed: Vec<&[u8]> = packed.iter().collect();
            let Some(runs) = runs(&integer_table("s", "t"), &packed) else {
                continue;
            };
            let held: Vec<i64> = runs
                .into_iter()
                .flat_map(|(first, last)| first as i64..=last as i64)
                .collect();
            assert_eq!(held, keys.into_iter().collect::<Vec<_>>(), "seed {seed}");
        }
    }
}
