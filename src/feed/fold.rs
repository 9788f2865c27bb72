//! Folding a stretch of changes to the last image of each key.

use super::part::{Digest, LastImages, Step};
use super::{
    Backlog, Certainty, FoldedRow, Image, LastState, Origin, Packer, Part, Position, RowChange,
    Shapes, Zone,
};
use crate::error::Result;
use crate::proof::{Bucket, ledger_obstacle};
use crate::row::{Canonical, CellError, Cells, DigestKey, Kind, Rows, Spool};
use crate::schema::{Table, TableName};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The most parts into which a stretch is cut; each is a file while the stretch lasts.
const PARTS_MAX: usize = 128;

/// The changes for which another thread is worth its while.
const GROUP_OF_THREAD: usize = 512;

/// The last images of all keys that a stretch touched.
#[derive(Debug)]
pub struct Folded {
    /// The parts; a stretch that fits into memory is one.
    pub parts: Vec<Part>,
    /// How many changes were folded.
    pub changes: usize,
    /// Whether a change had an image of its row before and one after: the changefeed sends old
    /// values.
    pub old_values: bool,
}

/// A change that cannot be carried. It never holds a value (INV-7).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FoldError {
    /// The table.
    pub table: TableName,
    /// The message of the change.
    pub origin: Origin,
    /// What is wrong.
    pub what: String,
}

/// Folds those of the rows that `applies` names to the last image of each key, in whatever order
/// they come, or returns the earliest change that cannot be carried.
///
/// A stretch that does not fit into memory is cut by the hashes of the keys into parts that do.
/// TIMESTAMP values are converted from `zone` to UTC. `digest_key` is that of the ledgers.
///
/// # Errors
/// If rows on disk cannot be read or written.
pub fn fold(
    rows: &mut Backlog,
    tables: &BTreeMap<TableName, Arc<Table>>,
    zone: Zone,
    digest_key: &DigestKey,
    applies: impl Fn(&RowChange) -> bool + Sync,
) -> Result<std::result::Result<Folded, FoldError>> {
    let places: BTreeMap<&TableName, usize> = tables.keys().zip(0..).collect();
    let keyed: Vec<Keyed<'_>> = tables
        .values()
        .map(|table| Keyed::new(table, zone, digest_key))
        .collect();
    let taken_apart = |changes: &[(Position, RowChange)]| {
        let (mut apart, mut scratch) = (TakenApart::default(), Scratch::default());
        // An update takes a row away and brings one.
        apart.steps.reserve(2 * changes.len());
        for (position, change) in changes {
            let place = places.get(&*change.table).filter(|_| applies(change));
            if let Some(place) = place {
                apart.add(*place, &keyed[*place], *position, change, &mut scratch);
            }
        }
        apart
    };
    let mut folding = Folding::new(rows, tables)?;
    let mut unfit: Option<FoldError> = None;
    let mut changes = 0;
    let mut old_values = false;
    rows.for_each_group(|group| {
        // Decoding is what folding takes its time for, and no change needs another.
        let apart = group.par_chunks(GROUP_OF_THREAD).map(taken_apart);
        for apart in apart.collect::<Vec<_>>() {
            changes += apart.changes;
            old_values |= apart.old_values;
            unfit = earlier(unfit.take(), apart.unfit);
            let mut steps = apart.steps.into_iter();
            steps.try_for_each(|(place, step)| folding.add(place, step))?;
        }
        Ok(())
    })?;
    Ok(match unfit {
        Some(error) => Err(error),
        None => Ok(Folded {
            parts: folding.finish(),
            changes,
            old_values,
        }),
    })
}

/// The steps of a stretch while they are gathered.
struct Folding {
    tables: Arc<[Arc<Table>]>,
    steps: Steps,
}

enum Steps {
    Memory(LastImages),
    /// One file for each part.
    Disk(Vec<Spool>),
}

impl Folding {
    fn new(rows: &Backlog, tables: &BTreeMap<TableName, Arc<Table>>) -> Result<Folding> {
        let spill = rows.spill();
        let parts = rows.byte_len() / spill.memory_bytes.max(1) + 1;
        let steps = match parts {
            1 => Steps::Memory(LastImages::new(tables.len(), rows.rows())),
            parts => {
                let spools = (0..parts.min(PARTS_MAX)).map(|_| Spool::new(&spill.dir));
                Steps::Disk(spools.collect::<Result<_>>()?)
            }
        };
        Ok(Folding {
            tables: tables.values().cloned().collect(),
            steps,
        })
    }

    fn add(&mut self, table: usize, step: Step) -> Result<()> {
        match &mut self.steps {
            Steps::Memory(images) => {
                images.add(table, step);
                Ok(())
            }
            Steps::Disk(spools) => {
                let mut hasher = DefaultHasher::new();
                (table, &step.canonical).hash(&mut hasher);
                let part = hasher.finish() % spools.len() as u64;
                step.push_to(table, &mut spools[part as usize])
            }
        }
    }

    fn finish(self) -> Vec<Part> {
        match self.steps {
            Steps::Memory(images) => vec![Part::in_memory(images.finish(&self.tables))],
            Steps::Disk(spools) => spools
                .into_iter()
                .map(|steps| Part::on_disk(steps, Arc::clone(&self.tables)))
                .collect(),
        }
    }
}

/// What some changes did to keys.
#[derive(Default)]
struct TakenApart {
    /// The steps, each with the place of its table.
    steps: Vec<(usize, Step)>,
    changes: usize,
    old_values: bool,
    /// The earliest change that cannot be carried.
    unfit: Option<FoldError>,
}

impl TakenApart {
    /// Takes a change apart of the table at a place.
    fn add(
        &mut self,
        place: usize,
        keyed: &Keyed<'_>,
        position: Position,
        change: &RowChange,
        scratch: &mut Scratch,
    ) {
        let origin = Origin {
            commit_ts: change.commit_ts,
            position,
        };
        self.changes += 1;
        match keyed.steps(change, origin, scratch) {
            Ok((left, taken)) => {
                self.old_values |= left.is_some() && taken.is_some();
                let steps = left.into_iter().chain(taken);
                self.steps.extend(steps.map(|step| (place, step)));
            }
            Err(what) => {
                let error = FoldError {
                    table: (*change.table).clone(),
                    origin,
                    what,
                };
                self.unfit = earlier(self.unfit.take(), Some(error));
            }
        }
    }
}

/// Returns the error of the earlier change; of two at once, the first.
fn earlier(one: Option<FoldError>, other: Option<FoldError>) -> Option<FoldError> {
    match (one, other) {
        (Some(one), Some(other)) if other.origin.commit_ts < one.origin.commit_ts => Some(other),
        (one, other) => one.or(other),
    }
}

/// What a thread uses again for each change that it takes apart.
#[derive(Default)]
struct Scratch {
    canonical: Canonical,
    rows: Rows,
}

/// A table whose changes are taken apart by key.
struct Keyed<'t> {
    table: &'t Table,
    packer: Packer<'t>,
    shapes: Shapes,
    /// How many of the first columns identify a row: all of them where there is no key.
    identity: usize,
    kinds: Vec<Kind>,
    /// Of tables that can have a ledger.
    digest_key: Option<DigestKey>,
}

impl<'t> Keyed<'t> {
    fn new(table: &'t Table, zone: Zone, digest_key: &DigestKey) -> Keyed<'t> {
        let identity = match table.key_len {
            0 => table.columns.len(),
            key_len => key_len,
        };
        let digest_key = ledger_obstacle(table).is_none().then(|| digest_key.clone());
        Keyed {
            table,
            packer: Packer::new(table, zone),
            shapes: Shapes::default(),
            identity,
            kinds: table.kinds(),
            digest_key,
        }
    }

    /// Returns what a change did to the key that it left, and to the one that it took.
    fn steps(
        &self,
        change: &RowChange,
        origin: Origin,
        Scratch { canonical, rows }: &mut Scratch,
    ) -> std::result::Result<(Option<Step>, Option<Step>), String> {
        let images = self.shapes.images(change)?;
        if let Some(after) = &images.after
            && !change.key_only
            && after.columns() != self.table.sent_columns()
        {
            return Err("the message has other columns than the table".to_owned());
        }
        let mut left = None;
        if let Some(mut before) = images.before {
            // With `only-output-updated-columns` the old image lacks what did not change.
            if let Some(after) = &images.after {
                before.complete_with(after);
            }
            let is_whole = self.pack_old(&before, rows);
            if !is_whole {
                self.pack_key(&before, rows)?;
            }
            let (packed, state) = (rows.packed(0), LastState::Gone);
            let whole = is_whole.then_some(packed);
            left = Some(self.step(packed, state, whole, origin, canonical)?);
        }
        let Some(after) = images.after else {
            return Ok((left, None));
        };
        let is_whole = match change.key_only {
            true => {
                self.pack_key(&after, rows)?;
                false
            }
            false => self.pack_new(&after, rows)?,
        };
        let packed = rows.packed(0);
        let state = match is_whole {
            true => LastState::Row(packed.to_vec()),
            false => LastState::Unread,
        };
        let whole = is_whole.then_some(packed);
        let taken = self.step(packed, state, whole, origin, canonical)?;
        Ok((left, Some(taken)))
    }

    /// Packs the row before a change, if it is wanted for the ledger and the feed holds all of it, and
    /// tells whether it did.
    fn pack_old(&self, image: &Image<'_>, rows: &mut Rows) -> bool {
        let columns = self.table.columns.len();
        if self.digest_key.is_none() || image.columns() != self.table.sent_columns() {
            return false;
        }
        rows.clear();
        matches!(
            self.packer.pack(columns, image, rows),
            Ok(Certainty::Certain)
        )
    }

    /// Packs the key of an image that may lack other columns.
    fn pack_key(&self, image: &Image<'_>, rows: &mut Rows) -> std::result::Result<(), String> {
        rows.clear();
        let packed = self.packer.pack(self.identity, image, rows);
        let certainty = packed.map_err(|what| match image.columns() < self.table.sent_columns() {
            true => format!("{what}, which holds TiCDC's handle key only: rowproof needs another"),
            false => what,
        });
        match certainty? {
            Certainty::Certain => Ok(()),
            Certainty::Doubtful { why, .. } => Err(doubtful_key(&why)),
        }
    }

    /// Packs the row of an image that has all columns, and tells whether all of it is certain. Its key
    /// always is.
    fn pack_new(&self, image: &Image<'_>, rows: &mut Rows) -> std::result::Result<bool, String> {
        rows.clear();
        match self.packer.pack(self.table.columns.len(), image, rows)? {
            Certainty::Certain => Ok(true),
            Certainty::Doubtful { first, why } if first < self.identity => Err(doubtful_key(&why)),
            Certainty::Doubtful { .. } => Ok(false),
        }
    }

    /// Makes the step by which a row came or went; of `packed` at least the key is certain, and all of it
    /// if it is `whole`.
    fn step(
        &self,
        packed: &[u8],
        state: LastState,
        whole: Option<&[u8]>,
        origin: Origin,
        canonical: &mut Canonical,
    ) -> std::result::Result<Step, String> {
        let key = Cells::prefix(packed, self.identity);
        let (canonical, digest) = self
            .canonical_key(key, whole, canonical)
            .map_err(|error| error.to_string())?;
        Ok(Step {
            canonical,
            row: FoldedRow {
                key: key.to_vec(),
                state,
                is_new: false,
                origin,
            },
            digest,
        })
    }

    /// Returns the canonical form of a key, and the digest of its row if that is there and wanted.
    fn canonical_key(
        &self,
        key: &[u8],
        row: Option<&[u8]>,
        canonical: &mut Canonical,
    ) -> std::result::Result<(Vec<u8>, Option<Digest>), CellError> {
        // A row that has no canonical form is not the fold's to refuse: the proof of the batch meets it.
        let whole = row
            .zip(self.digest_key.as_ref())
            .and_then(|(row, digests)| {
                let (key, row) = canonical.keyed_row(&self.kinds, self.identity, row).ok()?;
                let digest = (Bucket::of(&digests.row(key)), digests.row(row));
                Some((key.to_vec(), digest))
            });
        Ok(match whole {
            Some((key, digest)) => (key, Some(digest)),
            None => {
                let key = canonical.row(&self.kinds[..self.identity], key)?;
                (key.to_vec(), None)
            }
        })
    }
}

fn doubtful_key(why: &str) -> String {
    format!("{why}, and the row cannot be told without it")
}

#[cfg(test)]
mod tests {
    use super::super::backlog::testing::spill;
    use super::super::open_protocol::tests::change;
    use super::super::testing::digest_key;
    use super::super::{CommitTs, FoldedTable, Position};
    use super::*;
    use crate::schema::testing::integer_table;

    fn insert(ts: CommitTs, id: u32, value: u32) -> RowChange {
        change(ts, &format!(r#"{{"u":{}}}"#, image(id, value)))
    }

    fn update(ts: CommitTs, before: (u32, u32), after: (u32, u32)) -> RowChange {
        let (before, after) = (image(before.0, before.1), image(after.0, after.1));
        change(ts, &format!(r#"{{"u":{after},"p":{before}}}"#))
    }

    fn delete(ts: CommitTs, id: u32) -> RowChange {
        change(ts, &format!(r#"{{"d":{}}}"#, image(id, 0)))
    }

    fn image(id: u32, value: u32) -> String {
        format!(r#"{{"id":{{"t":8,"f":11,"v":{id}}},"value":{{"t":8,"f":65,"v":{value}}}}}"#)
    }

    fn backlog(rows: &[RowChange], memory_bytes: usize) -> Backlog {
        let mut backlog = Backlog::new(spill(memory_bytes));
        for row in rows {
            let position = Position {
                partition: 0,
                offset: 0,
            };
            backlog.push(position, row.clone()).expect("room");
        }
        backlog
    }

    fn fold_with(
        rows: &[RowChange],
        memory_bytes: usize,
    ) -> std::result::Result<Folded, FoldError> {
        let table = Arc::new(integer_table("s", "t"));
        let tables = BTreeMap::from([(table.name.clone(), table)]);
        fold(
            &mut backlog(rows, memory_bytes),
            &tables,
            Zone::default(),
            &digest_key(),
            |_| true,
        )
        .expect("readable rows")
    }

    /// Folds in memory and on disk, which must be the same.
    fn folded(rows: &[RowChange]) -> Vec<(String, Option<String>)> {
        let in_memory = texts(fold_with(rows, 1 << 20).expect("valid rows"));
        for memory_bytes in [0, 100, 500] {
            let on_disk = fold_with(rows, memory_bytes).expect("valid rows");
            assert_eq!(texts(on_disk), in_memory, "INV-8: {memory_bytes}");
        }
        in_memory
    }

    fn texts(folded: Folded) -> Vec<(String, Option<String>)> {
        let text = |cells: &[u8], at: usize| {
            let cell = Cells::of(cells).nth(at).flatten().expect("a cell");
            String::from_utf8(cell.to_vec()).expect("text")
        };
        let mut rows = Vec::new();
        for mut part in folded.parts {
            let tables: Vec<FoldedTable> = part.tables().expect("a readable part").into_owned();
            rows.extend(tables.into_iter().flat_map(|table| table.rows));
        }
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        let rows = rows.into_iter();
        rows.map(|row| (text(&row.key, 0), row.state.row().map(|row| text(row, 1))))
            .collect()
    }

    fn row(id: &str, value: Option<&str>) -> (String, Option<String>) {
        (id.to_owned(), value.map(str::to_owned))
    }

    #[test]
    fn the_last_image_of_a_key_stays() {
        let rows = [
            insert(1, 1, 10),
            update(2, (1, 10), (1, 11)),
            insert(2, 2, 20),
            delete(3, 2),
        ];
        assert_eq!(folded(&rows), [row("1", Some("11")), row("2", None)]);
    }

    #[test]
    fn the_old_key_of_an_update_is_gone() {
        assert_eq!(
            folded(&[update(5, (1, 10), (2, 10))]),
            [row("1", None), row("2", Some("10"))]
        );
    }

    #[test]
    fn keys_that_trade_places_in_one_transaction_both_stay() {
        let rows = [update(5, (1, 10), (2, 10)), update(5, (2, 20), (1, 20))];
        assert_eq!(folded(&rows), [row("1", Some("20")), row("2", Some("10"))]);
    }

    #[test]
    fn halves_of_a_split_update_may_come_in_any_order() {
        let rows = [insert(5, 1, 11), delete(5, 1)];
        assert_eq!(folded(&rows), [row("1", Some("11"))]);
    }

    #[test]
    fn inv_4_without_a_key_the_contents_that_came_or_went_are_named_once() {
        let mut table = integer_table("s", "t");
        table.key_len = 0;
        let tables = BTreeMap::from([(table.name.clone(), Arc::new(table))]);
        let once = [insert(1, 1, 10), update(2, (1, 10), (1, 11))];
        let again = [
            insert(1, 1, 10),
            insert(1, 1, 10),
            update(2, (1, 10), (1, 11)),
        ];
        let touched = |rows: &[RowChange]| -> Vec<Vec<u8>> {
            let folded = fold(
                &mut backlog(rows, 1 << 20),
                &tables,
                Zone::default(),
                &digest_key(),
                |_| true,
            );
            let folded = folded.expect("readable rows").expect("valid rows");
            let mut keys = Vec::new();
            for mut part in folded.parts {
                let tables = part.tables().expect("a readable part").into_owned();
                keys.extend(tables.into_iter().flat_map(|of| of.rows).map(|row| row.key));
            }
            keys
        };
        assert_eq!(touched(&once).len(), 2, "the old content and the new one");
        assert_eq!(touched(&once), touched(&again));
    }

    #[test]
    fn inv_4_replays_and_duplicates_change_nothing() {
        let rows = [
            insert(1, 1, 10),
            insert(1, 1, 10),
            update(2, (1, 10), (1, 11)),
        ];
        let replayed = [
            insert(1, 1, 10),
            update(2, (1, 10), (1, 11)),
            update(2, (1, 10), (1, 11)),
        ];
        assert_eq!(folded(&rows), folded(&replayed));
    }

    #[test]
    fn the_order_in_which_changes_come_does_not_matter() {
        let mut rows = vec![
            insert(1, 1, 10),
            update(2, (1, 10), (2, 10)),
            update(3, (2, 10), (1, 12)),
            delete(4, 7),
            insert(5, 7, 70),
        ];
        let wanted = [row("1", Some("12")), row("2", None), row("7", Some("70"))];
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..50 {
            random.shuffle(&mut rows);
            assert_eq!(folded(&rows), wanted, "seed {seed}");
        }
    }

    #[test]
    fn a_key_is_new_when_nothing_was_taken_from_it_before_a_row_came() {
        let rows = [
            insert(1, 1, 10),
            update(2, (1, 10), (1, 11)),
            // A split update of a key that was there, its halves in the wrong order.
            insert(5, 2, 21),
            delete(5, 2),
            // A key that was left, and the one that was taken.
            update(6, (3, 30), (4, 30)),
            // Keys that traded places.
            update(7, (5, 50), (6, 50)),
            update(7, (6, 60), (5, 60)),
            insert(8, 7, 70),
            delete(9, 7),
        ];
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for memory_bytes in [0, 1 << 20] {
            let mut rows = rows.clone();
            random.shuffle(&mut rows);
            let mut new = Vec::new();
            for mut part in fold_with(&rows, memory_bytes).expect("valid rows").parts {
                let tables = part.tables().expect("a readable part").into_owned();
                let touched = tables.into_iter().flat_map(|table| table.rows);
                new.extend(touched.filter(|row| row.is_new).map(|row| row.key));
            }
            new.sort();
            let ids = new
                .iter()
                .map(|key| Cells::of(key).flatten().collect::<Vec<_>>().concat());
            let ids: Vec<_> = ids.map(|id| String::from_utf8(id).expect("text")).collect();
            assert_eq!(ids, ["1", "4", "7"], "seed {seed}");
        }
    }

    #[test]
    fn of_a_row_that_a_message_does_not_hold_only_the_key_is_known() {
        let keys = |ts, id: u32| {
            let id = format!(r#"{{"id":{{"t":8,"h":true,"f":11,"v":{id}}}}}"#);
            change(ts, &format!(r#"{{"u":{id}}}"#)).with_key_only(true)
        };
        let unread = |rows: &[RowChange], memory_bytes| {
            let mut unread = Vec::new();
            for mut part in fold_with(rows, memory_bytes).expect("valid rows").parts {
                let tables = part.tables().expect("a readable part").into_owned();
                let rows = tables.into_iter().flat_map(|table| table.rows);
                unread.extend(rows.filter(|row| row.state == LastState::Unread));
            }
            unread.len()
        };
        for memory_bytes in [0, 1 << 20] {
            assert_eq!(unread(&[insert(1, 1, 10), keys(2, 1)], memory_bytes), 1);
            assert_eq!(unread(&[delete(5, 1), keys(5, 1)], memory_bytes), 1);
            // What follows is known again.
            assert_eq!(unread(&[keys(2, 1), insert(3, 1, 11)], memory_bytes), 0);
            assert_eq!(unread(&[keys(2, 1), delete(3, 1)], memory_bytes), 0);
        }
        // A table that rowproof pairs by another key than TiCDC's handle key.
        let mut table = integer_table("s", "t");
        table.columns.reverse();
        let tables = BTreeMap::from([(table.name.clone(), Arc::new(table))]);
        let mut rows = backlog(&[keys(2, 1)], 1 << 20);
        let folded = fold(&mut rows, &tables, Zone::default(), &digest_key(), |_| true);
        let error = folded.expect("readable rows").expect_err("no key");
        assert!(
            error.what.contains("TiCDC's handle key only"),
            "{}",
            error.what
        );
    }

    #[test]
    fn the_earliest_message_without_a_column_is_the_error_and_holds_no_value() {
        let missing = r#"{"u":{"id":{"t":8,"f":11,"v":424242},"other":{"t":8,"f":65,"v":1}}}"#;
        let rows = [change(9, missing), change(7, missing), insert(5, 1, 1)];
        let error = fold_with(&rows, 1 << 20).expect_err("a column is missing");
        assert_eq!(error.what, "column value is missing in the message");
        assert_eq!(
            (error.table.to_string().as_str(), error.origin.commit_ts),
            ("s.t", 7)
        );
        let row = change(8, r#"{"u":{"id":{"t":8,"f":11,"v":1}}}"#);
        assert!(
            fold_with(&[row], 1 << 20).is_err(),
            "a column that the table lacks is noticed too"
        );
    }
}
