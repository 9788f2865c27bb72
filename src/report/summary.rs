//! The state of the whole migration at one moment.

use super::clock::{Moment, duration, utc, wall_ms};
use super::definition::definition_reasons;
use super::limit::{flow_sentence, throttle_reasons};
use super::table::{TableDocument, TableLine, verdicts_text};
use super::{Answer, WRITES, number};
use crate::error;
use crate::feed::CommitTs;
use crate::fence::Fence;
use crate::journal::{Backlog, DefinitionRow, Journal, Phase, Progress, Status, now_ms};
use crate::proof::Verdict;
use crate::throttle::{Side, SideStatus};
use serde::{Serialize, Serializer};
use std::fmt::{self, Write};

/// What the journal says at one moment.
#[derive(Clone, Debug)]
pub struct Summary {
    /// When this was read, in milliseconds since the epoch.
    pub now_ms: i64,
    /// What the migration does.
    pub status: Status,
    /// Whether a process keeps that up to date.
    pub live: bool,
    /// The verdicts.
    pub tables: Vec<TableLine>,
    /// What is known of the definitions.
    pub definitions: Vec<DefinitionRow>,
    /// Is it safe to cut over?
    pub answer: Answer,
}

impl Summary {
    /// Reads it from the journal.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn read(journal: &Journal) -> error::Result<Summary> {
        let status = journal.status().await?;
        let kinds = journal.difference_kinds().await?;
        let tables = journal.tables().await?;
        let tables = tables
            .iter()
            .map(|row| TableLine::new(row, kinds.get(&row.name).copied().unwrap_or_default()));
        let live = status.is_live();
        let definitions = journal.definitions().await?;
        let summary = Summary::new(now_ms(), status, live, tables.collect());
        Ok(Summary {
            answer: summary.answer.but(definition_reasons(&definitions)),
            definitions,
            ..summary
        })
    }

    fn new(now_ms: i64, status: Status, live: bool, tables: Vec<TableLine>) -> Summary {
        let answer = Answer::of(&status, live, now_ms, &tables);
        Summary {
            now_ms,
            status,
            live,
            tables,
            definitions: Vec::new(),
            answer,
        }
    }

    /// Returns how many tables are equal, different and unproven.
    pub fn verdicts(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for table in &self.tables {
            match table.verdict {
                Verdict::Equal { .. } => counts[0] += 1,
                Verdict::Different { .. } => counts[1] += 1,
                Verdict::Unproven { .. } => counts[2] += 1,
            }
        }
        counts
    }

    /// Returns how many rows are known to differ.
    pub fn differing_rows(&self) -> u64 {
        let rows = |table: &TableLine| {
            let counts = table.counts;
            counts.missing + counts.extra + counts.changed
        };
        self.tables.iter().map(rows).sum()
    }

    /// Says what differs, in one sentence.
    pub fn difference_sentence(&self) -> String {
        let [equal, different, unproven] = self.verdicts();
        let rows = self.differing_rows();
        let tables = number::of(self.tables.len() as u64, "table");
        match (different, unproven) {
            (0, 0) if equal == 0 => "Nothing has been compared yet".to_owned(),
            (0, 0) => format!("Nothing: {tables} equal, each as of its fence"),
            (0, _) => format!(
                "Nothing is known to differ, but {} of {tables} unproven",
                number::count(unproven)
            ),
            _ => format!(
                "{} in {} of {tables}",
                number::of(rows, "row"),
                number::count(different)
            ),
        }
    }

    /// Says what the migration does now, in one sentence.
    pub fn activity_sentence(&self) -> String {
        let last = utc(self.status.beat_ms);
        match (self.status.phase, self.live) {
            (Phase::Idle, _) => {
                "No migration has run with this state directory; `rowproof migrate` starts one"
                    .to_owned()
            }
            (Phase::Stopped, _) => format!("Stopped in order at {last}"),
            (Phase::Failed, _) => format!("Failed at {last}"),
            (phase, false) => format!("Not running; it was last seen at {last}. {}", doing(phase)),
            (phase, true) => doing(phase).to_owned(),
        }
    }

    /// Returns how old a fence is, in words.
    pub fn age(&self, fence: Fence) -> String {
        duration(self.age_ms(fence))
    }

    /// Returns how old a fence is by this machine's clock, in milliseconds.
    pub fn age_ms(&self, fence: Fence) -> i64 {
        (self.now_ms - wall_ms(fence.w)).max(0)
    }

    /// Says what holds the work back now, each reason in one sentence; nothing of work that is over.
    pub fn throttled(&self) -> Vec<String> {
        if !self.live {
            return Vec::new();
        }
        let (source, target) = (&self.status.source, &self.status.target);
        let mut reasons = throttle_reasons(Side::Source, source);
        reasons.extend(throttle_reasons(Side::Target, target));
        reasons
    }

    /// Returns how far the watermark, the applied and the proven changes are behind now, in
    /// milliseconds.
    pub fn lags(&self) -> [(&'static str, Option<i64>); 3] {
        let status = &self.status;
        let behind = |ts: CommitTs| (self.now_ms - wall_ms(ts)).max(0);
        [
            ("watermark", status.watermark.map(behind)),
            ("applied", status.fence.map(|fence| behind(fence.w))),
            ("proven", status.proven.map(|fence| behind(fence.w))),
        ]
    }

    /// Says how far behind now the three are.
    fn lag_sentence(&self) -> String {
        let lag = |(name, lag): (&str, Option<i64>)| {
            let lag = lag.map_or_else(|| "nothing yet".to_owned(), duration);
            format!("{name} {lag}")
        };
        self.lags().map(lag).join(", ")
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let answer = &self.answer;
        match answer.safe_to_cut_over {
            true => {
                writeln!(text, "Safe to cut over? YES: {}", answer.because).expect(WRITES);
                if let Some(caution) = &answer.caution {
                    writeln!(text, "  - {caution}").expect(WRITES);
                }
            }
            false => writeln!(text, "Safe to cut over? NO").expect(WRITES),
        }
        for reason in &answer.reasons {
            writeln!(text, "  - {reason}").expect(WRITES);
        }
        writeln!(text, "What is different? {}", self.difference_sentence()).expect(WRITES);
        writeln!(text, "What is it doing?  {}", self.activity_sentence()).expect(WRITES);
        for (name, value) in self.facts() {
            writeln!(text, "  {name:<18} {value}").expect(WRITES);
        }
        if !self.tables.is_empty() {
            text.push('\n');
            text.push_str(&verdicts_text(&self.tables));
        }
        text
    }

    /// Returns what is known of the work, as pairs of a name and a value in words.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let status = &self.status;
        let mut facts = Vec::new();
        if status.phase == Phase::Idle {
            return facts;
        }
        facts.push(("task", status.task.clone()));
        if let Some(waiting) = status.waits_for() {
            facts.push(("waiting for", waiting.clone()));
        }
        for reason in self.throttled() {
            facts.push(("throttled", reason));
        }
        for (name, fence) in [
            ("newest fence", status.fence),
            ("newest proven", status.proven),
        ] {
            let text = fence.map_or_else(|| "none yet".to_owned(), |fence| self.fence_text(fence));
            facts.push((name, text));
        }
        if self.live && status.phase == Phase::Follow {
            facts.push(("behind now by", self.lag_sentence()));
        }
        facts.push(("applied", applied_sentence(status)));
        if status.to_prove.batches > 0 {
            facts.push(("not proven yet", unproven_sentence(&status.to_prove)));
        }
        if self.live {
            facts.push(("source", flow_sentence(&status.source)));
            facts.push(("target", flow_sentence(&status.target)));
        }
        let held_back = number::bytes(status.waiting_bytes);
        facts.push((
            "held back",
            format!("{held_back} of changes wait for the watermark"),
        ));
        if status.spool_bytes > 0 {
            let spooled = number::bytes(status.spool_bytes);
            let text = format!("{spooled} of the feed, which Kafka may drop before it is applied");
            facts.push(("kept on disk", text));
        }
        if !status.fresh_bases.is_empty() {
            let names: Vec<&str> = status.fresh_bases.iter().map(String::as_str).collect();
            facts.push(("loaded anew", names.join(", ")));
        }
        facts.push(("full load", load_sentence(&status.load, status.phase)));
        if let Some(base) = status.base {
            let text = format!("W {base}, {}", utc(wall_ms(base)));
            facts.push(("loaded as of (T0)", text));
        }
        facts.push(("memory", number::bytes(status.resident_bytes)));
        facts
    }

    fn fence_text(&self, fence: Fence) -> String {
        let time = utc(wall_ms(fence.w));
        format!(
            "{} old: {time}, W {}, S {}",
            self.age(fence),
            fence.w,
            fence.s
        )
    }

    /// Returns the document of `status --json` and of the web's status route.
    pub fn document(&self) -> StatusDocument {
        let status = &self.status;
        StatusDocument {
            answer: self.answer.clone(),
            now: utc(self.now_ms),
            live: self.live,
            task: status.task.clone(),
            phase: status.phase,
            waiting_for: status.waits_for().cloned(),
            started: (status.started_ms > 0).then(|| utc(status.started_ms)),
            last_seen: (status.beat_ms > 0).then(|| utc(status.beat_ms)),
            load: status.load,
            base: status.base.map(|base| base.to_string()),
            fence: status.fence.map(Moment::from),
            fence_age_ms: status
                .fence
                .map(|fence| (self.now_ms - wall_ms(fence.w)).max(0)),
            proven: status.proven.map(Moment::from),
            changes: status.changes,
            batches: status.batches,
            lag_ms: {
                let [watermark, applied, proven] = self.lags().map(|(_, lag)| lag);
                LagDocument {
                    watermark,
                    applied,
                    proven,
                }
            },
            to_prove: status.to_prove,
            source: status.source,
            target: status.target,
            throttled: self.throttled(),
            waiting_bytes: status.waiting_bytes,
            spool_bytes: status.spool_bytes,
            spool_is_current: status.spool_is_current,
            resident_bytes: status.resident_bytes,
            fresh_bases: status.fresh_bases.iter().cloned().collect(),
            differing_rows: self.differing_rows(),
            tables: self.tables.iter().map(TableDocument::from).collect(),
        }
    }
}

impl fmt::Display for Summary {
    /// Prints the summary for a terminal: the answer first, then what differs, then what happens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

fn doing(phase: Phase) -> &'static str {
    match phase {
        Phase::Idle => "nothing",
        Phase::Starting => "Starting: looks at both sides and takes the lease",
        Phase::Schema => "Making databases and tables on the target",
        Phase::Load => "Full load: copies the tables and reads every chunk back",
        Phase::Follow => "Following: applies and proves the changes of the source",
        Phase::Stopped => "stopped",
        Phase::Failed => "failed",
    }
}

fn applied_sentence(status: &Status) -> String {
    let changes = number::of(status.changes, "change");
    let batches = match status.batches {
        1 => "1 batch".to_owned(),
        many => format!("{} batches", number::count(many)),
    };
    format!("{changes} in {batches} since {}", utc(status.started_ms))
}

fn unproven_sentence(unproven: &Backlog) -> String {
    let batches = match unproven.batches {
        1 => "1 batch".to_owned(),
        many => format!("{} batches", number::count(many)),
    };
    format!(
        "{batches} with {} are applied and wait to be proven, together and at the newest fence",
        number::of(unproven.keys, "key")
    )
}

/// Says how far the load is: never a share without what it is a share of.
fn load_sentence(load: &Progress, phase: Phase) -> String {
    let done = load.tables > 0 && load.tables == load.tables_done;
    let tables = format!(
        "{} of {} loaded and proven",
        number::count(load.tables_done),
        number::of(load.tables, "table")
    );
    let rows = if done || phase == Phase::Follow {
        number::of(load.rows, "row")
    } else {
        format!(
            "{} of about {} rows",
            number::count(load.rows),
            number::count(load.rows_estimate)
        )
    };
    format!("{tables}; {rows}, {}", number::of(load.chunks, "chunk"))
}

/// The state of a migration as a JSON document; timestamps are text because programs that read
/// JSON numbers as doubles would round them.
#[derive(Clone, Debug, Serialize)]
pub struct StatusDocument {
    /// Is it safe to cut over?
    #[serde(flatten)]
    pub answer: Answer,
    /// When the journal was read.
    pub now: String,
    /// Whether a process keeps this up to date.
    pub live: bool,
    /// The task's name.
    pub task: String,
    /// The phase.
    pub phase: Phase,
    /// What is being waited for, or what went wrong.
    pub waiting_for: Option<String>,
    /// When the process began.
    pub started: Option<String>,
    /// When the process was last seen alive.
    pub last_seen: Option<String>,
    /// How far the load is.
    pub load: Progress,
    /// The timestamp of the load.
    pub base: Option<String>,
    /// The newest fence.
    pub fence: Option<Moment>,
    /// How old it is, in milliseconds.
    pub fence_age_ms: Option<i64>,
    /// The newest proven fence.
    pub proven: Option<Moment>,
    /// Changes applied since the process began.
    pub changes: u64,
    /// Batches applied since the process began.
    pub batches: u64,
    /// How far behind now the migration is, in milliseconds.
    pub lag_ms: LagDocument,
    /// What is applied and not proven yet.
    pub to_prove: Backlog,
    /// What passes to and from the source.
    pub source: SideStatus,
    /// What passes to and from the target.
    pub target: SideStatus,
    /// What holds the work back, each reason in one sentence.
    pub throttled: Vec<String>,
    /// Bytes of changes that wait for the watermark.
    pub waiting_bytes: u64,
    /// Bytes of the feed that are kept on disk because Kafka may drop them.
    pub spool_bytes: u64,
    /// Whether what is kept has lately reached the ends of all partitions.
    pub spool_is_current: bool,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// The tables that are loaded anew while the others are followed.
    pub fresh_bases: Vec<String>,
    /// Rows that are known to differ.
    pub differing_rows: u64,
    /// The verdicts.
    pub tables: Vec<TableDocument>,
}

/// How far behind now a migration is, in milliseconds; null where there is nothing yet.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LagDocument {
    /// The timestamp up to which the feed is complete.
    pub watermark: Option<i64>,
    /// The newest fence.
    pub applied: Option<i64>,
    /// The newest proven fence.
    pub proven: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::super::table::testing::line;
    use super::*;
    use crate::proof::{How, Reason};

    const NOW: i64 = 1_700_000_000_000;

    fn fence(age_ms: i64) -> Fence {
        Fence {
            w: ((NOW - age_ms) as u64) << 18,
            s: 7,
        }
    }

    fn following() -> Status {
        Status {
            task: "shop".to_owned(),
            phase: Phase::Follow,
            beat_ms: NOW,
            started_ms: NOW - 60_000,
            fence: Some(fence(1_000)),
            proven: Some(fence(2_000)),
            changes: 12_345,
            batches: 1,
            load: Progress {
                tables: 1,
                tables_done: 1,
                rows: 5,
                rows_estimate: 9,
                chunks: 1,
            },
            ..Status::default()
        }
    }

    #[test]
    fn the_answer_comes_first() {
        let verdict = Verdict::Equal {
            fence: fence(2_000),
            how: How::Carried,
        };
        let summary = Summary::new(NOW, following(), true, vec![line("a", verdict)]);
        let text = summary.text();
        assert!(
            text.starts_with("Safe to cut over? YES: 1 table equal: 1 carried"),
            "{text}"
        );
        assert!(
            text.contains("What is different? Nothing: 1 table equal, each as of its fence\n"),
            "{text}"
        );
        assert!(text.contains("12,345 changes in 1 batch since"), "{text}");
        assert!(
            text.contains("newest proven      2.0 s old: 2023-11-14 22:13:18.000 UTC"),
            "{text}"
        );
    }

    #[test]
    fn inv_2_an_unproven_table_is_never_fine() {
        let verdict = Verdict::unproven(Reason::Failed, "shard down");
        let summary = Summary::new(NOW, following(), true, vec![line("a", verdict)]);
        let text = summary.text();
        assert!(
            text.starts_with("Safe to cut over? NO\n  - shop.a is unproven: failed\n"),
            "{text}"
        );
        assert!(
            text.contains("Nothing is known to differ, but 1 of 1 table unproven"),
            "{text}"
        );
    }

    #[test]
    fn an_empty_journal_says_so() {
        let summary = Summary::new(NOW, Status::default(), false, Vec::new());
        let text = summary.text();
        assert!(text.contains("no table has been read yet"), "{text}");
        assert!(text.contains("No migration has run"), "{text}");
        assert!(!summary.document().answer.safe_to_cut_over);
    }

    #[test]
    fn a_dead_process_is_seen() {
        let summary = Summary::new(NOW, following(), false, Vec::new());
        assert!(
            summary
                .activity_sentence()
                .starts_with("Not running; it was last seen at")
        );
        let document = serde_json::to_value(summary.document()).expect("a document");
        assert_eq!(document["safe_to_cut_over"], false);
        assert_eq!(document["fence"]["w"], fence(1_000).w.to_string());
    }
}
