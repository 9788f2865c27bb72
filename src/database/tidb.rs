//! What only TiDB answers.
//!
//! INV-6: the source is only read. Nothing here or in the driver sends it a statement that writes;
//! the user that the README asks for may do no more than SELECT.

use super::Session;
use crate::chunk::ROW_ID;
use crate::error::Result;
use crate::feed::CommitTs;
use crate::row::Kind;
use crate::schema::{Table, quote};

/// Returns a timestamp of TiDB's clock that is now: whatever commits later has a greater one.
pub async fn current_ts(session: &mut Session) -> Result<CommitTs> {
    session.execute("BEGIN").await?;
    let ts = session.number("SELECT @@tidb_current_ts").await?;
    session.execute("ROLLBACK").await?;
    Ok(ts)
}

/// Returns how long old versions can be read, in the server's words, for example `10m0s`.
pub async fn gc_life_time(session: &mut Session) -> Result<String> {
    Ok(session
        .text("SELECT @@GLOBAL.tidb_gc_life_time")
        .await?
        .unwrap_or_default())
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
