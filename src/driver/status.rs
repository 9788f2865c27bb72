//! What the migration does now, kept for the page and told on the terminal.

use crate::journal::{Journal, Phase, Status, now_ms};
use crate::report::throttle_reasons;
use crate::schema::TableName;
use crate::throttle::Side;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often the status is written to the journal.
const BEAT: Duration = Duration::from_secs(1);

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The status that all parts of a migration write to.
#[derive(Clone, Debug)]
pub struct StatusBoard {
    status: Arc<Mutex<Status>>,
}

impl StatusBoard {
    /// Starts with a process that begins now.
    pub fn new(task: &str) -> StatusBoard {
        let status = Status {
            task: task.to_owned(),
            phase: Phase::Starting,
            started_ms: now_ms(),
            beat_ms: now_ms(),
            ..Status::default()
        };
        StatusBoard {
            status: Arc::new(Mutex::new(status)),
        }
    }

    /// Changes the status.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.lock());
    }

    /// Shows that these tables are loaded anew.
    pub fn begin_bases(&self, names: &BTreeSet<TableName>) {
        let names = names.iter().map(ToString::to_string);
        self.update(|status| status.fresh_bases.extend(names));
    }

    /// Shows that a table is no longer loaded anew.
    pub fn end_base(&self, name: &TableName) {
        self.update(|status| {
            status.fresh_bases.remove(&name.to_string());
        });
    }

    /// Returns a copy of the status.
    pub fn snapshot(&self) -> Status {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().expect("no holder of the status panics")
    }

    /// Keeps the journal's copy fresh and tells people, until it is told to stop.
    pub async fn keep(self, journal: Journal, stop: CancellationToken) {
        let teller = Teller::new();
        let mut next_line = Instant::now();
        while !stop.is_cancelled() {
            self.write(&journal).await;
            let status = self.snapshot();
            teller.tell(&status, Instant::now() >= next_line);
            if Instant::now() >= next_line {
                next_line = Instant::now() + LINE_EVERY;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(BEAT) => {}
            }
        }
        teller.finish();
        self.write(&journal).await;
    }

    /// Writes the status to the journal now.
    pub async fn write(&self, journal: &Journal) {
        self.update(|status| {
            status.beat_ms = now_ms();
            status.resident_bytes = resident_bytes();
        });
        if let Err(error) = journal.set_status(&self.snapshot()).await {
            tracing::warn!(error = %error.message(), "the status could not be kept");
        }
    }
}

/// Shows progress: a line that moves on a terminal, plain lines elsewhere.
struct Teller {
    bar: ProgressBar,
}

impl Teller {
    fn new() -> Teller {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Teller { bar }
    }

    fn tell(&self, status: &Status, line_is_due: bool) {
        if !self.bar.is_hidden() {
            self.bar.set_message(line(status));
            self.bar.tick();
        } else if line_is_due {
            eprintln!("{}", line(status));
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Returns the status as one line.
fn line(status: &Status) -> String {
    let mut line = format!("{}:", status.phase.as_str());
    match status.phase {
        Phase::Load => {
            let load = &status.load;
            line.push_str(&format!(
                " {} of about {} rows loaded and proven, {} of {} tables",
                HumanCount(load.rows),
                HumanCount(load.rows_estimate.max(load.rows)),
                load.tables_done,
                load.tables
            ));
        }
        Phase::Follow => {
            let age = |ms: Option<i64>| ms.map_or("none yet".to_owned(), seconds);
            let proven_age = Status {
                fence: status.proven,
                ..status.clone()
            }
            .fence_age_ms();
            line.push_str(&format!(
                " {} changes in {} batches; age of newest fence {}, of newest proven fence {}",
                HumanCount(status.changes),
                HumanCount(status.batches),
                age(status.fence_age_ms()),
                age(proven_age)
            ));
            if status.waiting_bytes > 0 {
                line.push_str(&format!("; {} wait", HumanBytes(status.waiting_bytes)));
            }
        }
        _ => {}
    }
    if status.spool_bytes > 0 {
        let spooled = HumanBytes(status.spool_bytes);
        line.push_str(&format!("; {spooled} of the feed kept on disk"));
    }
    if let Some(reason) = status.waits_for() {
        line.push_str(&format!(" [waiting for {reason}]"));
    }
    for (side, status) in [
        (Side::Source, &status.source),
        (Side::Target, &status.target),
    ] {
        for reason in throttle_reasons(side, status) {
            line.push_str(&format!(" [{reason}]"));
        }
    }
    line
}

fn seconds(ms: i64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

/// Returns the resident memory of this process, which Linux tells in pages.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
