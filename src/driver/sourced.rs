//! Rows whose images come from the source, as of the fence that is to be made.
//!
//! Some messages do not hold all of their row (`feed::LastState::Unread`), and of a table with a filter
//! no message says whether its row came into the filter, left it or stayed: a condition can be
//! evaluated by nobody but the source. Reading the touched keys there answers both.
//!
//! Reading them at the end of the batch is as exact as reading each at its own commit would be, and
//! one read instead of many: the batch holds every change up to its end, so that whatever committed
//! last under a key is what the source shows of it there; and it is what the proof of the batch reads.

use crate::apply::lookup_condition;
use crate::database::{Select, source_scan};
use crate::engine::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, FoldedTable, LastState};
use crate::row::{Canonical, Cells, Kind, Rows};
use crate::schema::Table;
use std::collections::HashSet;

/// How many keys one query looks up.
const KEYS_PER_QUERY: usize = 500;

/// The keys of one table whose rows are read from the source, and when.
#[derive(Debug)]
pub struct Sourced<'a> {
    table: &'a Table,
    at: CommitTs,
    /// Whether a DDL or a message that cannot be carried has ended the table.
    stopped: bool,
    keys: Vec<&'a [u8]>,
    canonical_keys: HashSet<Vec<u8>>,
}

impl<'a> Sourced<'a> {
    /// Names the keys that must be read at the end of a batch, or where the table has been stopped; none
    /// if there are none.
    ///
    /// # Errors
    /// If a key is no value of its columns' types.
    pub fn of(
        stop: Option<&Stop>,
        to: CommitTs,
        folded: &'a FoldedTable,
    ) -> Result<Option<Sourced<'a>>> {
        let table = &*folded.table;
        let rows = folded.rows.iter();
        let rows = rows.filter(|row| table.filter.is_some() || row.state == LastState::Unread);
        let keys: Vec<&[u8]> = rows.map(|row| row.key.as_slice()).collect();
        if keys.is_empty() {
            return Ok(None);
        }
        let kinds = key_kinds(table);
        let mut canonical = Canonical::new();
        let mut canonical_keys = HashSet::with_capacity(keys.len());
        for key in &keys {
            canonical_keys.insert(canonical_key(table, &kinds, &mut canonical, key)?);
        }
        Ok(Some(Sourced {
            table,
            at: Stop::end(stop, to),
            stopped: stop.is_some(),
            keys,
            canonical_keys,
        }))
    }

    /// Returns the table.
    pub fn table(&self) -> &Table {
        self.table
    }

    /// Returns the timestamp at which the rows are read.
    pub fn at(&self) -> CommitTs {
        self.at
    }

    /// Returns the keys in groups that one query looks up.
    pub fn lookups(&self) -> impl Iterator<Item = &[&'a [u8]]> {
        self.keys.chunks(KEYS_PER_QUERY)
    }

    /// Returns the query that looks up some keys.
    pub fn select(&self, keys: &[&[u8]]) -> Select {
        let condition = lookup_condition(self.table, keys.iter().copied());
        source_scan(self.table, Some(&condition))
    }

    /// Returns those of the rows that were read whose keys are wanted: a collation finds others.
    ///
    /// # Errors
    /// If a key is no value of its columns' types.
    pub fn wanted<'r>(&self, rows: &'r Rows) -> Result<Vec<&'r [u8]>> {
        let kinds = key_kinds(self.table);
        let mut canonical = Canonical::new();
        let mut wanted = Vec::with_capacity(rows.len());
        for row in rows.iter() {
            let key = Cells::prefix(row, self.table.key_len);
            let key = canonical_key(self.table, &kinds, &mut canonical, key)?;
            if self.canonical_keys.contains(&key) {
                wanted.push(row);
            }
        }
        Ok(wanted)
    }

    /// Tells whether an error means that a table which has ended cannot be read any more: it is
    /// unproven from there on, whatever its last rows were.
    pub fn is_past_its_end(&self, error: &Error) -> bool {
        let gone = matches!(error.kind(), ErrorKind::SchemaChanged | ErrorKind::Expired);
        self.stopped && gone
    }

    /// Says what a failed read means.
    pub fn failure(&self, error: Error) -> Error {
        let expired = error.kind() == ErrorKind::Expired;
        let error = error.at(format!(
            "reading rows of {} that the feed does not hold",
            self.table.name
        ));
        if !expired {
            return error;
        }
        error.advise(
            "TiDB has collected what they were at the batch's end: raise tidb_gc_life_time above the \
             time by which the feed lags, and run the same command again; the next batch then ends at \
             the newest watermark",
        )
    }
}

fn key_kinds(table: &Table) -> Vec<Kind> {
    let mut kinds = table.kinds();
    kinds.truncate(table.key_len);
    kinds
}

fn canonical_key(
    table: &Table,
    kinds: &[Kind],
    canonical: &mut Canonical,
    key: &[u8],
) -> Result<Vec<u8>> {
    let key = canonical.row(kinds, key).map_err(|error| {
        let what = format!("table {}: {error}", table.name);
        Error::new(ErrorKind::Rejected, what)
    });
    key.map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::integer_table;

    #[test]
    fn what_was_collected_is_said_and_forgiven_only_past_the_end_of_a_table() {
        let table = integer_table("s", "t");
        let expired = || Error::new(ErrorKind::Expired, "error 8055");
        let sourced = |stopped| Sourced {
            table: &table,
            at: 7,
            stopped,
            keys: Vec::new(),
            canonical_keys: HashSet::new(),
        };
        let error = sourced(false).failure(expired());
        assert!(
            error.to_string().contains("raise tidb_gc_life_time"),
            "{error}"
        );
        assert!(error.message().contains("rows of s.t"), "{error}");
        assert!(!sourced(false).is_past_its_end(&error));
        assert!(sourced(true).is_past_its_end(&sourced(true).failure(expired())));
        let lost = Error::new(ErrorKind::Transient, "error 2013");
        assert!(!sourced(true).is_past_its_end(&lost));
    }
}
