//! Following the source: the feed is read, folded, applied, and fenced, batch by batch.

use super::lease::Lease;
use super::link::{Link, Retries};
use super::moves::MoveGuard;
use super::prove::ProofJob;
use super::reader::{Ahead, Claims, Reader};
use super::schema::Making;
use super::status::StatusBoard;
use super::timezone::ZoneCheck;
use super::writing::{Statements, Writing};
use crate::broker::Feed;
use crate::database::{Catalog, Record, Session, collations, newest_fence};
use crate::engine::{Batch, Follow};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::Part;
use crate::fence::{Fence, FenceRow, FenceState};
use crate::journal::{FoundBy, Journal};
use crate::proof::{Counts, Reason, Verdict};
use crate::row::DigestKey;
use crate::schema::{Table, TableName, obstacles};
use crate::task::Task;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The slot of the applier; the load's workers have the others.
pub const APPLIER_SLOT: u32 = 0;

/// The rows up to which a batch is one transaction, so that readers of the target always see a
/// state that the source had.
pub const ROWS_PER_TRANSACTION: usize = 50_000;

/// How long after a fence the next one is made when nothing has changed.
const IDLE_FENCE: Duration = Duration::from_millis(100);

/// How many records are read ahead of the applier.
const RECORDS_AHEAD: usize = 1_024;

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
    pub async fn run(self, feed: Feed, mut follow: Follow, offsets: &[i64]) -> Result<()> {
        feed.seek(offsets).await?;
        let (records, mut inbox) = mpsc::channel(RECORDS_AHEAD);
        let ahead = Reader {
            claims: Claims::of(&self.task, follow.applied())?,
            feed,
            records,
            stop: self.stop.clone(),
        };
        let reader = tokio::spawn(ahead.run());
        let mut links = (Link::source(&self.task), Link::target(&self.task));
        let zone = ZoneCheck::new(self.task.feed_zone());
        let mut guards = (zone, MoveGuard::default());
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
                match self.step(&mut follow, &mut links, &mut guards).await {
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
            for (record, _) in arrived.drain(..) {
                for message in record.messages {
                    follow.on_message(record.partition, record.offset, message)?;
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
    async fn step(
        &self,
        follow: &mut Follow,
        links: &mut (Link, Link),
        guards: &mut (ZoneCheck, MoveGuard),
    ) -> Result<bool> {
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
        guards.0.look(follow, &mut batch, &mut links.0).await?;
        guards.1.look(follow, &mut batch, &mut links.0).await?;
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
            let statements = Statements {
                record: &self.record,
                epoch: self.lease.epoch,
                target,
                whole,
                executed: 0,
            };
            let mut writing = Writing {
                digest_key: &self.digest_key,
                follow,
                source,
                statements,
            };
            writing.batch(batch).await?;
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
}

/// Tells whether another table already has this one's place on the target.
fn is_taken(follow: &Follow, table: &Table) -> bool {
    follow
        .tables()
        .values()
        .any(|other| other.table.name != table.name && other.table.target.is_same(&table.target))
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
