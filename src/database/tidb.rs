//! What only TiDB answers.
//!
//! INV-6: the source is only read. Nothing here or in the driver sends it a statement that writes;
//! the user that the README asks for may do no more than SELECT.

use super::Session;
use crate::apply::text_literal;
use crate::chunk::ROW_ID;
use crate::error::Result;
use crate::feed::{CommitTs, physical_ms};
use crate::row::Kind;
use crate::schema::{Table, TableName, quote};

/// Returns a timestamp of TiDB's clock that is now: whatever commits later has a greater one.
pub async fn current_ts(session: &mut Session) -> Result<CommitTs> {
    session.execute("BEGIN").await?;
    let ts = session.number("SELECT @@tidb_current_ts").await?;
    session.execute("ROLLBACK").await?;
    Ok(ts)
}

/// Tells whether TiDB numbers the rows of a table, because its primary key is not clustered.
pub async fn has_row_ids(session: &mut Session, table: &TableName) -> Result<bool> {
    let found = session
        .text(format!(
            "SELECT TIDB_PK_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            text_literal(table.schema.as_bytes()),
            text_literal(table.table.as_bytes())
        ))
        .await?;
    Ok(found.as_deref() == Some("NONCLUSTERED"))
}

/// Returns how long old versions can be read, in the server's words, for example `10m0s`.
pub async fn gc_life_time(session: &mut Session) -> Result<String> {
    Ok(session
        .text("SELECT @@GLOBAL.tidb_gc_life_time")
        .await?
        .unwrap_or_default())
}

/// Returns a timestamp as of which the source can be read for a while yet, whatever garbage collection
/// does: half of what it leaves is older. 0 if the server does not say how much it leaves.
pub async fn readable_ts(session: &mut Session) -> Result<CommitTs> {
    let life = gc_life_time(session).await?;
    let now = current_ts(session).await?;
    Ok(half_before(now, duration_s(&life)))
}

fn half_before(now: CommitTs, life_s: Option<u64>) -> CommitTs {
    let Some(life_s) = life_s else { return 0 };
    physical_ms(now).saturating_sub(life_s * 500) << 18
}

/// Reads a duration as TiDB prints it, for example `10m0s` or `24h0m0s`.
pub fn duration_s(text: &str) -> Option<u64> {
    let mut seconds = 0;
    let mut number = String::new();
    for character in text.chars() {
        if character.is_ascii_digit() {
            number.push(character);
            continue;
        }
        let unit = match character {
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds += number.parse::<u64>().ok()? * unit;
        number.clear();
    }
    number.is_empty().then_some(seconds)
}

/// Returns the lowest and the highest key of a table with a single integer key, or the lowest and
/// the highest number of the rows of a table without a key; none otherwise or for an empty table.
pub async fn key_bounds(session: &mut Session, table: &Table) -> Result<Option<(i128, i128)>> {
    let key = match table.key() {
        [] => ROW_ID.to_owned(),
        [key] if key.kind == Kind::Integer => quote(&key.name),
        _ => return Ok(None),
    };
    let sql = format!("SELECT MIN({key}), MAX({key}) FROM {}", table.name.sql());
    let rows = session.texts(sql).await?;
    let bound = |place: usize| rows.first()?.get(place)?.as_ref()?.parse().ok();
    Ok(bound(0).zip(bound(1)))
}

/// Returns the first value that AUTO_INCREMENT may give on the target so that it meets none which
/// the source has given or may have handed out already; none for a table that counts nothing.
///
/// Each TiDB server takes values in blocks of thousands, so this is far above the highest row. Where
/// the column's type ends before, the values are too few to be taken so; then the rows themselves
/// raise the target's counter.
pub async fn next_value(session: &mut Session, table: &Table) -> Result<Option<u64>> {
    let Some(column) = table.columns.iter().find(|column| column.auto_increment) else {
        return Ok(None);
    };
    let sql = format!("SHOW TABLE {} NEXT_ROW_ID", table.name.sql());
    let rows = session.texts(sql).await?;
    let next = rows
        .into_iter()
        .filter_map(|row| row.into_iter().nth(3)?)
        .filter_map(|number| number.parse::<u64>().ok())
        .max();
    let unsigned = column.column_type.contains("unsigned");
    let next = next.map(|next| match table.features.auto_random {
        Some(random) => random.above(next, unsigned),
        None => next,
    });
    Ok(next.filter(|next| *next > 1 && *next <= greatest(&column.column_type, unsigned)))
}

/// Returns the greatest value of an integer type.
fn greatest(column_type: &str, unsigned: bool) -> u64 {
    let word = column_type.split(['(', ' ']).next().unwrap_or_default();
    let bits = match word.to_ascii_lowercase().as_str() {
        "tinyint" => 8,
        "smallint" => 16,
        "mediumint" => 24,
        "int" | "integer" => 32,
        _ => 64,
    };
    u64::MAX >> (64 - bits + u32::from(!unsigned))
}

#[cfg(test)]
mod tests {
    use super::{duration_s, greatest, half_before};

    #[test]
    fn types_end_where_the_servers_say() {
        assert_eq!(greatest("tinyint(4)", false), 127);
        assert_eq!(greatest("mediumint unsigned", true), 16_777_215);
        assert_eq!(greatest("bigint(20)", false), i64::MAX as u64);
        assert_eq!(greatest("bigint unsigned", true), u64::MAX);
    }

    #[test]
    fn durations_are_read_as_tidb_prints_them() {
        assert_eq!(duration_s("10m0s"), Some(600));
        assert_eq!(duration_s("24h0m0s"), Some(86_400));
        assert_eq!(duration_s("soon"), None);
    }

    #[test]
    fn half_of_what_garbage_collection_leaves_can_be_read_for_a_while() {
        let now = 1_000_000 << 18 | 7;
        assert_eq!(half_before(now, Some(600)), 700_000 << 18);
        assert_eq!(half_before(now, Some(86_400)), 0);
        assert_eq!(half_before(now, None), 0);
    }
}
