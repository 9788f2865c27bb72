//! Checking whole tables of a live migration, at fences made after the check began.

use super::chunk_read::{
    Findings, Moment, Spare, compare_in_pieces, compare_rows, cut, read_chunk,
};
use super::held::described;
use super::link::{Links, Retries};
use super::opening::{Openings, wait_for_fence};
use super::pace::{keep_pace, set_limits};
use super::whole::compare_whole;
use crate::chunk::{CHUNK_BYTES_MAX, Chunk, Range, Walk};
use crate::database::{Catalog, FollowedRow, Record, Session, collations, current_ts};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::Fence;
use crate::journal::{FoundBy, Journal};
use crate::proof::{Counts, How, Ledger, Reason, TableProof, Verdict};
use crate::row::{DigestKey, Rows};
use crate::schema::{
    LeftOut, Pairing, SchemaVerdict, SchemaWord, Spellings, Table, TableName, compare,
    create_table, differences, judge_view,
};
use crate::task::{Scope, Task};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How often a chunk whose snapshots expired is read at a newer fence.
const REFENCE_TRIES: usize = 3;

/// What a check found of one table.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedTable {
    /// The table.
    #[serde(flatten)]
    pub name: TableName,
    /// The verdict and how it was earned.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The rows that were read and differ.
    pub counts: Counts,
    /// The digest of the source's rows, in hexadecimal, and their number.
    pub digest: String,
    /// The verdict on the table's definition.
    pub definition: SchemaVerdict,
    /// The condition on the source's rows that take part, where only some do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// The policies by which columns were compared less strictly, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Why both sides were read although the ledger was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_ledger: Option<String>,
}

/// What a check found of one view, which has no rows of its own.
#[derive(Clone, Debug, Serialize)]
pub struct CheckedView {
    /// The view.
    #[serde(flatten)]
    pub name: TableName,
    /// The verdict on its definition.
    pub definition: SchemaVerdict,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckOutcome {
    /// The fence at which it began; none if there was none.
    pub fence: Option<Fence>,
    /// The tables in scope, each with its verdict.
    pub tables: Vec<CheckedTable>,
    /// The views in scope, unless they are left out.
    pub views: Vec<CheckedView>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl CheckOutcome {
    /// Returns how many tables were compared with their ledgers and fit.
    pub fn by_ledger(&self) -> usize {
        let by_ledger = |table: &&CheckedTable| {
            matches!(
                table.verdict,
                Verdict::Equal {
                    how: How::Ledger,
                    ..
                }
            )
        };
        self.tables.iter().filter(by_ledger).count()
    }

    /// Returns the documented exit code: 1 if any row or definition differs, else 2 if anything is unproven,
    /// else 0. A check of nothing proves nothing.
    pub fn exit_code(&self) -> u8 {
        let any = |word: &str| self.tables.iter().any(|table| table.verdict.word() == word);
        let definition = |word: SchemaWord| {
            let tables = self.tables.iter().map(|table| &table.definition);
            let mut all = tables.chain(self.views.iter().map(|view| &view.definition));
            all.any(|definition| definition.verdict == word)
        };
        if any("different") || definition(SchemaWord::Different) {
            1
        } else if any("unproven") || definition(SchemaWord::Unproven) || self.tables.is_empty() {
            2
        } else {
            0
        }
    }
}

/// What the workers of a check share.
struct Checking {
    task: Task,
    journal: Journal,
    digest_key: DigestKey,
    fence: Mutex<Fence>,
    queue: Mutex<VecDeque<StripeWork>>,
    proofs: Mutex<BTreeMap<TableName, TableProof>>,
    bar: ProgressBar,
    spare: Spare,
    openings: Openings,
}

struct StripeWork {
    table: Arc<Table>,
    range: Range,
}

/// Compares every table in scope, or those that `only` also names, and keeps what it finds.
///
/// # Errors
/// If a side cannot be reached at all. That no fence comes, or that a table cannot be read, is no
/// error but an unproven table.
pub async fn check(task: &Task, only: Option<&Scope>) -> Result<CheckOutcome> {
    check_those(task, |name| only.is_none_or(|only| only.contains(name))).await
}

/// Compares the tables in scope that are wanted, and keeps what it finds.
///
/// # Errors
/// As of [`check`].
pub(super) async fn check_those(
    task: &Task,
    wanted: impl Fn(&TableName) -> bool,
) -> Result<CheckOutcome> {
    let began = Instant::now();
    let journal = Journal::open(&task.state_dir).await?;
    set_limits(task, &journal).await?;
    let pace = CancellationToken::new();
    let _ended = pace.clone().drop_guard();
    tokio::spawn(keep_pace(task.clone(), journal.clone(), None, pace));
    let mut links = Links::new(task);
    let now = async |links: &mut Links| current_ts(links.source.session().await?).await;
    let asked = links.retried("asking for the time", now).await?;
    let in_scope = |name: &TableName| task.scope.contains(name) && wanted(name);
    // The wait is long enough to make the workers' connections meanwhile.
    let (fence, ready) = tokio::join!(
        Openings::at_next_fence(task, &journal, &mut links.target, asked, in_scope),
        Links::connected(task)
    );
    let (fence, openings) = fence?;
    let fence = match fence {
        Ok(fence) => fence,
        Err(why) => {
            let list = async |links: &mut Links| {
                Catalog::read(links.source.session().await?, &task.scope).await
            };
            let catalog = links.retried("listing the tables", list).await?;
            let verdict = Verdict::unproven(Reason::NoFence, why);
            let tables = catalog
                .tables
                .into_iter()
                .filter(|table| in_scope(&table.name));
            let tables = tables
                .map(|table| unread(table.name, verdict.clone()))
                .collect();
            let seconds = began.elapsed().as_secs_f64();
            return Ok(CheckOutcome {
                fence: None,
                tables,
                views: Vec::new(),
                seconds,
            });
        }
    };
    let spellings = journal.spellings().await?;
    let plan =
        async |links: &mut Links| Plan::make(task, links, fence, &spellings, &in_scope).await;
    let mut plan = links
        .retried("listing and cutting the tables", plan)
        .await?;
    for (name, verdict) in &plan.definitions {
        journal.set_definition(name, verdict, fence.w).await?;
    }
    let checked = run(task, journal, fence, &plan, (ready, openings)).await?;
    let mut tables: Vec<CheckedTable> = plan.unread;
    tables.extend(checked);
    for table in &mut tables {
        if let Some(definition) = plan.definitions.remove(&table.name) {
            table.definition = definition;
        }
    }
    // What is left is not of tables.
    let view = |(name, definition)| CheckedView { name, definition };
    let views = plan.definitions.into_iter().map(view).collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(CheckOutcome {
        fence: Some(fence),
        tables,
        views,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// What is to be read, and what cannot be.
struct Plan {
    work: Vec<StripeWork>,
    unread: Vec<CheckedTable>,
    definitions: BTreeMap<TableName, SchemaVerdict>,
}

impl Plan {
    /// Lists what is in scope on the source as of the fence, so that nothing in scope is unknown.
    async fn make(
        task: &Task,
        links: &mut Links,
        fence: Fence,
        spellings: &Spellings,
        in_scope: impl Fn(&TableName) -> bool,
    ) -> Result<Plan> {
        let (source, target) = links.sessions().await?;
        source.set_snapshot(Some(fence.w)).await?;
        let list_target = async {
            let existing = Catalog::read(target, &task.scope).await?;
            let known = collations(target).await?;
            let followed = Record::new(&task.name)
                .followed_as_of(target, Some(fence.s))
                .await?;
            Ok((existing, known, followed))
        };
        let (wanted, listed) = tokio::join!(Catalog::read(source, &task.scope), list_target);
        let (wanted, (existing, known, followed)) = (wanted?, listed?);
        super::policy::assert_used(task, &wanted)?;
        let mut plan = Plan {
            work: Vec::new(),
            unread: Vec::new(),
            definitions: BTreeMap::new(),
        };
        let choices = &task.choices;
        if !choices.leaves_out(LeftOut::Views) {
            for view in wanted.views.iter().filter(|view| in_scope(&view.name)) {
                let verdict = judge_view(view, existing.find_view(&view.name), spellings);
                plan.definitions.insert(view.name.clone(), verdict);
            }
        }
        let mut others = wanted.others;
        if !choices.leaves_out(LeftOut::Sequences) {
            let sequences = wanted.sequences.into_iter();
            others.extend(sequences.map(|name| (name, "it is a sequence".to_owned())));
        }
        for (name, what) in others.into_iter().filter(|(name, _)| in_scope(name)) {
            plan.unread
                .push(unread(name, Verdict::unproven(Reason::Unsupported, what)));
        }
        for table in wanted
            .tables
            .into_iter()
            .filter(|table| in_scope(&table.name))
        {
            let followed = followed.iter().find(|row| row.name == table.name);
            let adapted = task.choices.adapt(&table, &known);
            let found = existing.find(&table.target);
            let definition = judge_definition(followed, &adapted, found, spellings);
            plan.definitions.insert(table.name.clone(), definition);
            match obstacle(followed, &table, &adapted, found) {
                Some((reason, detail)) => {
                    plan.unread
                        .push(unread(table.name, Verdict::unproven(reason, detail)));
                }
                None => plan.cut(task, source, Arc::new(table)).await?,
            }
        }
        Ok(plan)
    }

    async fn cut(&mut self, task: &Task, source: &mut Session, table: Arc<Table>) -> Result<()> {
        let count = u32::try_from(task.workers).expect("workers are few");
        let ranges = match table.pairing() {
            Pairing::Ranges => cut(source, &table, count).await?,
            Pairing::Buckets | Pairing::Copies => vec![Range::default()],
        };
        let work = |range| StripeWork {
            table: Arc::clone(&table),
            range,
        };
        self.work.extend(ranges.into_iter().map(work));
        Ok(())
    }
}

/// Returns why the rows of a table cannot be compared, if they cannot; `adapted` is what the target is
/// to have of its definition.
pub(super) fn obstacle(
    followed: Option<&FollowedRow>,
    table: &Table,
    adapted: &Table,
    found: Option<&Table>,
) -> Option<(Reason, String)> {
    match (followed, found) {
        (
            Some(FollowedRow {
                stopped: Some(stop),
                ..
            }),
            _,
        ) => Some(described(stop)),
        (_, None) => Some((Reason::Schema, "the target has no such table".to_owned())),
        (None, _) => Some((
            Reason::Unsupported,
            "it is not part of the migration".to_owned(),
        )),
        (Some(row), _) if super::policy::differ(row, table) => Some((
            Reason::NotRead,
            "the migration runs with other policies than the task file has now: restart \
             `rowproof migrate`"
                .to_owned(),
        )),
        (_, Some(found)) => {
            let differences = compare(adapted, found);
            (!differences.is_empty()).then(|| (Reason::Schema, differences.join("; ")))
        }
    }
}

/// Compares a table's definition with what the target has. That of a table which a DDL has stopped
/// is not what the target is to have.
pub(super) fn judge_definition(
    followed: Option<&FollowedRow>,
    wanted: &Table,
    found: Option<&Table>,
    spellings: &Spellings,
) -> SchemaVerdict {
    let stopped = followed.and_then(|row| row.stopped.as_ref());
    match (stopped, found) {
        (Some(stop), _) => SchemaVerdict::unproven(stop.reason.clone()),
        (None, Some(found)) => SchemaVerdict::of(differences(wanted, found, spellings)),
        (None, None) => SchemaVerdict::missing(create_table(wanted, None)),
    }
}

pub(super) fn unread(name: TableName, verdict: Verdict) -> CheckedTable {
    CheckedTable {
        name,
        verdict,
        counts: Counts::default(),
        digest: String::new(),
        definition: SchemaVerdict::unproven("it was not compared"),
        policies: Vec::new(),
        filter: None,
        no_ledger: None,
    }
}

/// Reads and compares everything that is planned, and keeps the verdicts.
async fn run(
    task: &Task,
    journal: Journal,
    fence: Fence,
    plan: &Plan,
    (ready, openings): (Vec<Links>, Openings),
) -> Result<Vec<CheckedTable>> {
    let tables: BTreeMap<TableName, Arc<Table>> = plan
        .work
        .iter()
        .map(|work| (work.table.name.clone(), Arc::clone(&work.table)))
        .collect();
    let again = |work: &StripeWork| StripeWork {
        table: Arc::clone(&work.table),
        range: work.range.clone(),
    };
    let checking = Arc::new(Checking {
        task: task.clone(),
        digest_key: journal.digest_key().await?,
        journal,
        fence: Mutex::new(fence),
        queue: Mutex::new(plan.work.iter().map(again).collect()),
        proofs: Mutex::new(
            tables
                .keys()
                .map(|name| (name.clone(), TableProof::default()))
                .collect(),
        ),
        spare: Spare::default(),
        bar: progress(tables.values().map(|table| table.rows_estimate).sum()),
        openings,
    });
    let mut workers = JoinSet::new();
    for links in ready {
        workers.spawn(Arc::clone(&checking).work(links));
    }
    while let Some(worker) = workers.join_next().await {
        worker.map_err(|_| super::migrate::panicked("a worker of the check"))??;
    }
    checking.bar.finish_and_clear();
    for unread in &plan.unread {
        if let Verdict::Unproven { reason, detail } = &unread.verdict {
            checking
                .journal
                .withdraw(&unread.name, fence.w, *reason, detail)
                .await?;
        }
    }
    let mut checked = Vec::new();
    for (name, table) in tables {
        checked.push(checking.conclude(&name, &table).await?);
    }
    checking.openings.close(&checking.journal).await?;
    Ok(checked)
}

fn progress(rows: u64) -> ProgressBar {
    let bar = ProgressBar::new(rows);
    let style = ProgressStyle::with_template("{bar:30} {human_pos} of about {human_len} rows");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    if bar.is_hidden() {
        eprintln!(
            "check: reading about {} rows on both sides",
            HumanCount(rows)
        );
    }
    bar
}

impl Checking {
    async fn work(self: Arc<Self>, mut links: Links) -> Result<()> {
        loop {
            let work = self
                .queue
                .lock()
                .expect("no holder of the queue panics")
                .pop_front();
            let Some(work) = work else {
                return Ok(());
            };
            if let Err(error) = self.stripe(&mut links, &work).await {
                links.reset();
                let reason = match error.kind() {
                    ErrorKind::Expired => Reason::Expired,
                    ErrorKind::SchemaChanged => Reason::SchemaChanged,
                    ErrorKind::Broken | ErrorKind::Lease => return Err(error),
                    _ => Reason::Failed,
                };
                self.with_proof(&work.table.name, |proof| {
                    proof.fail(reason, error.message())
                });
            }
        }
    }

    fn with_proof(&self, name: &TableName, change: impl FnOnce(&mut TableProof)) {
        let mut proofs = self.proofs.lock().expect("no holder of the proofs panics");
        change(proofs.entry(name.clone()).or_default());
    }

    /// Goes through one stripe. While the target's rows of a chunk are read, the source's rows of
    /// the next one are, so that both servers always have work.
    async fn stripe(&self, links: &mut Links, work: &StripeWork) -> Result<()> {
        let mut walk = Walk::new(work.range.clone(), work.table.row_bytes_estimate);
        let mut fence = *self.fence.lock().expect("no holder of the fence panics");
        let mut ahead: Option<(Chunk, Rows)> = None;
        let mut retries = Retries::new();
        let mut refences = REFENCE_TRIES;
        let mut refenced = false;
        loop {
            let before = walk.clone();
            let advance = async {
                if refenced {
                    self.assert_followed(links, &work.table.name, fence).await?;
                }
                match work.table.pairing() {
                    Pairing::Ranges => {
                        self.advance(links, work, fence, &mut walk, &mut ahead)
                            .await
                    }
                    Pairing::Buckets | Pairing::Copies => {
                        self.whole(links, &work.table, fence).await.map(|()| false)
                    }
                }
            };
            match advance.await {
                Ok(false) => return Ok(()),
                Ok(true) => {
                    retries = Retries::new();
                    refences = REFENCE_TRIES;
                    refenced = false;
                }
                Err(error) => {
                    links.reset();
                    walk = before;
                    if error.kind() == ErrorKind::Expired && refences > 0 {
                        refences -= 1;
                        fence = self.refence(links, fence).await?;
                        refenced = true;
                        // The rows in hand were read at the old fence: the walk goes back to them.
                        if let Some((chunk, _)) = ahead.take() {
                            walk.rewind_to(&chunk);
                        }
                    } else {
                        retries.pause(error).await?;
                    }
                }
            }
        }
    }

    /// Compares a table whose rows have no common order.
    async fn whole(&self, links: &mut Links, table: &Arc<Table>, fence: Fence) -> Result<()> {
        let ledger = self.openings.gathering(table, fence);
        let (at, findings) = (self.moment(fence), self.findings(fence, ledger.as_ref()));
        let tally = compare_whole(links, at, table, &self.digest_key, &findings).await?;
        self.openings.gather(&table.name, ledger);
        self.with_proof(&table.name, |proof| proof.add(fence, &tally));
        self.bar.inc(tally.source.rows());
        Ok(())
    }

    fn moment(&self, fence: Fence) -> Moment<'_> {
        Moment {
            task: &self.task.name,
            w: fence.w,
            s: Some(fence.s),
        }
    }

    fn findings<'a>(&'a self, fence: Fence, ledger: Option<&'a Mutex<Ledger>>) -> Findings<'a> {
        Findings {
            journal: &self.journal,
            fence,
            by: FoundBy::Check,
            clearing: None,
            ledger,
        }
    }

    /// Compares the chunk in hand while the next one is read; false when there is none left.
    async fn advance(
        &self,
        links: &mut Links,
        work: &StripeWork,
        fence: Fence,
        walk: &mut Walk,
        ahead: &mut Option<(Chunk, Rows)>,
    ) -> Result<bool> {
        let table = &work.table;
        let ledger = self.openings.gathering(table, fence);
        let (at, findings) = (self.moment(fence), self.findings(fence, ledger.as_ref()));
        let (source, target) = at.sessions(links).await?;
        let Some((chunk, source_rows)) = &*ahead else {
            *ahead = read_chunk(source, table, walk, &self.spare).await?;
            return Ok(ahead.is_some());
        };
        let mut target_rows = self.spare.take();
        let sql = chunk.range.target_sql(table, at.s);
        let (next, whole) = tokio::join!(
            read_chunk(source, table, walk, &self.spare),
            target.scan_up_to(sql, &mut target_rows, CHUNK_BYTES_MAX)
        );
        let (next, whole) = (next?, whole?);
        let rows = source_rows.len() as u64;
        let tally = if whole {
            let Some((_, source_rows)) = std::mem::replace(ahead, next) else {
                return Ok(false);
            };
            let (key, rows) = (&self.digest_key, (source_rows, target_rows));
            let comparison = compare_rows(table, key, rows, ledger.is_some(), &self.spare).await?;
            findings.keep(&table.name, &comparison).await?
        } else {
            drop(target_rows);
            let (key, range) = (&self.digest_key, chunk.range.clone());
            let tally = compare_in_pieces(links, at, table, key, range, &findings).await?;
            *ahead = next;
            tally
        };
        self.openings.gather(&table.name, ledger);
        self.with_proof(&table.name, |proof| proof.add(fence, &tally));
        self.bar.inc(rows);
        Ok(true)
    }

    /// Finds a newer fence, for snapshots that can no longer be read.
    async fn refence(&self, links: &mut Links, old: Fence) -> Result<Fence> {
        let newer = wait_for_fence(&self.task, &mut links.target, old.w + 1).await?;
        let fence = newer.map_err(|why| Error::new(ErrorKind::Expired, why))?;
        *self.fence.lock().expect("no holder of the fence panics") = fence;
        Ok(fence)
    }

    /// Asserts that the table is still followed: at a newer fence a stopped one is not what the
    /// source holds there.
    async fn assert_followed(
        &self,
        links: &mut Links,
        name: &TableName,
        fence: Fence,
    ) -> Result<()> {
        let followed = Record::new(&self.task.name)
            .followed_as_of(links.target.session().await?, Some(fence.s))
            .await?;
        let stopped = followed
            .into_iter()
            .find(|row| row.name == *name)
            .and_then(|row| row.stopped);
        match stopped {
            Some(stop) => {
                let (_, what) = described(&stop);
                Err(Error::new(ErrorKind::SchemaChanged, what))
            }
            None => Ok(()),
        }
    }

    /// Gives a table its verdict and keeps it.
    async fn conclude(&self, name: &TableName, table: &Table) -> Result<CheckedTable> {
        let proof = {
            let mut proofs = self.proofs.lock().expect("no holder of the proofs panics");
            proofs.remove(name).unwrap_or_default()
        };
        let verdict = proof.verdict();
        let mut w = self.fence.lock().expect("no holder of the fence panics").w;
        match &verdict {
            Verdict::Equal { fence, .. } | Verdict::Different { fence, .. } => {
                w = fence.w;
                self.journal.close_differences_before(name, *fence).await?;
            }
            Verdict::Unproven { .. } => {}
        }
        self.openings
            .conclude(&self.journal, name, &verdict)
            .await?;
        let digest = proof.source().to_string();
        let (counts, by) = (proof.counts(), FoundBy::Check);
        self.journal
            .set_table(table, by, &verdict, counts, &digest, w)
            .await?;
        Ok(CheckedTable {
            name: name.clone(),
            verdict,
            counts,
            digest,
            definition: SchemaVerdict::unproven("it was not compared"),
            policies: table.policies(),
            filter: table.filter.clone(),
            no_ledger: None,
        })
    }
}
