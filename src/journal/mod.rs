//! The journal: what was proven, what differs, and how far the work is, in SQLite.
//!
//! It lives in the state directory and holds row values, so its file is readable by its owner only.
//! Several processes use it at once (`migrate` and `check`, say): it runs in WAL mode. Losing it
//! loses knowledge, never data: progress stands on the target together with the rows (INV-3).

mod changefeed;
mod definition;
mod difference;
mod ledger;
mod limit;
mod request;
mod schema;
mod status;
mod table;
mod topic;
mod view;

pub use changefeed::ChangefeedNote;
pub use definition::DefinitionRow;
pub use difference::{DifferenceRow, FoundBy};
pub use ledger::{LedgerRow, LedgerStep};
pub use status::{Backlog, BatchRow, Phase, Progress, Status};
pub use table::{LedgerNote, TableRow};
pub use view::{DifferenceView, KindCounts};

use crate::error::{Error, ErrorKind, Result};
use crate::row::{DigestKey, hex, unhex};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a process waits while another one writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The open journal of a state directory.
#[derive(Clone, Debug)]
pub struct Journal {
    pool: SqlitePool,
    dir: PathBuf,
}

impl Journal {
    /// Opens the journal of a state directory and makes both if they are missing.
    ///
    /// # Errors
    /// If the directory or the file cannot be made, read or written.
    pub async fn open(dir: &Path) -> Result<Journal> {
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        let path = dir.join("journal.sqlite");
        let touched = made.and_then(|()| {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)
        });
        touched.map_err(|error| {
            Error::new(
                ErrorKind::Usage,
                format!("state directory {}: {error}", dir.display()),
            )
            .advise("name a directory that can be written with [state] dir")
        })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await;
        let journal = Journal {
            pool: pool.map_err(failure)?,
            dir: dir.to_owned(),
        };
        journal.create_tables().await?;
        journal.create_identity().await?;
        Ok(journal)
    }

    /// Returns the state directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the identity of this state directory, by which a foreign or lost one is noticed.
    pub async fn state_id(&self) -> Result<String> {
        self.identity("state_id").await
    }

    /// Returns the key of all row digests of this task.
    pub async fn digest_key(&self) -> Result<DigestKey> {
        let bytes = unhex(&self.identity("digest_key").await?).and_then(|key| key.try_into().ok());
        bytes.map(DigestKey::from_bytes).ok_or_else(|| {
            Error::new(ErrorKind::Broken, "the journal's digest key is damaged")
                .advise("restore the state directory from a copy")
        })
    }

    async fn create_tables(&self) -> Result<()> {
        for statement in schema::STATEMENTS {
            sqlx::query(statement)
                .execute(&self.pool)
                .await
                .map_err(failure)?;
        }
        Ok(())
    }

    /// Makes the identity and the digest key once; who comes second keeps the first one's.
    async fn create_identity(&self) -> Result<()> {
        for (name, bytes) in [("state_id", 16), ("digest_key", 32)] {
            sqlx::query("INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?)")
                .bind(name)
                .bind(hex(&random_bytes(bytes)?))
                .execute(&self.pool)
                .await
                .map_err(failure)?;
        }
        Ok(())
    }

    async fn identity(&self, name: &str) -> Result<String> {
        sqlx::query_scalar("SELECT value FROM meta WHERE name = ?")
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .map_err(failure)
    }
}

/// Returns the wall clock in milliseconds since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn random_bytes(count: usize) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = vec![0; count];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Error::new(ErrorKind::Usage, format!("no random numbers: {error}")))?;
    Ok(bytes)
}

/// Turns an error of SQLite into ours; its text names tables and columns, never values.
fn failure(error: sqlx::Error) -> Error {
    let what = match &error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        _ => "it cannot be read".to_owned(),
    };
    Error::new(
        ErrorKind::Usage,
        format!("the journal in the state directory: {what}"),
    )
    .advise("check that the disk is not full and that the directory can be written")
}

fn ts_to_db(ts: u64) -> i64 {
    ts.cast_signed()
}

fn ts_from_db(ts: i64) -> u64 {
    ts.cast_unsigned()
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("the journal's types have string keys")
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::new(
            ErrorKind::Broken,
            format!("the journal holds something unknown: {error}"),
        )
        .advise("it was written by another version of rowproof: use that version")
    })
}
