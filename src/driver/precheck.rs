//! What would stop or spoil a migration, each with its fix.

use super::changefeed::look_at_changefeed;
use super::definitions::definitions;
use super::link::Links;
use super::trust;
use crate::broker::{ClaimStore, Feed};
use crate::database::{
    Record, Server, Session, current_ts, duration_s, gc_life_time, undo_retention_s,
};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, Offsets};
use crate::task::{FeedTask, SpoolWhen, Task};
use indicatif::HumanBytes;
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The seconds for which old versions should be readable on both sides at least: a fence must
/// outlive its proof.
const READABLE_S: u64 = 600;

/// How often it is looked whether the feed covers the start of a load.
const FEED_TRIES: u32 = 2;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It holds for every migration, and is good to know before one begins.
    Note,
    /// It may spoil the migration.
    Warning,
    /// It makes the migration impossible.
    Error,
}

/// One thing that precheck looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// What to do; empty where nothing is wrong.
    pub fix: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.level {
            Level::Ok => "ok     ",
            Level::Note => "note   ",
            Level::Warning => "warning",
            Level::Error => "error  ",
        };
        write!(f, "{word}  {}", self.what)?;
        if self.level != Level::Ok {
            write!(
                f,
                "\n         why: {}\n         fix: {}",
                self.why, self.fix
            )?;
        }
        Ok(())
    }
}

impl Finding {
    pub(super) fn ok(what: impl Into<String>) -> Finding {
        Finding {
            level: Level::Ok,
            what: what.into(),
            why: String::new(),
            fix: String::new(),
        }
    }

    pub(super) fn note(what: impl Into<String>, why: &str, fix: impl Into<String>) -> Finding {
        Finding {
            level: Level::Note,
            ..Finding::warning(what, why, fix)
        }
    }

    pub(super) fn warning(what: impl Into<String>, why: &str, fix: impl Into<String>) -> Finding {
        Finding {
            level: Level::Warning,
            what: what.into(),
            why: why.to_owned(),
            fix: fix.into(),
        }
    }

    pub(super) fn error(what: impl Into<String>, why: &str, fix: impl Into<String>) -> Finding {
        Finding {
            level: Level::Error,
            what: what.into(),
            why: why.to_owned(),
            fix: fix.into(),
        }
    }

    /// Turns an error that was met while looking into a finding.
    pub fn met(error: &Error, why: &str) -> Finding {
        let text = error.to_string();
        let fix = text
            .split_once("what to do: ")
            .map_or("see the message", |(_, fix)| fix);
        Finding::error(error.message(), why, fix)
    }
}

/// Looks at both databases and at the feed.
///
/// # Errors
/// If a database cannot be reached at all; everything else is a finding.
pub async fn precheck(task: &Task) -> Result<Vec<Finding>> {
    let mut links = Links::new(task);
    let (source, target) = links.sessions().await?;
    let mut findings = Vec::new();
    versions(source, target, &mut findings).await?;
    findings.push(trust::of_database("source", &task.source, Server::TiDb).await?);
    findings.push(trust::of_database("target", &task.target, Server::OceanBase).await?);
    retention(source, target, &mut findings).await?;
    grants(task, target, &mut findings).await?;
    let keyless = definitions(task, source, target, &mut findings).await?;
    match &task.feed {
        Some(feed) => {
            findings.push(trust::of_feed(feed));
            findings.push(look_at_feed(feed, source).await);
            findings.extend(look_at_changefeed(feed, &keyless).await);
            findings.extend(look_at_kafka(feed).await);
            findings.extend(notes_on_following());
        }
        None => findings.push(Finding::warning(
            "the task file has no [feed]",
            "changes made after the load begins will not reach the target",
            "add [feed] with brokers and topics, or stop all writes before the load",
        )),
    }
    Ok(findings)
}

async fn versions(
    source: &mut Session,
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let version = source.text("SELECT VERSION()").await?.unwrap_or_default();
    findings.push(match version.to_lowercase().contains("tidb") {
        true => Finding::ok(format!("source: {version}")),
        false => Finding::error(
            format!("the source is not TiDB: {version}"),
            "snapshots and the feed are TiDB's",
            "point [source] at a TiDB server",
        ),
    });
    let version = target.text("SELECT VERSION()").await?.unwrap_or_default();
    findings.push(match version.to_lowercase().contains("oceanbase") {
        true => Finding::ok(format!("target: {version}")),
        false => Finding::error(
            format!("the target is not OceanBase: {version}"),
            "fences are read by OceanBase's commit numbers",
            "point [target] at an OceanBase MySQL tenant",
        ),
    });
    Ok(())
}

async fn retention(
    source: &mut Session,
    target: &mut Session,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let life = gc_life_time(source).await?;
    let what = format!("source: tidb_gc_life_time is {life}");
    findings.push(match duration_s(&life) {
        Some(seconds) if seconds >= READABLE_S => Finding::ok(what),
        _ => Finding::warning(
            what,
            "the load reads the source as of its start, and proofs as of their fence: what GC \
             takes before cannot be proven",
            "SET GLOBAL tidb_gc_life_time = '24h' on the source for the time of the migration",
        ),
    });
    let retention = undo_retention_s(target).await?;
    findings.push(match retention {
        Some(seconds) if seconds >= READABLE_S => {
            Finding::ok(format!("target: undo_retention is {seconds} s"))
        }
        Some(seconds) => Finding::warning(
            format!("target: undo_retention is {seconds} s"),
            "proofs read the target as of their fence: what outlives it must be proven again",
            format!("ALTER SYSTEM SET undo_retention = {READABLE_S} in the tenant, or more"),
        ),
        None => Finding::warning(
            "target: undo_retention cannot be seen",
            "proofs read the target as of their fence",
            "ask the administrator for its value; 1800 is the default",
        ),
    });
    Ok(())
}

/// Tries whether rowproof's own tables can be made and read as of a snapshot.
async fn grants(task: &Task, target: &mut Session, findings: &mut Vec<Finding>) -> Result<()> {
    let record = Record::new(&task.name);
    let why = "rowproof keeps its progress on the target, in the transactions of the rows";
    if let Err(error) = record.prepare(target).await {
        findings.push(Finding::met(&error, why));
        return Ok(());
    }
    match target
        .text("SELECT MAX(ora_rowscn) FROM rowproof.fence")
        .await
    {
        Ok(_) => findings.push(Finding::ok("target: the database rowproof can be written")),
        Err(error) => findings.push(Finding::met(&error, why)),
    }
    Ok(())
}

/// Fixes T0 and the offsets from which the feed covers everything that commits later: the ends of
/// the topic are noted first, then the clock is read, then each partition must show a watermark at
/// or below that.
///
/// A changefeed that has only just begun may send its first watermark later; then everything is
/// done once more, and that watermark lies before the new ends.
///
/// # Errors
/// If the feed does not cover a load that begins now.
pub async fn start_of_load(feed: &mut Feed, source: &mut Session) -> Result<(CommitTs, Offsets)> {
    let mut tries = FEED_TRIES;
    loop {
        let ends = feed.ends().await?;
        let base = current_ts(source).await?;
        tries -= 1;
        match feed.assert_reaches_back(base, &ends).await {
            Ok(()) => {
                let ends = ends.iter().map(|(_, end)| *end);
                return Ok((base, feed.offsets().with(ends)));
            }
            Err(error) if error.kind() == ErrorKind::Feed && tries > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

async fn look_at_feed(task: &FeedTask, source: &mut Session) -> Finding {
    let why = "changes made during and after the load come through the feed";
    let look = async {
        if let Some(claims) = &task.claim_check {
            ClaimStore::open(claims)?.look().await?;
        }
        let mut feed = Feed::connect(task).await?;
        start_of_load(&mut feed, source).await?;
        let idle = feed.idle_topics().join(", ");
        Ok::<_, Error>((feed.to_string(), idle))
    };
    match look.await {
        Ok((topics, idle)) if idle.is_empty() => Finding::ok(format!(
            "feed: {topics} speaks Open Protocol and covers a load that begins now"
        )),
        Ok((topics, idle)) => Finding::warning(
            format!("feed: {topics} covers a load that begins now, but nothing comes on {idle}"),
            "TiCDC sends nothing, not even watermarks, to a topic without tables; rowproof takes \
             such a topic for complete when it has read what is there",
            "see that all topics are of one changefeed; take out of [feed] topics what is not",
        ),
        Err(error) => Finding::met(&error, why),
    }
}

/// Lists the limits of following that nothing on the servers shows.
fn notes_on_following() -> [Finding; 2] {
    [
        Finding::note(
            "a DDL on the source stops the table that it changes",
            "DDL is not carried yet: the table is unproven from there on, the others go on",
            "alter tables before or after; `rowproof resync` brings one back with its new definition",
        ),
        Finding::note(
            "a table whose rows the target refuses is held",
            "definitions on the target that somebody changes meanwhile, such as one more unique \
             index, may refuse rows of the source; the table is unproven, the others go on",
            "leave the target's definitions alone; mend it, and `rowproof resync` brings the table back",
        ),
    ]
}

/// Compares how long Kafka keeps records with the time that a load may take. That nothing can be asked
/// has been found before.
async fn look_at_kafka(task: &FeedTask) -> Option<Finding> {
    let keeping = Feed::connect(task).await.ok()?.keeping().await.ok()?;
    let spooled = match task.spool {
        SpoolWhen::Never => "changes wait in Kafka while tables are loaded, and",
        SpoolWhen::Auto | SpoolWhen::Always => {
            "while tables are loaded, what they need of the feed is kept in the state directory; but \
             changes wait in Kafka"
        }
    };
    let why = format!(
        "{spooled} while rowproof does not run: what Kafka drops before it is read ends the migration"
    );
    let fix =
        "raise retention.ms of the topic above the time that the load takes, 48 hours at least";
    let Some(keeping) = keeping else {
        return Some(Finding::note(
            "feed: Kafka does not say for how long it keeps records",
            &why,
            "see that it is 48 hours at least; the right DescribeConfigs on the topic lets rowproof look",
        ));
    };
    let bytes = keeping
        .bytes
        .map(|bytes| format!("{} of a partition", HumanBytes(bytes)));
    let what = match (keeping.time.map(hours), bytes) {
        (None, None) => "for ever".to_owned(),
        (Some(time), None) => format!("for {time}"),
        (None, Some(bytes)) => format!("up to {bytes}"),
        (Some(time), Some(bytes)) => format!("for {time}, and up to {bytes}"),
    };
    let what = format!("feed: Kafka keeps records {what}");
    Some(match keeping.is_short(Duration::ZERO) {
        false => Finding::ok(what),
        true => Finding::warning(what, &why, fix),
    })
}

fn hours(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds < 3_600 => format!("{} minutes", seconds / 60),
        seconds => format!("{} hours", seconds / 3_600),
    }
}
