//! The comparison of one chunk or one batch of keys.

use super::{Bucket, Counted, Ledger, RowHasher, compare_copies};
use crate::row::{Canonical, CellError, Cells, DigestKey, Kind, Policy, RowDigest, Rows, Sum};
use crate::schema::Table;
use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;

/// In what way a row differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DifferenceKind {
    /// Only the source has it.
    Missing,
    /// Only the target has it.
    Extra,
    /// Both have it, with different columns.
    Changed,
}

/// One row that differs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Difference {
    /// In what way.
    pub kind: DifferenceKind,
    /// The packed key.
    pub key: Vec<u8>,
    /// The packed row on the source, if it is there.
    pub source: Option<Vec<u8>>,
    /// The packed row on the target, if it is there.
    pub target: Option<Vec<u8>>,
    /// The places in layout order of the columns that differ; of a changed row only.
    pub columns: Vec<usize>,
}

/// What the comparison of a set of rows found.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// The digests and counts.
    pub tally: Tally,
    /// The rows that differ.
    pub differences: Vec<Difference>,
    /// The ledger of the source's rows, if it was asked for.
    pub ledger: Option<Ledger>,
}

/// What comparisons found, without the rows: it adds up over parts of any number (INV-8).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// The digest of the rows on the source.
    pub source: Sum,
    /// The digest of the rows on the target.
    pub target: Sum,
    /// Rows that only the source has.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows of one key whose columns differ.
    pub changed: u64,
    /// Rows of one key that differ, and are accepted as equal by the policies of their columns.
    pub relaxed: u64,
}

impl Tally {
    /// Returns how many rows differ.
    pub fn differences(&self) -> u64 {
        self.missing + self.extra + self.changed
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.source += other.source;
        self.target += other.target;
        self.missing += other.missing;
        self.extra += other.extra;
        self.changed += other.changed;
        self.relaxed += other.relaxed;
    }
}

/// Compares the rows that both sides have in one range of keys, or of one list of keys.
///
/// Rows are paired by canonical key, so that nothing depends on the order in which a server sent
/// them. While both sides send the same rows in the same order, which is the rule, packed bytes
/// are compared: both renderings are lossless, so that equal bytes are equal values. Rows of a table
/// without a key are counted. With `ledger` that of the source's rows is made on the way; only a table
/// with a key can have one.
///
/// # Errors
/// If a cell is no value of its column's type.
pub fn compare(
    table: &Table,
    key: &DigestKey,
    (source, target): (&Rows, &Rows),
    ledger: bool,
) -> Result<Comparison, CellError> {
    if table.key_len == 0 {
        let mut hasher = RowHasher::new(table, key);
        let (mut on_source, mut on_target) = (Counted::default(), Counted::default());
        on_source.add(&mut hasher, source)?;
        on_target.add(&mut hasher, target)?;
        return Ok(compare_copies(&on_source, &on_target));
    }
    let mut comparing = Comparing {
        kinds: table.kinds(),
        policies: table.columns.iter().map(|column| column.policy).collect(),
        key_len: table.key_len,
        key,
        canonical: Canonical::new(),
        result: Comparison {
            ledger: ledger.then(Ledger::default),
            ..Comparison::default()
        },
    };
    let common = source.len().min(target.len());
    let mut place = 0;
    while place < common && comparing.same_key(source.packed(place), target.packed(place)) {
        comparing.pair(source.packed(place), target.packed(place))?;
        place += 1;
    }
    comparing.pair_by_key(source, target, place)?;
    Ok(comparing.result)
}

/// Drops the rows whose keys are not among `keys`, packed, byte by byte in canonical form: by a
/// collation a server finds 'A' where 'a' was asked for.
///
/// # Errors
/// If a cell is no value of its column's type.
pub fn retain_keys(table: &Table, rows: Rows, keys: &[&[u8]]) -> Result<Rows, CellError> {
    let kinds = &table.kinds()[..table.key_len];
    let exact = |kind: &Kind| matches!(kind, Kind::Integer | Kind::Decimal | Kind::Bytes);
    if kinds.iter().all(exact) {
        return Ok(rows);
    }
    let mut canonical = Canonical::new();
    let mut wanted = HashSet::new();
    for key in keys {
        wanted.insert(canonical.row(kinds, key)?.to_vec());
    }
    let mut retained = Rows::new();
    for row in rows.iter() {
        if wanted.contains(canonical.row(kinds, row)?) {
            retained.push_packed(row);
        }
    }
    Ok(retained)
}

struct Comparing<'a> {
    kinds: Vec<Kind>,
    policies: Vec<Option<Policy>>,
    key_len: usize,
    key: &'a DigestKey,
    canonical: Canonical,
    result: Comparison,
}

impl Comparing<'_> {
    fn same_key(&self, source: &[u8], target: &[u8]) -> bool {
        Cells::prefix(source, self.key_len) == Cells::prefix(target, self.key_len)
    }

    /// Compares two rows of one key.
    fn pair(&mut self, source: &[u8], target: &[u8]) -> Result<(), CellError> {
        let digest = self.add_source(source)?;
        if source == target {
            self.result.tally.target.add_row(&digest);
            return Ok(());
        }
        let other = self.key.row(self.canonical.row(&self.kinds, target)?);
        if digest == other {
            self.result.tally.target.add_row(&other);
            return Ok(());
        }
        let columns = self.differing_columns(source, target)?;
        if columns.is_empty() {
            // Accepted, so both sums take the source's: they say whether anything differs.
            self.result.tally.target.add_row(&digest);
            self.result.tally.relaxed += 1;
        } else {
            self.result.tally.target.add_row(&other);
            self.push(DifferenceKind::Changed, Some(source), Some(target), columns);
        }
        Ok(())
    }

    /// Returns the places of the columns that differ and that no policy accepts.
    fn differing_columns(&mut self, source: &[u8], target: &[u8]) -> Result<Vec<usize>, CellError> {
        let mut differing = Vec::new();
        for (place, (left, right)) in Cells::of(source).zip(Cells::of(target)).enumerate() {
            let kind = std::slice::from_ref(&self.kinds[place]);
            let mut cells = Rows::new();
            cells.push_row([left]);
            cells.push_row([right]);
            let left = self.canonical.row(kind, cells.packed(0))?.to_vec();
            let same = left == self.canonical.row(kind, cells.packed(1))?;
            let (left, right) = (cells.cells(0).next(), cells.cells(1).next());
            let accepted =
                |policy: Policy| policy.accepts(&kind[0], left.flatten(), right.flatten());
            if !same && !self.policies[place].is_some_and(accepted) {
                differing.push(place);
            }
        }
        Ok(differing)
    }

    /// Pairs the rows from `place` on by their canonical keys.
    fn pair_by_key(&mut self, source: &Rows, target: &Rows, place: usize) -> Result<(), CellError> {
        let mut unpaired: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for row in place..target.len() {
            unpaired
                .entry(self.canonical_key(target.packed(row))?)
                .or_default()
                .push(row);
        }
        for row in place..source.len() {
            let row = source.packed(row);
            match unpaired
                .get_mut(&self.canonical_key(row)?)
                .and_then(Vec::pop)
            {
                Some(other) => self.pair(row, target.packed(other))?,
                None => {
                    self.add_source(row)?;
                    self.push(DifferenceKind::Missing, Some(row), None, Vec::new());
                }
            }
        }
        let mut extra: Vec<usize> = unpaired.into_values().flatten().collect();
        extra.sort_unstable();
        for row in extra {
            let digest = self.digest(target.packed(row))?;
            self.result.tally.target.add_row(&digest);
            self.push(
                DifferenceKind::Extra,
                None,
                Some(target.packed(row)),
                Vec::new(),
            );
        }
        Ok(())
    }

    fn canonical_key(&mut self, row: &[u8]) -> Result<Vec<u8>, CellError> {
        Ok(self
            .canonical
            .row(&self.kinds[..self.key_len], row)?
            .to_vec())
    }

    fn digest(&mut self, row: &[u8]) -> Result<RowDigest, CellError> {
        Ok(self.key.row(self.canonical.row(&self.kinds, row)?))
    }

    /// Counts a row of the source, and returns its digest.
    fn add_source(&mut self, row: &[u8]) -> Result<RowDigest, CellError> {
        let (key, row) = self.canonical.keyed_row(&self.kinds, self.key_len, row)?;
        let digest = self.key.row(row);
        if let Some(ledger) = &mut self.result.ledger {
            ledger.add(Bucket::of(&self.key.row(key)), &digest);
        }
        self.result.tally.source.add_row(&digest);
        Ok(digest)
    }

    fn push(
        &mut self,
        kind: DifferenceKind,
        source: Option<&[u8]>,
        target: Option<&[u8]>,
        columns: Vec<usize>,
    ) {
        match kind {
            DifferenceKind::Missing => self.result.tally.missing += 1,
            DifferenceKind::Extra => self.result.tally.extra += 1,
            DifferenceKind::Changed => self.result.tally.changed += 1,
        }
        let key = Cells::prefix(source.or(target).unwrap_or_default(), self.key_len).to_vec();
        self.result.differences.push(Difference {
            kind,
            key,
            source: source.map(<[u8]>::to_vec),
            target: target.map(<[u8]>::to_vec),
            columns,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;
    use crate::schema::testing::{column, part, table};

    fn people() -> Table {
        let columns = vec![
            column("id", 1, "bigint(20)", false),
            column("name", 2, "varchar(20)", true),
            column("amount", 3, "decimal(9,2)", true),
        ];
        table(
            TableName::new("s", "people"),
            columns,
            vec![part("PRIMARY", true, 1, "id")],
        )
    }

    fn rows(cells: &[[Option<&str>; 3]]) -> Rows {
        let mut rows = Rows::new();
        for row in cells {
            rows.push_row(row.iter().map(|cell| cell.map(str::as_bytes)));
        }
        rows
    }

    fn run(source: &[[Option<&str>; 3]], target: &[[Option<&str>; 3]]) -> Comparison {
        let key = DigestKey::from_bytes([1; 32]);
        compare(&people(), &key, (&rows(source), &rows(target)), false).expect("valid cells")
    }

    const ALICE: [Option<&str>; 3] = [Some("1"), Some("alice"), Some("1.00")];
    const BOBBY: [Option<&str>; 3] = [Some("2"), Some("bobby"), Some("2.00")];

    #[test]
    fn equal_rows_in_any_order_are_equal() {
        let result = run(&[ALICE, BOBBY], &[BOBBY, ALICE]);
        assert!(result.differences.is_empty());
        assert_eq!(result.tally.source, result.tally.target);
        assert_eq!(result.tally.source.rows(), 2);
    }

    #[test]
    fn equal_values_in_other_text_are_equal() {
        let result = run(&[ALICE], &[[Some("01"), Some("alice"), Some("1.0")]]);
        assert!(result.differences.is_empty());
        assert_eq!(result.tally.source, result.tally.target);
    }

    #[test]
    fn two_rows_that_swapped_a_value_are_both_found() {
        let swapped = [
            [ALICE[0], BOBBY[1], ALICE[2]],
            [BOBBY[0], ALICE[1], BOBBY[2]],
        ];
        let result = run(&[ALICE, BOBBY], &swapped);
        let columns: Vec<_> = result
            .differences
            .iter()
            .map(|found| found.columns.clone())
            .collect();
        assert_eq!(columns, [vec![1], vec![1]]);
        assert_ne!(result.tally.source, result.tally.target);
    }

    #[test]
    fn missing_and_extra_rows_are_told_apart() {
        let result = run(&[ALICE, BOBBY], &[BOBBY, [Some("3"), None, None]]);
        let kinds: Vec<_> = result.differences.iter().map(|found| found.kind).collect();
        assert_eq!(kinds, [DifferenceKind::Missing, DifferenceKind::Extra]);
        assert_eq!(
            (result.tally.source.rows(), result.tally.target.rows()),
            (2, 2)
        );
    }

    #[test]
    fn rows_that_a_collation_found_beside_are_dropped() {
        let columns = vec![column("k", 1, "varchar(9)", false)];
        let parts = vec![part("PRIMARY", true, 1, "k")];
        let table = table(TableName::new("s", "t"), columns, parts);
        let pack = |keys: &[&str]| {
            let mut rows = Rows::new();
            for key in keys {
                rows.push_row([Some(key.as_bytes())]);
            }
            rows
        };
        let asked = pack(&["a", "b"]);
        let asked: Vec<&[u8]> = asked.iter().collect();
        let found = retain_keys(&table, pack(&["a", "A", "a "]), &asked).expect("valid cells");
        assert_eq!(found.iter().collect::<Vec<_>>(), [asked[0]]);
    }

    #[test]
    fn what_a_policy_accepts_is_counted_and_what_it_does_not_is_named() {
        let mut table = people();
        table.columns[1].policy = Some(Policy::TrailingSpaces);
        let key = DigestKey::from_bytes([1; 32]);
        let spaced = [ALICE[0], Some("alice  "), ALICE[2]];
        let other = [BOBBY[0], Some("bobby "), Some("2.01")];
        let result = compare(
            &table,
            &key,
            (&rows(&[ALICE, BOBBY]), &rows(&[spaced, other])),
            false,
        );
        let result = result.expect("valid cells");
        assert_eq!(result.tally.relaxed, 1);
        assert_eq!(result.differences.len(), 1);
        assert_eq!(result.differences[0].columns, [2]);
        assert_ne!(result.tally.source, result.tally.target);
        let result =
            compare(&table, &key, (&rows(&[ALICE]), &rows(&[spaced])), false).expect("valid cells");
        assert_eq!((result.tally.relaxed, result.differences.len()), (1, 0));
        assert_eq!(result.tally.source, result.tally.target);
        let strict = run(&[ALICE], &[spaced]);
        assert_eq!((strict.tally.relaxed, strict.differences.len()), (0, 1));
    }

    #[test]
    fn null_and_empty_differ() {
        let result = run(&[[Some("1"), None, None]], &[[Some("1"), Some(""), None]]);
        assert_eq!(result.differences[0].columns, [1]);
    }
}
