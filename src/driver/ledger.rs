//! Checking by ledgers: the target alone is read, at a fence whose ledgers say what it must hold.

use super::check::{CheckOutcome, CheckedTable, check_those, judge_definition, obstacle, unread};
use super::link::{Link, Links, Retries};
use super::migrate::panicked;
use super::whole::sum;
use crate::database::{Catalog, FollowedRow, Record, collations, newest_fence, target_whole};
use crate::error::{ErrorKind, Result};
use crate::fence::Fence;
use crate::journal::{FoundBy, Journal, LedgerRow};
use crate::proof::{Counts, How, Ledger, Reason, Verdict, ledger_obstacle};
use crate::row::DigestKey;
use crate::schema::{SchemaVerdict, Table, TableName};
use crate::task::{Scope, Task};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long the newest proven fence may stand still before it is taken as it is.
const PROVEN_PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked at while waiting.
const PROVEN_LOOK: Duration = Duration::from_millis(20);

/// How often a table whose snapshot expired is read at a newer fence.
const FENCE_TRIES: usize = 3;

/// The ledgers of all tables at one proven fence.
#[derive(Debug)]
struct AtFence {
    fence: Fence,
    ledgers: BTreeMap<TableName, LedgerRow>,
}

/// A table that is read on the target alone.
#[derive(Debug)]
struct Work {
    table: Arc<Table>,
    definition: SchemaVerdict,
}

/// What the workers of a check by ledgers share.
#[derive(Debug)]
struct Checking {
    task: Task,
    journal: Journal,
    digest_key: DigestKey,
    at: Mutex<Arc<AtFence>>,
    queue: Mutex<VecDeque<Work>>,
    checked: Mutex<Checked>,
}

/// What is known of the tables so far.
#[derive(Debug, Default)]
struct Checked {
    tables: Vec<CheckedTable>,
    /// The tables of which both sides must be read, and why.
    fallback: BTreeMap<TableName, String>,
}

/// Compares every table in scope, or those that `only` also names, with its ledger at the newest proven
/// fence, reading the target alone. Of a table without a ledger, or whose ledger does not fit, both sides
/// are read as [`check`](super::check()) does.
///
/// INV-2: what this calls equal is consistent with an earlier read and the feed since, and says so. It
/// sees what somebody else wrote on the target; it cannot see an event that the feed lost.
///
/// # Errors
/// If the target or the journal cannot be reached at all.
pub async fn check_by_ledger(task: &Task, only: Option<&Scope>) -> Result<CheckOutcome> {
    let began = Instant::now();
    let journal = Journal::open(&task.state_dir).await?;
    let mut links = Links::new(task);
    wait_for_proof(task, &journal, &mut links).await?;
    let in_scope =
        |name: &TableName| task.scope.contains(name) && only.is_none_or(|only| only.contains(name));
    let (fence, mut checked) = match at_proven_fence(&journal).await? {
        Some(at) => {
            let fence = at.fence;
            let list = async |links: &mut Links| {
                plan(task, &journal, &mut links.target, &at, &in_scope).await
            };
            let (known, work) = links.retried("listing the tables", list).await?;
            (Some(fence), run(task, &journal, at, known, work).await?)
        }
        None => (None, Checked::default()),
    };
    let mut read = None;
    if fence.is_none() || !checked.fallback.is_empty() {
        let wanted = |name: &TableName| match fence {
            Some(_) => checked.fallback.contains_key(name),
            None => in_scope(name),
        };
        match check_those(task, wanted).await {
            Ok(outcome) => {
                read = outcome.fence;
                checked.tables.extend(outcome.tables);
            }
            Err(error) if fence.is_none() => return Err(error),
            Err(error) if matches!(error.kind(), ErrorKind::Broken | ErrorKind::Lease) => {
                return Err(error);
            }
            // What the ledgers have shown is shown nevertheless.
            Err(error) => checked.tables.extend(checked.fallback.keys().map(|name| {
                let what = format!("both sides could not be read: {}", error.message());
                unread(name.clone(), Verdict::unproven(Reason::Failed, what))
            })),
        }
    }
    for table in &mut checked.tables {
        let why = checked.fallback.get(&table.name).cloned();
        table.no_ledger = why.or_else(|| {
            let none = fence.is_none();
            none.then(|| "no fence is proven yet".to_owned())
        });
    }
    checked.tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(CheckOutcome {
        fence: fence.or(read),
        tables: checked.tables,
        views: Vec::new(),
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Waits until a fence is proven that was made after the check began. Where no migration runs, none
/// will be: the newest one is as good as ever.
async fn wait_for_proof(task: &Task, journal: &Journal, links: &mut Links) -> Result<()> {
    let look = async |links: &mut Links| {
        let session = links.target.session().await?;
        match Record::new(&task.name).exists(session).await? {
            true => newest_fence(session, &task.name).await,
            false => Ok(None),
        }
    };
    let Some((_, newest)) = links.retried("looking for the newest fence", look).await? else {
        return Ok(());
    };
    let (mut last, mut moved) = (None, Instant::now());
    while moved.elapsed() < PROVEN_PATIENCE && journal.status().await?.is_live() {
        let proven = journal.proven().await?.map(|(fence, _)| fence);
        if proven.is_some_and(|proven| proven.w > newest.w) {
            return Ok(());
        }
        if proven != last {
            last = proven;
            moved = Instant::now();
        }
        tokio::time::sleep(PROVEN_LOOK).await;
    }
    Ok(())
}

async fn at_proven_fence(journal: &Journal) -> Result<Option<AtFence>> {
    let (fence, ledgers) = journal.ledgers().await?;
    Ok(fence.map(|fence| AtFence { fence, ledgers }))
}

/// Lists the tables that were followed at the fence. The source is not asked: what the feed has never
/// told of is not known here.
async fn plan(
    task: &Task,
    journal: &Journal,
    link: &mut Link,
    at: &AtFence,
    in_scope: impl Fn(&TableName) -> bool,
) -> Result<(Checked, VecDeque<Work>)> {
    let target = link.session().await?;
    let existing = Catalog::read(target, &task.scope).await?;
    let known = collations(target).await?;
    let record = Record::new(&task.name);
    // As of a snapshot that cannot be read any more, every table falls back.
    let followed = match record.followed_as_of(target, Some(at.fence.s)).await {
        Err(error) if error.kind() == ErrorKind::Expired => record.followed(target).await?,
        followed => followed?,
    };
    let spellings = journal.spellings().await?;
    let differing = journal.difference_kinds().await?;
    let (mut checked, mut work) = (Checked::default(), VecDeque::new());
    for row in followed.iter().filter(|row| in_scope(&row.name)) {
        let Some(mut table) = row.table.clone() else {
            checked
                .fallback
                .insert(row.name.clone(), NO_LEDGER.to_owned());
            continue;
        };
        task.scope.set_policies(&mut table);
        let adapted = task.choices.adapt(&table, &known);
        let found = existing.find(&table.target);
        let ledger = at.ledgers.get(&row.name);
        let differs = differing.contains_key(&row.name);
        match why_not(row, &table, ledger, differs) {
            Some(why) => {
                checked.fallback.insert(row.name.clone(), why);
            }
            None => match obstacle(Some(row), &table, &adapted, found) {
                Some((_, why)) => {
                    checked.fallback.insert(row.name.clone(), why);
                }
                None => work.push_back(Work {
                    definition: judge_definition(Some(row), &adapted, found, &spellings),
                    table: Arc::new(table),
                }),
            },
        }
    }
    Ok((checked, work))
}

/// Why there is no ledger of a table of which nothing more is known.
const NO_LEDGER: &str = "no read has begun a ledger of the table";

/// Returns why a table has no ledger that could say anything of it.
fn why_not(
    followed: &FollowedRow,
    table: &Table,
    ledger: Option<&LedgerRow>,
    differs: bool,
) -> Option<String> {
    if followed.stopped.is_some() {
        return Some("the table is not followed any more".to_owned());
    }
    if let Some(obstacle) = ledger_obstacle(table) {
        return Some(obstacle.to_owned());
    }
    match ledger.map(|row| &row.ledger) {
        None => Some(NO_LEDGER.to_owned()),
        Some(Err(why)) => Some(format!("its ledger has ended: {why}")),
        // INV-5: rows that differed, or were repaired, are settled by a read of both sides alone.
        Some(Ok(_)) if differs => {
            Some("rows of it are known to differ, or were repaired and not read since".to_owned())
        }
        Some(Ok(_)) => None,
    }
}

/// Reads everything that is planned and compares it with the ledgers.
async fn run(
    task: &Task,
    journal: &Journal,
    at: AtFence,
    known: Checked,
    work: VecDeque<Work>,
) -> Result<Checked> {
    let checking = Arc::new(Checking {
        task: task.clone(),
        journal: journal.clone(),
        digest_key: journal.digest_key().await?,
        at: Mutex::new(Arc::new(at)),
        queue: Mutex::new(work),
        checked: Mutex::new(known),
    });
    let mut workers = JoinSet::new();
    for _ in 0..task.workers {
        workers.spawn(Arc::clone(&checking).work());
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|_| panicked("a worker of the check"))??;
    }
    let mut checked = checking
        .checked
        .lock()
        .expect("no holder of the results panics");
    Ok(std::mem::take(&mut *checked))
}

impl Checking {
    async fn work(self: Arc<Self>) -> Result<()> {
        let mut link = Link::target(&self.task);
        while let Some(work) = self.next() {
            let name = work.table.name.clone();
            match self.table(&mut link, work).await {
                Ok(Ok(table)) => self.with_checked(|checked| checked.tables.push(table)),
                Ok(Err(why)) => self.with_checked(|checked| {
                    checked.fallback.insert(name, why);
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<Work> {
        let mut queue = self.queue.lock().expect("no holder of the queue panics");
        queue.pop_front()
    }

    fn with_checked(&self, change: impl FnOnce(&mut Checked)) {
        let mut checked = self
            .checked
            .lock()
            .expect("no holder of the results panics");
        change(&mut checked);
    }

    /// Reads a table on the target and compares it with its ledger; or says why both sides must be read.
    async fn table(
        &self,
        link: &mut Link,
        work: Work,
    ) -> Result<std::result::Result<CheckedTable, String>> {
        let mut retries = Retries::new();
        let mut tries = FENCE_TRIES;
        loop {
            let at = Arc::clone(&self.at.lock().expect("no holder of the fence panics"));
            let name = &work.table.name;
            let ledger = match at.ledgers.get(name).map(|row| &row.ledger) {
                Some(Ok(ledger)) => ledger,
                Some(Err(why)) => return Ok(Err(format!("its ledger has ended: {why}"))),
                None => return Ok(Err(NO_LEDGER.to_owned())),
            };
            let error = match self.read(link, &work.table, at.fence).await {
                Ok(rows) => return self.judge(work, at.fence, ledger, &rows).await,
                Err(error) => error,
            };
            link.reset();
            match error.kind() {
                ErrorKind::Broken | ErrorKind::Lease => return Err(error),
                ErrorKind::Expired if tries > 1 => {
                    tries -= 1;
                    self.refence(at.fence).await?;
                }
                kind if kind.is_retryable() => retries.pause(error).await?,
                _ => {
                    let why = format!("the target could not be read: {}", error.message());
                    return Ok(Err(why));
                }
            }
        }
    }

    async fn read(&self, link: &mut Link, table: &Arc<Table>, fence: Fence) -> Result<Ledger> {
        let target = link.session().await?;
        target.assert_fence(&self.task.name, fence).await?;
        let scan = target.open_scan(target_whole(table, Some(fence.s)));
        Ok(sum(scan, table, &self.digest_key).await?.ledger())
    }

    /// Takes the ledgers at a newer fence, unless another worker has done so.
    async fn refence(&self, old: Fence) -> Result<()> {
        let newer = at_proven_fence(&self.journal).await?;
        let newer = newer.filter(|newer| newer.fence.w > old.w);
        if let Some(newer) = newer {
            *self.at.lock().expect("no holder of the fence panics") = Arc::new(newer);
        }
        Ok(())
    }

    async fn judge(
        &self,
        work: Work,
        fence: Fence,
        ledger: &Ledger,
        rows: &Ledger,
    ) -> Result<std::result::Result<CheckedTable, String>> {
        let (differing, buckets) = ledger.differing(rows);
        if differing > 0 {
            let (expected, found) = (ledger.total().rows(), rows.total().rows());
            return Ok(Err(format!(
                "the target does not hold what its ledger says: {differing} of {buckets} buckets of \
                 its rows differ, {expected} rows expected and {found} found"
            )));
        }
        let how = How::Ledger;
        let verdict = Verdict::Equal { fence, how };
        let total = ledger.total();
        let counts = Counts {
            source: total.rows(),
            target: rows.total().rows(),
            ..Counts::default()
        };
        let (table, by, digest) = (&work.table, FoundBy::Check, total.to_string());
        self.journal
            .set_table(table, by, &verdict, counts, &digest, fence.w)
            .await?;
        Ok(Ok(CheckedTable {
            counts,
            digest,
            definition: work.definition,
            ..unread(table.name.clone(), verdict)
        }))
    }
}
