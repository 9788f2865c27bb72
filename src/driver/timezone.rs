//! Whether `[feed] time_zone` is the time zone in which TiCDC writes: nothing in a message says so.
//!
//! The TIMESTAMP values of a few rows of a batch are compared with the source before the batch is
//! written. A distance of whole quarters of an hour is that between two time zones. Two zones may
//! agree at first and part in summer: what this cannot see, the proof of the batch does.

use super::link::Link;
use crate::apply::lookup_condition;
use crate::database::source_scan;
use crate::engine::{Batch, Follow, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, FoldedTable, Zone};
use crate::row::{Canonical, Cells, Kind, Rows};
use crate::schema::Table;
use chrono::NaiveDateTime;
use std::collections::HashMap;

/// How many rows of a table are compared.
const ROWS_MAX: usize = 20;

/// The largest distance between two time zones in minutes: from -12:00 to +14:00.
const MINUTES_MAX: i64 = 26 * 60;

/// The check of the time zone, which is done when it has seen a TIMESTAMP that both sides agree on.
#[derive(Debug)]
pub struct ZoneCheck {
    zone: Zone,
    done: bool,
}

/// What the comparison of a table's rows shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    Nothing,
    Agreement,
    /// The feed's times are so many minutes ahead of the source's.
    Distance(i64),
}

impl ZoneCheck {
    /// Prepares the check of a zone.
    pub fn new(zone: Zone) -> ZoneCheck {
        ZoneCheck { zone, done: false }
    }

    /// Looks at a batch that is about to be written.
    ///
    /// # Errors
    /// If the feed writes in another time zone; that the source cannot be read is none.
    pub async fn look(
        &mut self,
        follow: &Follow,
        batch: &mut Batch,
        source: &mut Link,
    ) -> Result<()> {
        let mut tables = follow.tables().values();
        if self.done || !tables.any(|of| timestamps(&of.table).next().is_some()) {
            return Ok(());
        }
        for part in &mut batch.parts {
            for folded in part.tables()?.iter() {
                let stop = &follow.tables()[&folded.table.name].stopped;
                let at = Stop::end(stop.as_ref(), batch.to);
                match compare(folded, at, source).await {
                    Ok(Seen::Nothing) => {}
                    Ok(Seen::Agreement) => {
                        self.done = true;
                        return Ok(());
                    }
                    Ok(Seen::Distance(minutes)) => {
                        return Err(self.other_zone(&folded.table, minutes));
                    }
                    // Writing the batch, and proving it, will tell what is wrong with the source.
                    Err(error) => {
                        source.reset();
                        tracing::debug!(error = %error.message(), "no look at the time zone");
                    }
                }
            }
        }
        Ok(())
    }

    fn other_zone(&self, table: &Table, minutes: i64) -> Error {
        Error::new(
            ErrorKind::Feed,
            format!(
                "TIMESTAMP values of {} in the feed, taken for times of {}, are {minutes} minutes off \
                 those of the source: TiCDC writes in another time zone, and nothing was written",
                table.name, self.zone
            ),
        )
        .advise(
            "set [feed] time_zone in the task file to the --tz of the TiCDC server, or where that is \
             not given to the time zone of its machine, and run the same command again",
        )
    }
}

/// Compares the TIMESTAMP values of some rows with the source.
async fn compare(folded: &FoldedTable, at: CommitTs, source: &mut Link) -> Result<Seen> {
    let table = &*folded.table;
    let places: Vec<usize> = timestamps(table).collect();
    if places.is_empty() || table.key_len == 0 {
        return Ok(Seen::Nothing);
    }
    let rows = folded.rows.iter().filter_map(|row| row.state.row());
    let rows = rows.filter(|row| places.iter().any(|place| time(row, *place).is_some()));
    let rows: Vec<&[u8]> = rows.take(ROWS_MAX).collect();
    if rows.is_empty() {
        return Ok(Seen::Nothing);
    }
    let mut kinds = table.kinds();
    kinds.truncate(table.key_len);
    let mut canonical = Canonical::new();
    let mut key_of = |row: &[u8]| key(&kinds, &mut canonical, row);
    let mut by_key = HashMap::new();
    for row in &rows {
        by_key.insert(key_of(row), *row);
    }
    let keys = rows.iter().map(|row| Cells::prefix(row, table.key_len));
    let condition = lookup_condition(table, keys);
    let mut found = Rows::new();
    let source = source.session().await?;
    source.set_snapshot(Some(at)).await?;
    source
        .scan_up_to(source_scan(table, Some(&condition)), &mut found, 8 << 20)
        .await?;
    let mut seen = Seen::Nothing;
    for read in found.iter() {
        let Some(sent) = by_key.get(&key_of(read)) else {
            continue;
        };
        for place in &places {
            match distance(sent, read, *place) {
                Seen::Nothing => {}
                Seen::Agreement => seen = Seen::Agreement,
                apart => return Ok(apart),
            }
        }
    }
    Ok(seen)
}

fn key(kinds: &[Kind], canonical: &mut Canonical, row: &[u8]) -> Vec<u8> {
    let key = canonical.row(kinds, Cells::prefix(row, kinds.len()));
    // A key that is no value of its type is told of where it is written.
    key.map(<[u8]>::to_vec).unwrap_or_default()
}

/// Returns the places of the TIMESTAMP columns beside the key, by which rows are found.
fn timestamps(table: &Table) -> impl Iterator<Item = usize> {
    let columns = table.columns.iter().enumerate().skip(table.key_len);
    columns
        .filter(|(_, column)| column.is_timestamp())
        .map(|(place, _)| place)
}

/// Returns how far a TIMESTAMP of the feed is from that of the source.
fn distance(sent: &[u8], read: &[u8], place: usize) -> Seen {
    let (Some(sent), Some(read)) = (time(sent, place), time(read, place)) else {
        return Seen::Nothing;
    };
    let apart = sent - read;
    let minutes = apart.num_minutes();
    if apart.is_zero() {
        Seen::Agreement
    } else if apart.num_seconds() % (15 * 60) == 0 && minutes.abs() <= MINUTES_MAX {
        Seen::Distance(minutes)
    } else {
        // Some other reason, which the proof of the batch shows.
        Seen::Nothing
    }
}

/// Returns a cell as a time; none for NULL and the zero timestamp, which have no zone.
fn time(row: &[u8], place: usize) -> Option<NaiveDateTime> {
    let cell = Cells::of(row).nth(place)??;
    let text = std::str::from_utf8(cell).ok()?;
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(time: Option<&str>) -> Vec<u8> {
        let mut rows = Rows::new();
        rows.push_row([Some(b"1".as_slice()), time.map(str::as_bytes)]);
        rows.packed(0).to_vec()
    }

    fn seen(sent: &str, read: &str) -> Seen {
        distance(&row(Some(sent)), &row(Some(read)), 1)
    }

    #[test]
    fn whole_quarters_of_an_hour_are_a_time_zone() {
        let noon = "2024-07-01 12:00:00.25";
        assert_eq!(seen(noon, noon), Seen::Agreement);
        assert_eq!(seen("2024-07-01 20:00:00.25", noon), Seen::Distance(480));
        assert_eq!(seen("2024-07-01 06:15:00.25", noon), Seen::Distance(-345));
        assert_eq!(seen("2024-07-01 20:00:01.25", noon), Seen::Nothing);
        assert_eq!(seen("2024-07-03 12:00:00.25", noon), Seen::Nothing);
        assert_eq!(seen("0000-00-00 00:00:00", noon), Seen::Nothing);
        assert_eq!(distance(&row(None), &row(Some(noon)), 1), Seen::Nothing);
    }
}
