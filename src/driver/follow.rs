//! Following the source: the feed is read, folded, applied, and fenced, batch by batch.

use super::base_desk::BaseDesk;
use super::held::Obstacle;
use super::lease::Lease;
use super::link::{Link, Retries};
use super::prove::ProofJob;
use super::schema::Making;
use super::status::StatusBoard;
use crate::broker::{Feed, FeedRecord};
use crate::database::{Catalog, Record, collations};
use crate::engine::{Batch, Follow};
use crate::error::Result;
use crate::feed::Part;
use crate::fence::Fence;
use crate::journal::{FoundBy, Journal};
use crate::proof::{Counts, Reason, Verdict};
use crate::row::DigestKey;
use crate::schema::{Table, TableName, obstacles};
use crate::task::Task;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// The slot of the applier; the load's workers have the others.
pub const APPLIER_SLOT: u32 = 0;

/// How long after a fence the next one is made when nothing has changed.
const IDLE_FENCE: Duration = Duration::from_millis(100);

/// How many records are read ahead of the applier.
const RECORDS_AHEAD: usize = 1_024;

/// The bytes of records that are read ahead of the applier; a larger one comes alone (INV-8).
const BYTES_AHEAD: u32 = 32 << 20;

/// A record, and its share of what may be read ahead.
type Ahead = (FeedRecord, OwnedSemaphorePermit);

/// How often it is looked whether the topic still has the same partitions.
const PARTITIONS_LOOK: Duration = Duration::from_secs(10);

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

/// Why following ended in order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// A fresh base is loaded: following begins again where the feed shows what it lacks.
    BaseLoaded,
}

impl Following {
    /// Follows until it is told to stop, or a fresh base is loaded; `begun` are those that a crash
    /// interrupted.
    ///
    /// # Errors
    /// If the feed or the target fails for good, or another instance takes over.
    pub async fn run(
        self,
        feed: Feed,
        mut follow: Follow,
        offsets: &[i64],
        begun: Vec<TableName>,
    ) -> Result<Ended> {
        feed.seek(offsets).await?;
        let mut desk = BaseDesk::new(begun, &self.stop);
        let (records, mut inbox) = mpsc::channel(RECORDS_AHEAD);
        let reader = tokio::spawn(read_ahead(feed, records, self.stop.clone()));
        let mut links = (Link::source(&self.task), Link::target(&self.task));
        let mut last_fence = Instant::now();
        let mut arrived = Vec::new();
        let result = loop {
            arrived.clear();
            let received = tokio::select! {
                () = self.stop.cancelled() => break Ok(Ended::Stopped),
                received = inbox.recv_many(&mut arrived, RECORDS_AHEAD) => received,
            };
            if received == 0 {
                break Ok(Ended::Stopped);
            }
            match desk.look(&self, &mut follow).await {
                Ok(true) => break Ok(Ended::BaseLoaded),
                Ok(false) => {}
                Err(error) => break Err(error),
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
        let closed = desk.close().await;
        let read = reader
            .await
            .map_err(|_| super::migrate::panicked("the reader of the feed"))?;
        let ended = result?;
        closed.and(read).map(|()| ended)
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
        let fence = self.apply_or_hold(follow, &mut batch, links).await?;
        self.status.update(|status| {
            status.waiting_for = None;
            status.fence = Some(fence);
            status.batches += 1;
            status.changes += batch.changes as u64;
        });
        // What appeared without a base of its own gets one.
        let is_unknown = |name: &&TableName| follow.tables()[*name].table.columns.is_empty();
        for name in batch.stopped.iter().filter(is_unknown) {
            self.journal
                .request_bases(std::slice::from_ref(name))
                .await?;
        }
        // The proof reads both sides by key: the images are done with.
        batch.parts.iter_mut().for_each(Part::forget_images);
        let job = ProofJob { fence, batch };
        // The prover ends first only when it failed; its error is the one to report.
        let _ = self.proofs.send(job).await;
        Ok(true)
    }

    /// Applies a batch, if need be without the tables that refuse it for good: those are held.
    ///
    /// A refusal is believed when the same table meets one again on a new connection; what passes is
    /// tried again, and shown meanwhile.
    async fn apply_or_hold(
        &self,
        follow: &mut Follow,
        batch: &mut Batch,
        links: &mut (Link, Link),
    ) -> Result<Fence> {
        let mut retries = Retries::new();
        let mut suspects = BTreeSet::new();
        loop {
            let Obstacle { error, table } = match self.apply(follow, batch, links, &suspects).await
            {
                Ok(fence) => return Ok(fence),
                Err(obstacle) => obstacle,
            };
            links.0.reset();
            links.1.reset();
            match table.filter(|_| error.kind().lies_in_the_table()) {
                Some((name, letter)) if suspects.contains(&name) => {
                    tracing::warn!(table = %name, error = %error.message(), "the table is held");
                    follow.hold(batch, &name, error.message(), letter);
                }
                Some((name, _)) => {
                    suspects.insert(name);
                }
                None => {
                    let error = error.at("applying a batch");
                    let reason = format!("the target to take it: {}", error.message());
                    self.status
                        .update(|status| status.waiting_for = Some(reason));
                    retries.pause(error).await?;
                }
            }
        }
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
}

/// Tells whether another table already has this one's place on the target.
fn is_taken(follow: &Follow, table: &Table) -> bool {
    follow
        .tables()
        .values()
        .any(|other| other.table.name != table.name && other.table.target.is_same(&table.target))
}

/// Reads the feed ahead of the applier.
async fn read_ahead(
    feed: Feed,
    records: mpsc::Sender<Ahead>,
    stop: CancellationToken,
) -> Result<()> {
    let room = Arc::new(Semaphore::new(BYTES_AHEAD as usize));
    let mut look = tokio::time::interval(PARTITIONS_LOOK);
    loop {
        let record = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = records.closed() => return Ok(()),
            _ = look.tick() => {
                feed.assert_partitions()?;
                continue;
            }
            record = feed.next() => record?,
        };
        let bytes = u32::try_from(record.bytes).unwrap_or(BYTES_AHEAD);
        let share = Arc::clone(&room).acquire_many_owned(bytes.min(BYTES_AHEAD));
        let share = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = records.closed() => return Ok(()),
            share = share => share.expect("the semaphore is never closed"),
        };
        if records.send((record, share)).await.is_err() {
            return Ok(());
        }
    }
}
