//! One connection with rowproof's settings, asserted.

use super::failure::failure;
use super::scan::{Select, WorkKind, work_of};
use super::tls::{secured, tls_failure};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::CommitTs;
use crate::fence::Fence;
use crate::row::Rows;
use crate::schema::Table;
use crate::task::Endpoint;
use crate::throttle::{Flow, Gate, PAUSE_MAX, Pass};
use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use secrecy::ExposeSecret;
use sqlx::error::UnexpectedNullError;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Decode, MySql, Row};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// Which kind of server a session talks to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Server {
    /// A TiDB.
    TiDb,
    /// An OceanBase MySQL tenant.
    OceanBase,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Server::TiDb => "TiDB",
            Server::OceanBase => "OceanBase",
        }
    }

    /// The settings of every session (INV-10), each as name and value.
    ///
    /// `sql_mode` without a strict mode lets zero dates and the error values of ENUM in as they
    /// are, and ALLOW_INVALID_DATES lets in 2024-02-30, which the source may hold too; what a value
    /// became is read back, so that nothing is changed unseen.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Server::TiDb => &[
                ("sql_mode", "'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'"),
                ("time_zone", "'+00:00'"),
            ],
            Server::OceanBase => &[
                ("sql_mode", "'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'"),
                ("time_zone", "'+00:00'"),
                ("foreign_key_checks", "0"),
                // In microseconds: a statement or transaction of ours may take hours.
                ("ob_query_timeout", "36000000000"),
                ("ob_trx_timeout", "36000000000"),
                // A transaction of a session that is cut off or stopped must not hold its slot for
                // a day, which is the default.
                ("ob_trx_idle_timeout", "120000000"),
                ("autocommit", "1"),
            ],
        }
    }
}

/// How long it may take to make a connection. A server out of breath takes it and never speaks.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// How long a read waits for its next rows. A host that vanished sends nothing, not even an error.
const SILENCE_MAX: Duration = Duration::from_secs(900);

/// How long a statement that returns no rows may take; DDL on a large table takes its time.
const STATEMENT_MAX: Duration = Duration::from_secs(4 * 3600);

/// After how many rows or bytes a read whose rate is limited looks whether it may go on.
const ROWS_PER_LOOK: usize = 64;
const BYTES_PER_LOOK: usize = 64 << 10;

/// After how many rows the timer of a read is set anew.
const ROWS_PER_TIMER: usize = 1_024;

/// A connection to a server.
///
/// A session is used by one task at a time and is closed, never handed on, when a statement on it
/// failed or was abandoned: an abandoned read may leave half a packet in it.
#[derive(Debug)]
pub struct Session {
    connection: MySqlConnection,
    server: Server,
    label: String,
    snapshot: Option<CommitTs>,
    asserted_fence: Option<Fence>,
    abandoned: bool,
    /// What holds reads and writes of rows back, if anything does.
    gate: Option<Arc<Gate>>,
    /// The place at the gate that a transaction holds.
    pass: Option<Pass>,
}

impl Session {
    /// Connects, sets what every session of rowproof has, reads it back and asserts it.
    ///
    /// # Errors
    /// If the server cannot be reached, refuses the user or does not take a setting.
    pub async fn connect(endpoint: &Endpoint, server: Server) -> Result<Session> {
        let label = format!("{} at {}:{}", server.name(), endpoint.host, endpoint.port);
        let opening = Session::open(endpoint, server, label.clone());
        timeout(CONNECT_MAX, opening).await.unwrap_or_else(|_| {
            let what = format!("{label} let nobody in for {} s", CONNECT_MAX.as_secs());
            Err(unavailable(what))
        })
    }

    async fn open(endpoint: &Endpoint, server: Server, label: String) -> Result<Session> {
        let mut options = MySqlConnectOptions::new()
            .host(&endpoint.host)
            .port(endpoint.port)
            .username(&endpoint.user)
            // OceanBase's grammar has no NAMES in a SET of several variables, which is what sqlx
            // would send; all four are set one by one below.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .set_names(false)
            // A slow statement would be logged with its literals (INV-7).
            .disable_statement_logging();
        let password = endpoint.password().map_err(|error| error.at(&label))?;
        if let Some(password) = password {
            options = options.password(password.expose_secret());
        }
        let connection = secured(options, endpoint)
            .map_err(|error| error.at(&label))?
            .connect()
            .await
            .map_err(|error| connect_failure(&label, &error))?;
        let mut session = Session {
            connection,
            server,
            label,
            snapshot: None,
            asserted_fence: None,
            abandoned: false,
            gate: None,
            pass: None,
        };
        session.apply_settings().await?;
        Ok(session)
    }

    /// Has reads and writes of rows pass a gate, which all connections to the side share.
    #[must_use]
    pub fn behind(mut self, gate: &Arc<Gate>) -> Session {
        self.gate = Some(Arc::clone(gate));
        self
    }

    /// Tells whether the connection is encrypted.
    pub async fn is_encrypted(&mut self) -> Result<bool> {
        let rows = self.texts("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await?;
        let cipher = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().nth(1));
        Ok(cipher.flatten().is_some_and(|cipher| !cipher.is_empty()))
    }

    /// Returns the server's kind.
    pub fn server(&self) -> Server {
        self.server
    }

    /// Runs a statement and returns how many rows it found or changed.
    ///
    /// The count is of rows found: an update to the same value counts.
    pub async fn execute(&mut self, sql: impl Into<String>) -> Result<u64> {
        let sql = sql.into();
        let ends_transaction = matches!(sql.as_str(), "COMMIT" | "ROLLBACK");
        let query = sqlx::raw_sql(AssertSqlSafe(sql));
        let result = timeout(STATEMENT_MAX, query.execute(&mut self.connection)).await;
        if ends_transaction {
            self.pass = None;
        }
        result
            .map_err(|_| silent(&self.label, STATEMENT_MAX))?
            .map(|done| done.rows_affected())
            .map_err(|error| failure(&self.label, &error))
    }

    /// Begins a transaction that writes rows. It has its place at the gate until it ends: one that
    /// waited for a place in between would have others wait for its locks, and they for theirs.
    pub async fn begin(&mut self) -> Result<()> {
        if let Some(gate) = &self.gate
            && self.pass.is_none()
        {
            self.pass = Some(gate.enter().await);
        }
        self.execute("BEGIN").await.map(|_| ())
    }

    /// Runs a statement that writes rows of a table, and returns how many it found or changed.
    pub async fn write(&mut self, sql: String, table: &Table) -> Result<u64> {
        let Some(gate) = self.gate.clone() else {
            return self.execute(sql).await;
        };
        let _pass = match &self.pass {
            Some(_) => {
                gate.pause(Some(PAUSE_MAX)).await;
                None
            }
            None => Some(gate.enter().await),
        };
        let bytes = sql.len() as u64;
        let work = gate.begin(work_of(table, WorkKind::of_write(&sql)));
        let rows = self.execute(sql).await?;
        work.end(rows, bytes, Duration::ZERO);
        gate.charge(Flow::Write, rows, bytes);
        Ok(rows)
    }

    /// Reads all rows of a query into `rows`; for results that are known to be small.
    pub async fn scan(&mut self, sql: impl Into<Select>, rows: &mut Rows) -> Result<()> {
        self.open_scan(sql).fill(rows, usize::MAX).await.map(|_| ())
    }

    /// Reads the rows of a query until `rows` holds `bytes_max`, and at least one; false if there
    /// were more. INV-8: whatever the rows are, no more than that and one row is held. A session
    /// whose read was cut is of no use any more, see [`Session::is_abandoned`].
    pub async fn scan_up_to(
        &mut self,
        sql: impl Into<Select>,
        rows: &mut Rows,
        bytes_max: usize,
    ) -> Result<bool> {
        self.open_scan(sql).fill(rows, bytes_max).await
    }

    /// Starts to read the rows of a query, cell by cell as the server's text.
    ///
    /// The first column must be small: sqlx 0.9 takes a row whose first cell is 16 MiB or longer
    /// for the end of the result. Tables are read in layout order, which puts the key there; where
    /// that may be large or there is none, another column stands before it.
    pub fn open_scan(&mut self, sql: impl Into<Select>) -> Scan<'_> {
        let select = sql.into();
        self.abandoned = true;
        Scan {
            stream: sqlx::raw_sql(AssertSqlSafe(select.sql)).fetch(&mut self.connection),
            guarded: select.guarded,
            guard: None,
            label: &self.label,
            abandoned: &mut self.abandoned,
            ahead: None,
            silence: Box::pin(sleep(SILENCE_MAX)),
            gate: self.gate.as_ref(),
            has_pass: self.pass.is_some(),
            work: select.work,
        }
    }

    /// Tells whether a read was left before its end: what is left of it is still on its way, so
    /// that the session must be closed.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Reads a small result as texts; no gate holds it back.
    pub async fn texts(&mut self, sql: impl Into<String>) -> Result<Vec<Vec<Option<String>>>> {
        let mut rows = Rows::new();
        let mut scan = self.open_scan(sql.into());
        scan.gate = None;
        scan.fill(&mut rows, usize::MAX).await?;
        let text = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
        Ok((0..rows.len())
            .map(|row| rows.cells(row).map(|cell| cell.map(text)).collect())
            .collect())
    }

    /// Reads the first cell of a result, if there is a row and the cell is not NULL.
    pub async fn text(&mut self, sql: impl Into<String>) -> Result<Option<String>> {
        let rows = self.texts(sql).await?;
        Ok(rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next())
            .flatten())
    }

    /// Reads the first cell of a result as a number.
    pub async fn number<N: std::str::FromStr>(&mut self, sql: impl Into<String>) -> Result<N> {
        let text = self.text(sql).await?;
        text.and_then(|text| text.parse().ok()).ok_or_else(|| {
            Error::new(
                ErrorKind::Rejected,
                format!("{}: no number where one was due", self.label),
            )
        })
    }

    /// Makes all reads of a TiDB session see the data as of a timestamp.
    ///
    /// # Errors
    /// With [`ErrorKind::Expired`] if the timestamp is behind the GC safe point.
    pub async fn set_snapshot(&mut self, ts: Option<CommitTs>) -> Result<()> {
        if self.snapshot != ts {
            let value = ts.map_or_else(String::new, |ts| ts.to_string());
            self.execute(format!("SET @@tidb_snapshot = '{value}'"))
                .await?;
            self.snapshot = ts;
        }
        Ok(())
    }

    /// Returns the fence that this session was last seen to agree with.
    pub(super) fn asserted_fence(&self) -> Option<Fence> {
        self.asserted_fence
    }

    /// Notes that this session agrees with a fence.
    pub(super) fn set_asserted_fence(&mut self, fence: Fence) {
        self.asserted_fence = Some(fence);
    }

    async fn apply_settings(&mut self) -> Result<()> {
        self.execute("SET NAMES utf8mb4").await?;
        for (name, value) in self.server.settings() {
            self.execute(format!("SET SESSION {name} = {value}"))
                .await?;
        }
        self.assert_settings().await
    }

    /// Reads the settings back: a proxy or an init_connect may have changed them.
    async fn assert_settings(&mut self) -> Result<()> {
        let charset = ("character_set_results", "'utf8mb4'");
        for (name, wanted) in self.server.settings().iter().chain([&charset]) {
            let found = self
                .text(format!("SELECT @@SESSION.{name}"))
                .await?
                .unwrap_or_default();
            if found != wanted.trim_matches('\'') {
                return Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "{}: the session setting {name} does not stay {wanted}",
                        self.label
                    ),
                )
                .advise("look for init_connect on the server, or a proxy that rewrites sessions"));
            }
        }
        Ok(())
    }
}

/// The rows of a query, read piece by piece.
pub struct Scan<'s> {
    stream: BoxStream<'s, std::result::Result<MySqlRow, sqlx::Error>>,
    label: &'s str,
    abandoned: &'s mut bool,
    guarded: bool,
    /// What stood before the last row.
    guard: Option<Vec<u8>>,
    /// The row that no longer fitted into the last piece.
    ahead: Option<MySqlRow>,
    /// One timer for many rows: it is looked at only while the server is awaited.
    silence: Pin<Box<Sleep>>,
    gate: Option<&'s Arc<Gate>>,
    /// Whether the session is in a transaction that has its place at the gate.
    has_pass: bool,
    /// The kind of work.
    work: u64,
}

impl Scan<'_> {
    /// Appends rows to `rows` until it holds `bytes_max`, and at least one; false if there are
    /// more.
    pub async fn fill(&mut self, rows: &mut Rows, bytes_max: usize) -> Result<bool> {
        let Some(gate) = self.gate else {
            return self.read(rows, bytes_max, None).await;
        };
        let _pass = match self.has_pass {
            true => None,
            false => Some(gate.enter().await),
        };
        let work = gate.begin(self.work);
        let mut toll = Toll::new(gate, rows);
        let whole = self.read(rows, bytes_max, Some(&mut toll)).await?;
        toll.charge(rows);
        work.end(toll.rows, toll.bytes, toll.paused);
        Ok(whole)
    }

    async fn read(
        &mut self,
        rows: &mut Rows,
        bytes_max: usize,
        mut toll: Option<&mut Toll<'_>>,
    ) -> Result<bool> {
        if let Some(row) = self.ahead.take() {
            self.push(&row, rows)?;
        }
        loop {
            if rows.len().is_multiple_of(ROWS_PER_TIMER) {
                self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            }
            let next = tokio::select! {
                biased;
                next = self.stream.try_next() => next.map_err(|error| failure(self.label, &error))?,
                () = &mut self.silence => return Err(silent(self.label, SILENCE_MAX)),
            };
            let Some(row) = next else {
                *self.abandoned = false;
                return Ok(true);
            };
            if rows.byte_len() >= bytes_max {
                self.ahead = Some(row);
                return Ok(false);
            }
            self.push(&row, rows)?;
            if let Some(toll) = &mut toll
                && toll.gate.is_paced()
                && toll.is_due(rows)
            {
                toll.charge(rows);
                toll.paused += toll.gate.pause(Some(PAUSE_MAX)).await;
                self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            }
        }
    }

    /// Returns what stood in the column before the last row.
    pub fn guard(&self) -> Option<&[u8]> {
        self.guard.as_deref()
    }

    fn push(&mut self, row: &MySqlRow, rows: &mut Rows) -> Result<()> {
        let failed = |error| failure(self.label, &error);
        if self.guarded {
            self.guard = cell(row, 0).map_err(failed)?.map(<[u8]>::to_vec);
        }
        for column in usize::from(self.guarded)..row.len() {
            rows.push_cell(cell(row, column).map_err(failed)?);
        }
        rows.end_row();
        Ok(())
    }
}

/// What a read is counted for at the gate.
struct Toll<'g> {
    gate: &'g Gate,
    /// The rows and bytes that were there when it was last counted.
    counted: (usize, usize),
    rows: u64,
    bytes: u64,
    paused: Duration,
}

impl Toll<'_> {
    fn new<'g>(gate: &'g Gate, rows: &Rows) -> Toll<'g> {
        Toll {
            gate,
            counted: (rows.len(), rows.byte_len()),
            rows: 0,
            bytes: 0,
            paused: Duration::ZERO,
        }
    }

    fn is_due(&self, rows: &Rows) -> bool {
        let (counted, bytes) = self.counted;
        rows.len() - counted >= ROWS_PER_LOOK || rows.byte_len() - bytes >= BYTES_PER_LOOK
    }

    fn charge(&mut self, rows: &Rows) {
        let more_rows = (rows.len() - self.counted.0) as u64;
        let more_bytes = (rows.byte_len() - self.counted.1) as u64;
        self.counted = (rows.len(), rows.byte_len());
        self.rows += more_rows;
        self.bytes += more_bytes;
        self.gate.charge(Flow::Read, more_rows, more_bytes);
    }
}

/// Returns a cell of a row, or none for NULL.
///
/// It asks for the bytes themselves and not for an `Option`, which sqlx would make none also where
/// a value cannot be shown, a zero date for example.
fn cell(row: &MySqlRow, column: usize) -> std::result::Result<Option<&[u8]>, sqlx::Error> {
    match <&[u8] as Decode<MySql>>::decode(row.try_get_raw(column)?) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.is::<UnexpectedNullError>() => Ok(None),
        Err(source) => Err(sqlx::Error::ColumnDecode {
            index: column.to_string(),
            source,
        }),
    }
}

fn silent(label: &str, after: Duration) -> Error {
    let what = format!("{label} has sent nothing for {} s", after.as_secs());
    Error::new(ErrorKind::Transient, what)
}

fn connect_failure(label: &str, error: &sqlx::Error) -> Error {
    if let Some(error) = tls_failure(label, error) {
        return error;
    }
    let error = failure(label, error);
    if error.kind() == ErrorKind::Transient {
        return unavailable(error.message());
    }
    error
}

fn unavailable(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, what)
        .advise("check host and port in the task file and that the server runs")
}

impl Session {
    /// Says goodbye to the server; a session that is merely dropped closes its socket only.
    pub async fn close(self) {
        let _ = self.connection.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_a_connection_and_says_nothing_is_not_waited_for() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let silent = silent.expect("a port");
        let port = silent.local_addr().expect("its address").port();
        let text = format!("host = '127.0.0.1'\nport = {port}\nuser = 'any'");
        let endpoint: Endpoint = toml::from_str(&text).expect("an endpoint");
        let error = Session::connect(&endpoint, Server::OceanBase).await;
        let error = error.expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("let nobody in for 30 s"));
    }
}
