//! Following the source: the feed is read, folded, applied, and fenced, batch by batch.

use super::copies::{Adjustment, Wanted};
use super::filter::read_filtered;
use super::lease::Lease;
use super::link::{Link, Retries};
use super::prove::ProofJob;
use super::schema::Making;
use super::status::StatusBoard;
use crate::apply::{delete_keys, insert_rows};
use crate::broker::{Feed, FeedEvent};
use crate::database::{Catalog, Record, Session, collations, newest_fence};
use crate::engine::{Batch, Follow};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, FoldedTable, Offsets, Part};
use crate::fence::{Fence, FenceRow, FenceState};
use crate::journal::{FoundBy, Journal};
use crate::proof::{Counts, Reason, Verdict};
use crate::row::DigestKey;
use crate::schema::{Table, TableName, obstacles};
use crate::task::Task;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The slot of the applier; the load's workers have the others.
pub const APPLIER_SLOT: u32 = 0;

/// The rows up to which a batch is one transaction, so that readers of the target always see a
/// state that the source had.
const ROWS_PER_TRANSACTION: usize = 50_000;

/// How long after a fence the next one is made when nothing has changed.
const IDLE_FENCE: Duration = Duration::from_millis(100);

/// How many records are read ahead of the applier.
const RECORDS_AHEAD: usize = 1_024;

/// The bytes of records that are read ahead of the applier; a larger one comes alone (INV-8).
const BYTES_AHEAD: u32 = 32 << 20;

/// What the feed brought, and its share of what may be read ahead.
type Ahead = (FeedEvent, OwnedSemaphorePermit);

/// The bytes of waiting changes above which a batch is taken before more is read.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// Everything that following needs.
#[derive(Debug)]
pub struct Following {
    /// The task.
    pub task: Task,
    /// rowproof's record on the target.
    pub record: Record,
    /// The journal.
    pub journal: Journal,
    /// The key of the row digests.
    pub digest_key: DigestKey,
    /// The status.
    pub status: StatusBoard,
    /// The lease under which rows are written.
    pub lease: Lease,
    /// Where batches go to be proven.
    pub proofs: mpsc::Sender<ProofJob>,
    /// Cancelled when the operator stops the work, or the wanted state is reached.
    pub stop: CancellationToken,
}

impl Following {
    /// Follows until it is told to stop.
    ///
    /// # Errors
    /// If the feed or the target fails for good, or another instance takes over.
    pub async fn run(self, mut feed: Feed, mut follow: Follow, offsets: &Offsets) -> Result<()> {
        feed.seek(offsets).await?;
        let (records, mut inbox) = mpsc::channel(RECORDS_AHEAD);
        let reader = tokio::spawn(read_ahead(feed, records, self.stop.clone()));
        let mut links = (Link::source(&self.task), Link::target(&self.task));
        let mut last_fence = Instant::now();
        let mut arrived = Vec::new();
        let result = loop {
            arrived.clear();
            let received = tokio::select! {
                () = self.stop.cancelled() => break Ok(()),
                received = inbox.recv_many(&mut arrived, RECORDS_AHEAD) => received,
            };
            if received == 0 {
                break Ok(());
            }
            if let Err(error) = self.take_in(&mut follow, &mut arrived, &mut inbox) {
                break Err(error);
            }
            let due = last_fence.elapsed() >= IDLE_FENCE || follow.waiting_bytes() > 0;
            if due {
                match self.step(&mut follow, &mut links).await {
                    Ok(true) => last_fence = Instant::now(),
                    Ok(false) => {}
                    Err(error) => break Err(error),
                }
            }
        };
        drop(inbox);
        let read = reader
            .await
            .map_err(|_| super::migrate::panicked("the reader of the feed"))?;
        result.and(read)
    }

    /// Takes in what has arrived and what arrived meanwhile, up to a bound.
    fn take_in(
        &self,
        follow: &mut Follow,
        arrived: &mut Vec<Ahead>,
        inbox: &mut mpsc::Receiver<Ahead>,
    ) -> Result<()> {
        loop {
            for (event, _) in arrived.drain(..) {
                match event {
                    FeedEvent::Topic { name, offsets } => follow.on_topic(&name, offsets),
                    FeedEvent::Record(record) => {
                        for message in record.messages {
                            follow.on_message(record.partition, record.offset, message)?;
                        }
                    }
                }
            }
            let waiting = follow.waiting_bytes();
            self.status
                .update(|status| status.waiting_bytes = waiting as u64);
            if waiting > WAITING_BYTES_MAX {
                return Ok(());
            }
            match inbox.try_recv() {
                Ok(record) => arrived.push(record),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Makes the next fence if the watermark allows one.
    async fn step(&self, follow: &mut Follow, links: &mut (Link, Link)) -> Result<bool> {
        let Some(created) = follow.take_stretch(|name| self.task.scope.contains(name))? else {
            return Ok(false);
        };
        if !created.is_empty() {
            let mut retries = Retries::new();
            while let Err(error) = self.create_tables(follow, links, &created).await {
                links.0.reset();
                links.1.reset();
                retries
                    .pause(error.at("making a table that the feed created"))
                    .await?;
            }
        }
        let Some(mut batch) = follow.batch()? else {
            return Ok(false);
        };
        let mut retries = Retries::new();
        let fence = loop {
            match self.apply(follow, &mut batch, links).await {
                Ok(fence) => break fence,
                Err(error) => {
                    links.0.reset();
                    links.1.reset();
                    retries.pause(error.at("applying a batch")).await?;
                }
            }
        };
        self.status.update(|status| {
            status.fence = Some(fence);
            status.batches += 1;
            status.changes += batch.changes as u64;
        });
        // The proof reads both sides by key: the images are done with.
        batch.parts.iter_mut().for_each(Part::forget_images);
        let job = ProofJob { fence, batch };
        // The prover ends first only when it failed; its error is the one to report.
        let _ = self.proofs.send(job).await;
        Ok(true)
    }

    /// Makes tables that the feed created, with the definition that the source has at the end of
    /// the stretch. A table that cannot be carried is left to the machine, which stops it.
    async fn create_tables(
        &self,
        follow: &mut Follow,
        links: &mut (Link, Link),
        created: &BTreeSet<TableName>,
    ) -> Result<()> {
        let source = links.0.session().await?;
        source.set_snapshot(follow.taken_to()).await?;
        let wanted = Catalog::read(source, &self.task.scope).await?;
        let target = links.1.session().await?;
        let making = Making {
            task: &self.task,
            record: &self.record,
            journal: &self.journal,
            collations: collations(target).await?,
            existing: Catalog::read(target, &self.task.scope).await?,
        };
        let choices = &self.task.choices;
        for name in created {
            let Some(table) = wanted
                .find(name)
                .filter(|table| obstacles(table, choices, &making.collations).is_empty())
                .filter(|table| !is_taken(follow, table))
            else {
                continue;
            };
            follow.add_table(Arc::new(table.clone()));
            let base = follow.tables()[&table.name].base;
            making.table((source, target), false, table, base).await?;
            making.after_rows(target, table).await?;
            let verdict = Verdict::unproven(Reason::NotRead, "the feed created it; check reads it");
            let counts = Counts::default();
            self.journal
                .set_table(table, FoundBy::Batch, &verdict, counts, "", base)
                .await?;
        }
        making.remember_spellings(target, &wanted).await
    }

    /// Applies a batch and returns its fence. After a fault it is called again: the fence row says
    /// whether the batch is in.
    async fn apply(
        &self,
        follow: &Follow,
        batch: &mut Batch,
        links: &mut (Link, Link),
    ) -> Result<Fence> {
        let (source, target) = (&mut links.0, links.1.session().await?);
        let complete = FenceRow {
            state: FenceState::Complete,
            w: batch.to,
            next_w: batch.to,
            offsets: batch.offsets.clone(),
        };
        let before = self.record.fence(target).await?.ok_or_else(no_fence)?;
        if before != complete {
            if before.w < batch.from || before.next_fence_at_least() > batch.to {
                return Err(out_of_order(&before, batch));
            }
            let keys: usize = batch.parts.iter().map(Part::keys_at_most).sum();
            let whole = keys <= ROWS_PER_TRANSACTION && before.state == FenceState::Complete;
            if !whole {
                self.begin_large(target, &before, batch).await?;
            }
            self.record
                .begin(target, APPLIER_SLOT, self.lease.epoch)
                .await?;
            self.write(follow, batch, source, target, whole).await?;
            for name in &batch.stopped {
                if let Some(stop) = &follow.tables()[name].stopped {
                    self.record
                        .stop_followed(target, name, stop.at, &stop.reason)
                        .await?;
                }
            }
            self.record.set_fence(target, &complete).await?;
            target.execute("COMMIT").await?;
        }
        let (row, fence) = newest_fence(target, &self.task.name)
            .await?
            .ok_or_else(no_fence)?;
        if row != complete {
            return Err(out_of_order(&row, batch));
        }
        Ok(fence)
    }

    /// Says that the target is between two fences: after a crash the next one is made at the end of
    /// this batch or later.
    async fn begin_large(
        &self,
        target: &mut Session,
        before: &FenceRow,
        batch: &Batch,
    ) -> Result<()> {
        let applying = FenceRow {
            state: FenceState::Applying,
            next_w: batch.to.max(before.next_w),
            ..before.clone()
        };
        self.record
            .begin(target, APPLIER_SLOT, self.lease.epoch)
            .await?;
        self.record.set_fence(target, &applying).await?;
        target.execute("COMMIT").await.map(|_| ())
    }

    /// Writes a batch: every key that was touched is deleted, in all tables, before any row is
    /// inserted. Keys that differ in bytes may be one key to the target, and unique keys trade
    /// places.
    ///
    /// A large batch takes several transactions, the last of which stays open.
    async fn write(
        &self,
        follow: &Follow,
        batch: &mut Batch,
        source: &mut Link,
        target: &mut Session,
        whole: bool,
    ) -> Result<()> {
        let mut written = 0;
        let in_memory = batch.parts.len() == 1;
        let mut keyless = Vec::new();
        for step in [Step::Delete, Step::Insert] {
            for part in &mut batch.parts {
                let mut tables = part.tables()?;
                if step == Step::Insert && tables.iter().any(|of| of.table.filter.is_some()) {
                    let source = source.session().await?;
                    read_filtered(source, follow, batch.to, tables.to_mut()).await?;
                }
                // What was found for the deletes serves the inserts too, unless there are several
                // parts: only one of them is in memory.
                if step == Step::Delete || !in_memory {
                    keyless = self
                        .adjustments(follow, batch.to, &tables, source, target)
                        .await?;
                }
                let keyed = tables.iter().filter(|folded| folded.table.key_len > 0);
                let keyed = keyed.flat_map(|folded| step.of_keys(folded));
                for statement in keyed.chain(keyless.iter().flat_map(|of| step.of_copies(of))) {
                    // A statement holds up to a thousand rows or keys.
                    if !whole && written % (ROWS_PER_TRANSACTION / 1_000) == 0 && written > 0 {
                        target.execute("COMMIT").await?;
                        self.record
                            .begin(target, APPLIER_SLOT, self.lease.epoch)
                            .await?;
                    }
                    target.execute(statement).await?;
                    written += 1;
                }
            }
        }
        Ok(())
    }
}

impl Following {
    /// Finds what brings the copies of touched rows in tables without a key to the source's number
    /// at the end of the batch, or at the end of following. The applier's slot is held, which keeps
    /// repairs away between counting and writing.
    async fn adjustments(
        &self,
        follow: &Follow,
        to: CommitTs,
        tables: &[FoldedTable],
        source: &mut Link,
        target: &mut Session,
    ) -> Result<Vec<Adjustment>> {
        let mut adjustments = Vec::new();
        for folded in tables.iter().filter(|folded| folded.table.key_len == 0) {
            let stop = &follow.tables()[&folded.table.name].stopped;
            let at = stop.as_ref().map_or(to, |stop| stop.at.min(to));
            let rows = folded.rows.iter().map(|row| row.key.as_slice());
            let wanted = Wanted::new(&folded.table, &self.digest_key, rows)?;
            let source = source.session().await?;
            source.set_snapshot(Some(at)).await?;
            let on_source = match wanted.on_source(source).await {
                Ok(counted) => counted,
                // A DDL has ended the table: it is unproven from here on.
                Err(error) if error.kind() == ErrorKind::SchemaChanged && stop.is_some() => {
                    continue;
                }
                Err(error) => return Err(error.at(format!("counting {}", folded.table.name))),
            };
            let on_target = wanted.on_target(target, None).await?;
            adjustments.push(Adjustment::new(&wanted, &on_source, &on_target));
        }
        Ok(adjustments)
    }
}

/// Tells whether another table already has this one's place on the target.
fn is_taken(follow: &Follow, table: &Table) -> bool {
    follow
        .tables()
        .values()
        .any(|other| other.table.name != table.name && other.table.target.is_same(&table.target))
}

/// The two steps of writing a batch.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    Delete,
    Insert,
}

impl Step {
    fn of_keys(self, folded: &FoldedTable) -> Box<dyn Iterator<Item = String> + Send + '_> {
        let (table, rows) = (&folded.table, folded.rows.iter());
        match self {
            Step::Delete => Box::new(delete_keys(table, rows.map(|row| &row.key[..]))),
            Step::Insert => {
                let rows = rows.filter_map(|row| row.row.as_deref());
                Box::new(insert_rows(table, rows))
            }
        }
    }

    fn of_copies(self, of: &Adjustment) -> Box<dyn Iterator<Item = String> + Send + '_> {
        match self {
            Step::Delete => Box::new(of.deletes()),
            Step::Insert => Box::new(of.inserts()),
        }
    }
}

/// Reads the feed ahead of the applier.
async fn read_ahead(
    mut feed: Feed,
    records: mpsc::Sender<Ahead>,
    stop: CancellationToken,
) -> Result<()> {
    let room = Arc::new(Semaphore::new(BYTES_AHEAD as usize));
    let mut look = tokio::time::interval(feed.look_every());
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = records.closed() => return Ok(()),
            // Coming back to the brokers takes longer than the time between two looks.
            _ = look.tick(), if !feed.is_shut_out() => {
                feed.look()?;
                continue;
            }
            event = feed.next_event() => event?,
        };
        let bytes = match &event {
            FeedEvent::Record(record) => record.bytes,
            FeedEvent::Topic { .. } => 0,
        };
        let bytes = u32::try_from(bytes).unwrap_or(BYTES_AHEAD);
        let share = Arc::clone(&room).acquire_many_owned(bytes.min(BYTES_AHEAD));
        let share = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = records.closed() => return Ok(()),
            share = share => share.expect("the semaphore is never closed"),
        };
        if records.send((event, share)).await.is_err() {
            return Ok(());
        }
    }
}

fn no_fence() -> Error {
    Error::new(ErrorKind::Broken, "INV-3: the target's fence row is gone")
        .advise("something else writes rowproof.fence; check who may")
}

fn out_of_order(row: &FenceRow, batch: &Batch) -> Error {
    Error::new(
        ErrorKind::Broken,
        format!(
            "INV-3: the target's fence row stands at {} and the next batch reaches from {} to {}",
            row.w, batch.from, batch.to
        ),
    )
    .advise("something else writes rowproof.fence, or its state was restored; check who may")
}
