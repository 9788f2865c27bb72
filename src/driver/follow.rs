//! Following the source: the feed is read, folded, applied, and fenced, batch by batch.

use super::base_desk::BaseDesk;
use super::batch::ROWS_PER_TRANSACTION;
use super::crew::Crew;
use super::held::Obstacle;
use super::lease::Lease;
use super::link::{Link, Retries};
use super::moves::MoveGuard;
use super::old_values::OldValues;
use super::reader::{Ahead, Claims, Reader};
use super::schema::Making;
use super::spooling::Spooling;
use super::standstill::{self, Standstill};
use super::status::StatusBoard;
use super::timezone::ZoneCheck;
use super::unproven::{ToProve, Unproven};
use crate::broker::{Feed, FeedEvent};
use crate::database::{Catalog, Record, collations};
use crate::engine::{Batch, Follow};
use crate::error::Result;
use crate::feed::Offsets;
use crate::fence::Fence;
use crate::journal::{FoundBy, Journal};
use crate::proof::{Counts, Reason, Verdict};
use crate::row::DigestKey;
use crate::schema::{Table, TableName, obstacles};
use crate::task::Task;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The slot of the applier; the load's workers have the others.
pub const APPLIER_SLOT: u32 = 0;

/// How long after a fence the next one is made when nothing has changed.
const IDLE_FENCE: Duration = Duration::from_millis(100);

/// How many records are read ahead of the applier, and taken in at once; their bytes are bounded too.
const RECORDS_AHEAD: usize = 16_384;

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
    /// What is kept of the feed.
    pub spooling: Spooling,
    /// Where batches go to be proven.
    pub proofs: ToProve,
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
        mut feed: Feed,
        mut follow: Follow,
        offsets: &Offsets,
        begun: Vec<TableName>,
    ) -> Result<Ended> {
        feed.seek(offsets).await?;
        let mut desk = BaseDesk::new(begun, &self.stop);
        let (records, mut inbox) = mpsc::channel(RECORDS_AHEAD);
        let ahead = Reader {
            journal: self.journal.clone(),
            claims: Claims::of(&self.task, follow.applied())?,
            feed,
            records,
            stop: self.stop.clone(),
        };
        let reader = tokio::spawn(ahead.run());
        let mut links = (Link::source(&self.task), Link::target(&self.task));
        let mut crew = Crew::new(&self.task, &self.record, self.lease);
        let zone = ZoneCheck::new(self.task.feed_zone());
        let mut guards = (zone, MoveGuard::default(), OldValues::default());
        let mut last_fence = Instant::now();
        let mut standstill = Standstill::new();
        let mut look = tokio::time::interval(standstill::LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut arrived = Vec::new();
        let result = loop {
            arrived.clear();
            let goes_on = match follow.is_behind() {
                true => !self.stop.is_cancelled(),
                false => tokio::select! {
                    () = self.stop.cancelled() => false,
                    received = inbox.recv_many(&mut arrived, RECORDS_AHEAD) => received > 0,
                    _ = look.tick() => true,
                },
            };
            if !goes_on {
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
            standstill.look(&follow, &self.status);
            let due = last_fence.elapsed() >= IDLE_FENCE || follow.waiting_bytes() > 0;
            if due {
                let stepped = self.step(&mut follow, &mut links, &mut crew, &mut guards);
                match stepped.await {
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
            let (waiting, resolved) = (follow.waiting_bytes(), follow.resolved());
            self.status.update(|status| {
                status.waiting_bytes = waiting as u64;
                status.watermark = (resolved > 0).then_some(resolved);
            });
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
        crew: &mut Crew,
        guards: &mut (ZoneCheck, MoveGuard, OldValues),
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
        let began = Instant::now();
        let Some(mut batch) = follow.batch()? else {
            return Ok(false);
        };
        let folded = began.elapsed();
        guards.0.look(follow, &mut batch, &mut links.0).await?;
        guards.1.look(follow, &mut batch, &mut links.0).await?;
        guards.2.look(follow, &mut batch, &mut links.0).await?;
        let fence = self.apply_or_hold(follow, &mut batch, links, crew).await?;
        let applied = began.elapsed() - folded;
        tracing::debug!(
            w = fence.w,
            changes = batch.changes,
            ?folded,
            ?applied,
            "a batch is applied"
        );
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
        let sending = Instant::now();
        let catches_up = batch.changes > ROWS_PER_TRANSACTION;
        self.proofs
            .send(Unproven::of(fence, batch, catches_up))
            .await;
        tracing::debug!(waited = ?sending.elapsed(), "handed over to be proven");
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
        crew: &mut Crew,
    ) -> Result<Fence> {
        let mut retries = Retries::new();
        let mut suspects = BTreeSet::new();
        loop {
            let Obstacle { error, table } =
                match self.apply(follow, batch, links, crew, &suspects).await {
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
