//! The migration from beginning to end, resumable at any moment.

use super::applier::APPLIER_SLOT;
use super::changefeed::ChangefeedWatch;
use super::chunk_read::Spare;
use super::crew::Crew;
use super::follow::{Ended, Following};
use super::lease::{Lease, StateLock};
use super::link::Links;
use super::load::Load;
use super::own_feed::own_feed;
use super::pace::{keep_pace, set_limits};
use super::precheck::{Level, precheck, start_of_load};
use super::prove::Prover;
use super::resume::Start;
use super::schema::Making;
use super::spooling::Spooling;
use super::status::StatusBoard;
use super::unproven::proof_queue;
use crate::broker::{Feed, Need};
use crate::database::{Catalog, Record, Session, TaskRow, collations, current_ts, newest_fence};

use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::feed::{CommitTs, Offsets};
use crate::fence::{Fence, FenceRow, FenceState};
use crate::journal::{Backlog, FoundBy, Journal, LedgerStep, Phase, Status, TableRow};
use crate::proof::{Counts, How, Reason, TableProof, Verdict};
use crate::schema::{Table, TableName};
use crate::task::Task;
use crate::web;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the wanted state is reached.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where a migration stops by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Until {
    /// The tables are made.
    Schema,
    /// Every table is loaded and proven.
    Load,
    /// Every change is proven that was committed when following began.
    CaughtUp,
}

/// How a migration ended.
#[derive(Debug)]
pub struct MigrateOutcome {
    /// What is known of every table.
    pub tables: Vec<TableRow>,
    /// The newest proven fence.
    pub proven: Option<Fence>,
}

/// Makes the error of a part that panicked.
pub fn panicked(part: &str) -> Error {
    Error::new(ErrorKind::Broken, format!("{part} panicked")).advise("please report this")
}

/// Makes the error of work that the operator stopped.
pub fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "stopped by the operator")
        .advise("run the same command again: it goes on where it stopped")
}

/// Migrates until the wanted state is reached, `stop` is cancelled, or something fails for good.
///
/// # Errors
/// Everything that cannot pass by itself; a restart needs no flag (INV-3).
pub async fn migrate(
    task: &Task,
    until: Option<Until>,
    stop: CancellationToken,
) -> Result<MigrateOutcome> {
    let journal = Journal::open(&task.state_dir).await?;
    let _lock = StateLock::take(&task.state_dir)?;
    let listener = tokio::net::TcpListener::bind(task.listen)
        .await
        .map_err(|error| {
            Error::new(
                ErrorKind::Usage,
                format!("[web] listen = \"{}\": {error}", task.listen),
            )
            .advise("choose a free port on 127.0.0.1")
        })?;
    eprintln!("page: http://{}", task.listen);
    let status = StatusBoard::new(&task.name);
    if let Some((fence, _)) = journal.proven().await? {
        status.update(|status| status.proven = Some(fence));
    }
    let side = stop.child_token();
    set_limits(task, &journal).await?;
    let web = web::serve(listener, journal.clone(), task.limits, side.clone());
    let web = tokio::spawn(web);
    // Limits can be changed until the work is over, also while it winds down.
    let over = CancellationToken::new();
    let pace = keep_pace(
        task.clone(),
        journal.clone(),
        Some(status.clone()),
        over.clone(),
    );
    let pace = tokio::spawn(pace);
    let keeper = tokio::spawn(status.clone().keep(journal.clone(), side.clone()));
    let run = Run {
        task: task.clone(),
        journal,
        status,
        stop: stop.child_token(),
    };
    let result = run.run(until).await;
    run.status.update(|status| match &result {
        Ok(()) => status.phase = Phase::Stopped,
        Err(error) if error.kind() == ErrorKind::Interrupted => status.phase = Phase::Stopped,
        Err(error) => {
            status.phase = Phase::Failed;
            status.waiting_for = Some(error.to_string());
        }
    });
    side.cancel();
    over.cancel();
    let _ = pace.await;
    let _ = keeper.await;
    let _ = web.await;
    run.status.write(&run.journal).await;
    result?;
    let proven = run.journal.proven().await?.map(|(fence, _)| fence);
    Ok(MigrateOutcome {
        tables: run.journal.tables().await?,
        proven,
    })
}

/// One run of a migration.
pub(super) struct Run {
    pub(super) task: Task,
    pub(super) journal: Journal,
    pub(super) status: StatusBoard,
    /// Cancelled when the operator stops the work, or it cannot go on.
    pub(super) stop: CancellationToken,
}

impl Run {
    async fn run(&self, until: Option<Until>) -> Result<()> {
        let record = Record::new(&self.task.name);
        let mut links = Links::new(&self.task);
        let state_id = self.journal.state_id().await?;
        let prepare = async |links: &mut Links| {
            let target = links.target.session().await?;
            record.prepare(target).await?;
            record.task(target).await
        };
        let known = links.retried("preparing the target", prepare).await?;
        self.assert_own_state(known.as_ref(), &state_id)?;
        if known.is_none() {
            self.assert_possible().await?;
        }
        let slots = u32::try_from(Crew::size(&self.task)).expect("workers are few") + 1;
        let take = async |links: &mut Links| {
            Lease::take(&mut links.target, &record, &state_id, slots).await
        };
        self.waiting_for(
            "the target to end what an earlier process of this task has under way there: it holds a \
             row of rowproof.slot",
        );
        let lease = links.retried("taking the lease", take).await?;
        self.status.update(|status| status.waiting_for = None);
        failpoint::pass("lease-taken");
        let spooling = Spooling::of(&self.task, &self.journal, &state_id, &self.status)?;
        // The lease is kept until the work is over, also while it winds down.
        let keep = CancellationToken::new();
        let keeper = tokio::spawn(lease.keep(self.task.clone(), record.clone(), keep.clone()));
        let result = tokio::select! {
            result = self.hold(&record, lease, (&state_id, &spooling), until) => result,
            lost = watch(keeper) => lost,
        };
        keep.cancel();
        result
    }

    async fn hold(
        &self,
        record: &Record,
        lease: Lease,
        (state_id, spooling): (&str, &Spooling),
        until: Option<Until>,
    ) -> Result<()> {
        let mut links = Links::new(&self.task);
        let begin = async |links: &mut Links| self.begin(record, links, state_id).await;
        let task_row = links.retried("beginning the task", begin).await?;
        self.status
            .update(|status| status.base = Some(task_row.base));
        let work = self.work(record, (links, lease), &task_row, spooling, until);
        match ChangefeedWatch::of(self, record, task_row.base)? {
            Some(watch) => watch.beside(work).await,
            None => work.await,
        }
    }

    /// Does what is left of the migration.
    async fn work(
        &self,
        record: &Record,
        (mut links, lease): (Links, Lease),
        task_row: &TaskRow,
        spooling: &Spooling,
        until: Option<Until>,
    ) -> Result<()> {
        let mut need = None;
        if !task_row.loaded {
            need = spooling.begin(&task_row.offsets, task_row.base);
            let make =
                async |links: &mut Links| self.make_tables(record, links, task_row.base).await;
            let tables = links.retried("making the tables", make).await?;
            if until == Some(Until::Schema) {
                return Ok(());
            }
            let load = self.load(record, &mut links, lease, task_row, &tables);
            tokio::select! {
                loaded = load => loaded?,
                error = spooling.failed() => return Err(error),
            }
        }
        if matches!(until, Some(Until::Schema | Until::Load)) || self.task.feed.is_none() {
            return Ok(());
        }
        self.follow(record, &mut links, lease, (spooling, need), until)
            .await
    }

    /// A lost or foreign state directory is noticed, not guessed (INV-3).
    fn assert_own_state(&self, known: Option<&TaskRow>, state_id: &str) -> Result<()> {
        match known {
            Some(row) if row.state_id != state_id => Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "task {} on the target belongs to another state directory than {}",
                    self.task.name,
                    self.task.state_dir.display()
                ),
            )
            .advise(
                "use the state directory with which it began, or give this task a name of its own",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses what precheck finds impossible, before anything is written.
    async fn assert_possible(&self) -> Result<()> {
        let findings = precheck(&self.task).await?;
        let errors: Vec<String> = findings
            .iter()
            .filter(|finding| finding.level == Level::Error)
            .map(|finding| finding.to_string())
            .collect();
        if errors.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "precheck found what makes this migration impossible:\n{}",
                errors.join("\n")
            ),
        ))
    }

    /// Fixes T0 and records it with the offsets from which the feed covers what commits later, unless
    /// that was done before.
    async fn begin(&self, record: &Record, links: &mut Links, state_id: &str) -> Result<TaskRow> {
        if let Some(known) = record.task(links.target.session().await?).await? {
            return Ok(known);
        }
        let source = links.source.session().await?;
        let (base, offsets) = match &self.task.feed {
            Some(feed) => {
                self.waiting_for("the feed to show that it covers the start of the load");
                // What an attempt that recorded no task has seen does not count.
                self.journal.forget_topic_ids().await?;
                let mut feed = own_feed(feed, &self.journal).await?;
                start_of_load(&mut feed, source).await?
            }
            None => (current_ts(source).await?, Offsets::default()),
        };
        let row = TaskRow {
            state_id: state_id.to_owned(),
            base,
            offsets,
            loaded: false,
        };
        // What an earlier task with this state directory met is another feed's.
        self.journal.set_changefeed(None).await?;
        record
            .create_task(links.target.session().await?, &row)
            .await?;
        failpoint::pass("task-recorded");
        Ok(row)
    }

    fn waiting_for(&self, reason: &str) {
        self.status
            .update(|status| status.waiting_for = Some(reason.to_owned()));
    }

    fn enter(&self, phase: Phase) {
        self.status.update(|status| {
            status.phase = phase;
            status.waiting_for = None;
        });
    }

    /// Looks at what the target has, to make what it lacks.
    async fn making<'a>(&'a self, record: &'a Record, target: &mut Session) -> Result<Making<'a>> {
        Ok(Making {
            task: &self.task,
            record,
            journal: &self.journal,
            collations: collations(target).await?,
            existing: Catalog::read(target, &self.task.scope).await?,
        })
    }

    async fn make_tables(
        &self,
        record: &Record,
        links: &mut Links,
        base: CommitTs,
    ) -> Result<Vec<Arc<Table>>> {
        self.enter(Phase::Schema);
        let (source, target) = links.sessions().await?;
        source.set_snapshot(Some(base)).await?;
        let wanted = Catalog::read(source, &self.task.scope).await?;
        let making = self.making(record, target).await?;
        let known = record.followed(target).await?;
        for table in &wanted.tables {
            let known = known.iter().any(|row| row.name == table.name);
            making.table((source, target), known, table, base).await?;
            failpoint::pass("table-made");
            let verdict = Verdict::unproven(Reason::NotRead, "it is being loaded");
            let counts = Counts::default();
            self.journal
                .set_table(table, FoundBy::Load, &verdict, counts, "", base)
                .await?;
        }
        making.views(target, &wanted.views).await?;
        making.remember_spellings(target, &wanted).await?;
        let names: Vec<TableName> = wanted
            .tables
            .iter()
            .map(|table| table.name.clone())
            .collect();
        self.journal.forget_tables_but(&names).await?;
        Ok(wanted.tables.into_iter().map(Arc::new).collect())
    }

    async fn load(
        &self,
        record: &Record,
        links: &mut Links,
        lease: Lease,
        task_row: &TaskRow,
        tables: &[Arc<Table>],
    ) -> Result<()> {
        self.enter(Phase::Load);
        self.status.update(|status| {
            status.load.tables = tables.len() as u64;
            status.load.rows_estimate = tables.iter().map(|table| table.rows_estimate).sum();
        });
        let load = Arc::new(Load {
            task: self.task.clone(),
            record: record.clone(),
            journal: self.journal.clone(),
            digest_key: self.journal.digest_key().await?,
            status: self.status.clone(),
            lease,
            base: task_row.base,
            stop: self.stop.clone(),
            spare: Spare::default(),
        });
        let proofs = load.run(tables).await?;
        let finish = async |links: &mut Links| {
            self.finish_load(record, links, lease, task_row, (tables, &proofs))
                .await
        };
        links.retried("ending the load", finish).await
    }

    /// Makes the first fence of what is loaded and proven. After a fault it is called again.
    async fn finish_load(
        &self,
        record: &Record,
        links: &mut Links,
        lease: Lease,
        task_row: &TaskRow,
        (tables, proofs): (&[Arc<Table>], &BTreeMap<TableName, TableProof>),
    ) -> Result<()> {
        let fence_row = FenceRow {
            state: FenceState::Complete,
            w: task_row.base,
            next_w: task_row.base,
            offsets: task_row.offsets.clone(),
        };
        let target = links.target.session().await?;
        let making = self.making(record, target).await?;
        for table in tables {
            making.after_rows(target, table).await?;
        }
        failpoint::pass("load-before-verdicts");
        // The verdicts come before the fence: after a crash in between they are given again.
        self.keep_verdicts(
            tables,
            proofs,
            Fence {
                w: task_row.base,
                s: 0,
            },
        )
        .await?;
        failpoint::pass("load-before-finished");
        if record.fence(target).await?.is_none() {
            record
                .finish_load(target, APPLIER_SLOT, lease.epoch, &fence_row)
                .await?;
        }
        failpoint::pass("load-finished");
        let fence = newest_fence(target, &self.task.name).await?;
        let fence = fence.map_or(
            Fence {
                w: task_row.base,
                s: 0,
            },
            |(_, fence)| fence,
        );
        let (offsets, nothing) = (&task_row.offsets, LedgerStep::default());
        self.journal.set_proven(fence, offsets, &nothing).await?;
        failpoint::pass("load-proven");
        self.keep_verdicts(tables, proofs, fence).await?;
        self.journal.end_load_ledger(None).await?;
        self.status.update(|status| {
            status.fence = Some(fence);
            status.proven = Some(fence);
        });
        Ok(())
    }

    async fn keep_verdicts(
        &self,
        tables: &[Arc<Table>],
        proofs: &BTreeMap<TableName, TableProof>,
        fence: Fence,
    ) -> Result<()> {
        for table in tables {
            let Some(proof) = proofs.get(&table.name) else {
                continue;
            };
            let verdict = match proof.verdict() {
                Verdict::Equal { .. } => {
                    self.journal.begin_loaded_ledger(&table.name).await?;
                    let how = How::Read;
                    Verdict::Equal { fence, how }
                }
                Verdict::Different { rows, .. } => Verdict::Different { fence, rows },
                unproven => unproven,
            };
            let digest = proof.source().to_string();
            self.journal
                .set_table(
                    table,
                    FoundBy::Load,
                    &verdict,
                    proof.counts(),
                    &digest,
                    fence.w,
                )
                .await?;
        }
        Ok(())
    }

    async fn follow(
        &self,
        record: &Record,
        links: &mut Links,
        lease: Lease,
        (spooling, mut need): (&Spooling, Option<Need>),
        until: Option<Until>,
    ) -> Result<()> {
        self.enter(Phase::Follow);
        let Some(feed_task) = &self.task.feed else {
            return Ok(());
        };
        let begin = async |links: &mut Links| {
            self.request_unknown(record, links).await?;
            current_ts(links.source.session().await?).await
        };
        let asked = links.retried("beginning to follow", begin).await?;
        loop {
            // Until that is read, the spool goes on to be filled without a pause.
            let goes_on = spooling.go_on()?;
            drop(need.take());
            let feed = own_feed(feed_task, &self.journal).await?;
            let feed = feed.with_spool(spooling.spool().clone(), goes_on);
            let ended = self.follow_on(
                record,
                links,
                lease,
                (feed, spooling),
                until.map(|until| (until, asked)),
            );
            if ended.await? == Ended::Stopped {
                return Ok(());
            }
        }
    }

    /// Asks for a base of the tables that appeared while others were followed and have none.
    async fn request_unknown(&self, record: &Record, links: &mut Links) -> Result<()> {
        let target = links.target.session().await?;
        for row in record.followed(target).await? {
            if row.table.is_none() && row.stopped.is_some() && self.task.scope.contains(&row.name) {
                self.journal.request_bases(&[row.name]).await?;
            }
        }
        let mut asked: BTreeSet<TableName> =
            self.journal.base_requests().await?.into_iter().collect();
        let begun = record.fresh_bases(target).await?;
        asked.extend(begun.into_iter().map(|base| base.table.name));
        self.status.begin_bases(&asked);
        Ok(())
    }

    /// Follows until it is told to stop, or must begin again for a fresh base.
    async fn follow_on(
        &self,
        record: &Record,
        links: &mut Links,
        lease: Lease,
        (feed, spooling): (Feed, &Spooling),
        until: Option<(Until, CommitTs)>,
    ) -> Result<Ended> {
        let Start {
            follow,
            offsets,
            begun,
        } = links
            .retried("taking up following", async |links: &mut Links| {
                self.resume(record, links, &feed).await
            })
            .await?;
        let stop = self.stop.child_token();
        self.status
            .update(|status| status.to_prove = Backlog::default());
        let (jobs, queue) = proof_queue(self.status.clone());
        let prover = Prover {
            task: self.task.clone(),
            record: record.clone(),
            journal: self.journal.clone(),
            digest_key: self.journal.digest_key().await?,
            status: self.status.clone(),
            spooling: spooling.clone(),
        };
        let prover = tokio::spawn(prover.run(queue));
        let following = Following {
            task: self.task.clone(),
            record: record.clone(),
            journal: self.journal.clone(),
            digest_key: self.journal.digest_key().await?,
            status: self.status.clone(),
            lease,
            spooling: spooling.clone(),
            stop: stop.clone(),
        };
        let watcher = tokio::spawn(stop_when_reached(self.status.clone(), until, stop.clone()));
        // The prover proves what was applied before it ends, so that a stopped migration leaves
        // nothing unproven; when it fails, following stops with it.
        let prover = async {
            let result = prover.await.map_err(|_| panicked("the prover"))?;
            stop.cancel();
            result
        };
        let (followed, proven) =
            tokio::join!(following.run(feed, follow, &offsets, begun, jobs), prover);
        watcher.abort();
        proven.and(followed)
    }
}

/// Ends with an error when the lease is lost, and otherwise never.
async fn watch(keeper: JoinHandle<Result<()>>) -> Result<()> {
    match keeper.await {
        Ok(Ok(())) => std::future::pending().await,
        Ok(Err(error)) => Err(error),
        Err(_) => Err(panicked("the keeper of the lease")),
    }
}

/// Stops following when the wanted state is reached.
async fn stop_when_reached(
    status: StatusBoard,
    until: Option<(Until, CommitTs)>,
    stop: CancellationToken,
) {
    let Some((Until::CaughtUp, asked)) = until else {
        return;
    };
    let is_reached = |status: Status| {
        let proven = status.proven.is_some_and(|proven| proven.w >= asked);
        proven && status.fresh_bases.is_empty()
    };
    while !is_reached(status.snapshot()) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    stop.cancel();
}
