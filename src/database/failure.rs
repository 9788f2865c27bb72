//! Errors of the servers, turned into ours by their codes.
//!
//! INV-7: a server's text may quote a row ("Duplicate entry 'alice'"), so it is dropped and the
//! code kept. Codes: the error references of TiDB and OceanBase, and what the lab's servers sent.

use crate::error::{Error, ErrorKind};
use sqlx::mysql::MySqlDatabaseError;

/// Turns an error of sqlx into ours; `server` names the server.
pub fn failure(server: &str, error: &sqlx::Error) -> Error {
    match error {
        sqlx::Error::Database(error) => match error.try_downcast_ref::<MySqlDatabaseError>() {
            Some(error) => by_code(server, error.number()),
            None => Error::new(ErrorKind::Rejected, format!("{server} reported an error")),
        },
        sqlx::Error::Io(error) => {
            let what = format!("the connection to {server} failed: {}", error.kind());
            Error::new(ErrorKind::Transient, what)
        }
        _ => {
            let what = format!("{server} ended the connection or sent something unexpected");
            Error::new(ErrorKind::Transient, what)
        }
    }
}

fn by_code(server: &str, code: u16) -> Error {
    let (kind, what) = match code {
        // TiDB: snapshot older than the GC safe point; GC life time is shorter than the read.
        8055 | 9006 => (
            ErrorKind::Expired,
            "the snapshot is older than the GC safe point",
        ),
        // OceanBase: too old versioned data; the snapshot is discarded.
        4138 | 4344 => (
            ErrorKind::Expired,
            "the snapshot is older than undo_retention",
        ),
        1412 => (
            ErrorKind::SchemaChanged,
            "the table's definition has changed",
        ),
        1146 => (ErrorKind::SchemaChanged, "the table does not exist"),
        1054 => (ErrorKind::SchemaChanged, "a column does not exist"),
        1044 | 1045 | 1142 | 1143 | 1227 | 1698 => (ErrorKind::Refused, "access denied"),
        1049 => (ErrorKind::Refused, "the database does not exist"),
        // Lock waits, deadlocks, write conflicts, interrupted or timed out statements, and
        // TiDB's and OceanBase's passing faults of regions, leaders and transactions.
        1205
        | 1213
        | 1317
        | 2006
        | 2013
        | 3024
        | 8002
        | 8005
        | 8022
        | 8027
        | 8028
        | 9001..=9005
        | 9007
        | 4012
        | 4009
        | 4023
        | 4038
        | 4121
        | 4250
        | 4654
        | 5066
        | 6001..=6006
        | 6210..=6230 => (ErrorKind::Transient, "a passing fault"),
        // TiDB: out of memory quota. OceanBase: no memory, or the tenant's limit is reached.
        8175 | 8176 | 4013 | 4030 => (ErrorKind::Memory, "it has not enough memory"),
        1153 | 4152 => (
            ErrorKind::Refused,
            "a row is larger than its max_allowed_packet",
        ),
        1040 | 1053 => (ErrorKind::Unavailable, "it takes no connection"),
        // What a target may have that the source has not, or the other way round.
        1062 => (
            ErrorKind::Rejected,
            "a row has a value that another one has already in a unique index",
        ),
        1048 | 1364 => (
            ErrorKind::Rejected,
            "a column of a row must not be NULL, or takes no default",
        ),
        1264 | 1292 | 1366 | 1367 | 1406 | 1411 | 1690 => (
            ErrorKind::Rejected,
            "a value of a row does not fit its column",
        ),
        3140 | 3141 | 3150 | 3157 => (ErrorKind::Rejected, "a JSON value of a row is refused"),
        3819 => (ErrorKind::Rejected, "a row violates a CHECK constraint"),
        1526 | 1748 => (ErrorKind::Rejected, "a row belongs to no partition"),
        _ => (ErrorKind::Rejected, "a statement was rejected"),
    };
    let error = Error::new(kind, format!("{server}: {what} (error {code})"));
    match kind {
        ErrorKind::Refused if matches!(code, 1153 | 4152) => error.advise(
            "SET GLOBAL max_allowed_packet on the target to four times the largest row, and run \
             the same command again",
        ),
        ErrorKind::Refused => error.advise(
            "compare the user's grants with those in the README, the password settings of the \
             task file, and whether the user is made with REQUIRE SSL or X509",
        ),
        ErrorKind::Expired => error.advise(
            "raise tidb_gc_life_time on the source and undo_retention on the target for the time \
             of the migration",
        ),
        _ => error,
    }
}
