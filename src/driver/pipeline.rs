//! The steps of following, each working on a batch of its own: one is applied, the next is folded, and
//! behind them the feed is taken in.

use super::applier::{Applied, Applier, Refusal};
use super::base_desk::{BaseDesk, LOOK_EVERY};
use super::follow::{Ended, Following};
use super::link::{Link, Links, Retries};
use super::migrate::panicked;
use super::moves::MoveGuard;
use super::old_values::OldValues;
use super::reader::Ahead;
use super::standstill::Standstill;
use super::timezone::ZoneCheck;
use crate::broker::FeedEvent;
use crate::engine::{Batch, Follow};
use crate::error::Result;
use crate::schema::TableName;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, block_in_place};

/// How long after a fence the next one is made when nothing has changed.
const IDLE_FENCE: Duration = Duration::from_millis(100);

/// How many records are taken in at once.
const RECORDS_AT_ONCE: usize = 512;

/// The bytes of changes below the watermark that make a batch while another one is applied. Below them more
/// is waited for: the batch that comes next is then larger, and its fence newer.
const BATCH_BYTES: usize = 32 << 20;

/// Following, from the feed's records to applied batches.
#[derive(Debug)]
pub struct Pipeline<'a> {
    following: &'a Following,
    follow: Follow,
    desk: BaseDesk,
    inbox: mpsc::Receiver<Ahead>,
    /// The connections for what is looked up before a batch, and for tables that the feed creates.
    links: Links,
    guards: Guards,
    /// The tables that the stretch which is taken creates.
    created: BTreeSet<TableName>,
    folded: Option<Batch>,
    applier: Place,
    last_fence: Instant,
}

/// What looks at a batch before it is written.
#[derive(Debug)]
struct Guards {
    zone: ZoneCheck,
    moves: MoveGuard,
    old_values: OldValues,
}

impl Guards {
    async fn look(&mut self, follow: &Follow, batch: &mut Batch, source: &mut Link) -> Result<()> {
        self.zone.look(follow, batch, source).await?;
        self.moves.look(follow, batch, source).await?;
        self.old_values.look(follow, batch, source).await
    }
}

/// Where the applier is.
#[derive(Debug)]
enum Place {
    /// Here, without work.
    Idle(Box<Applier>),
    /// At a batch; with the tables that the batch shows for the first time, which get a base.
    Busy(JoinHandle<Result<(Applier, Applied)>>, Vec<TableName>),
    /// Nowhere: it has failed, or is being handed a batch.
    Gone,
}

impl<'a> Pipeline<'a> {
    /// Begins with nothing under way.
    pub fn new(
        following: &'a Following,
        follow: Follow,
        desk: BaseDesk,
        inbox: mpsc::Receiver<Ahead>,
        applier: Applier,
    ) -> Pipeline<'a> {
        let guards = Guards {
            zone: ZoneCheck::new(following.task.feed_zone()),
            moves: MoveGuard::default(),
            old_values: OldValues::default(),
        };
        Pipeline {
            follow,
            desk,
            inbox,
            links: Links::new(&following.task),
            guards,
            created: BTreeSet::new(),
            folded: None,
            applier: Place::Idle(Box::new(applier)),
            last_fence: Instant::now(),
            following,
        }
    }

    /// Follows until it is told to stop, or a fresh base is loaded. What is being applied then is
    /// applied to its end.
    ///
    /// # Errors
    /// If the target fails for good, another instance takes over, or the feed cannot be followed.
    pub async fn run(mut self) -> Result<Ended> {
        let ended = self.go_on().await;
        let applied = match std::mem::replace(&mut self.applier, Place::Gone) {
            Place::Busy(work, _) => joined(work.await).map(|_| ()),
            Place::Idle(_) | Place::Gone => Ok(()),
        };
        let closed = self.desk.close().await;
        let ended = ended?;
        applied.and(closed).map(|()| ended)
    }

    async fn go_on(&mut self) -> Result<Ended> {
        // What is asked for is seen though the feed brings nothing.
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut standstill = Standstill::new();
        let mut arrived = Vec::new();
        let mut feed_ended = false;
        let stop = &self.following.stop;
        while !stop.is_cancelled() {
            // What is asked for is taken up with nothing under way: a table that stops is written no
            // more only when the batch that stops it is applied.
            let called = self.desk.is_called(self.following).await?;
            if called && self.is_idle() {
                if self.desk.look(self.following, &mut self.follow).await? {
                    return Ok(Ended::BaseLoaded);
                }
            } else if !called || self.follow.taken_to().is_some() {
                self.fold_next().await?;
            }
            self.apply_next().await?;
            standstill.look(&self.follow, &self.following.status);
            if feed_ended && self.is_idle() {
                break;
            }
            let takes_in = self.has_room() && !feed_ended;
            tokio::select! {
                () = stop.cancelled() => break,
                (applied, unknown) = end(&mut self.applier) => {
                    self.conclude(applied?, unknown).await?;
                }
                received = self.inbox.recv_many(&mut arrived, RECORDS_AT_ONCE), if takes_in => {
                    feed_ended = received == 0;
                    self.take_in(&mut arrived)?;
                }
                _ = look.tick() => {}
            }
        }
        Ok(Ended::Stopped)
    }

    fn applies(&self) -> bool {
        matches!(self.applier, Place::Busy(..))
    }

    fn is_idle(&self) -> bool {
        !self.applies() && self.folded.is_none() && self.follow.taken_to().is_none()
    }

    /// Tells whether more of the feed is taken in: not while a whole batch waits to be folded.
    fn has_room(&self) -> bool {
        self.follow.resolved_bytes() <= BATCH_BYTES || !self.follow.is_behind()
    }

    /// Takes in what has arrived.
    fn take_in(&mut self, arrived: &mut Vec<Ahead>) -> Result<()> {
        for (event, _) in arrived.drain(..) {
            match event {
                FeedEvent::Topic { name, offsets } => self.follow.on_topic(&name, offsets),
                FeedEvent::Record(record) => {
                    for message in record.messages {
                        let (partition, offset) = (record.partition, record.offset);
                        self.follow.on_message(partition, offset, message)?;
                    }
                }
            }
        }
        let (waiting, resolved) = (self.follow.waiting_bytes(), self.follow.resolved());
        self.following.status.update(|status| {
            status.waiting_bytes = waiting as u64;
            status.watermark = (resolved > 0).then_some(resolved);
        });
        Ok(())
    }

    /// Folds the next batch, if the watermark allows one and it is worth its while.
    async fn fold_next(&mut self) -> Result<()> {
        if self.folded.is_some() || !self.take_next()? {
            return Ok(());
        }
        if !self.created.is_empty() {
            // They are made at a fence.
            if self.applies() {
                return Ok(());
            }
            self.create_tables().await?;
        }
        let began = Instant::now();
        self.folded = block_in_place(|| self.follow.batch())?;
        tracing::debug!(took = ?began.elapsed(), "a batch is folded");
        Ok(())
    }

    /// Takes the next stretch if it is due and none is taken yet, and tells whether one is.
    fn take_next(&mut self) -> Result<bool> {
        if self.follow.taken_to().is_some() {
            return Ok(true);
        }
        let due = match self.applies() {
            true => self.follow.resolved_bytes() > BATCH_BYTES,
            false => self.follow.waiting_bytes() > 0 || self.last_fence.elapsed() >= IDLE_FENCE,
        };
        if !due {
            return Ok(false);
        }
        let scope = &self.following.task.scope;
        let taken = self.follow.take_stretch(|name| scope.contains(name))?;
        let is_taken = taken.is_some();
        self.created = taken.unwrap_or_default();
        Ok(is_taken)
    }

    async fn create_tables(&mut self) -> Result<()> {
        let created = std::mem::take(&mut self.created);
        let mut retries = Retries::new();
        loop {
            let (follow, links) = (&mut self.follow, &mut self.links);
            match self.following.create_tables(follow, links, &created).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.links.reset();
                    let error = error.at("making a table that the feed created");
                    retries.pause(error).await?;
                }
            }
        }
    }

    /// Hands the next batch to the applier if that has no work.
    async fn apply_next(&mut self) -> Result<()> {
        if !matches!(self.applier, Place::Idle(_)) {
            return Ok(());
        }
        let Some(mut batch) = self.folded.take() else {
            return Ok(());
        };
        let source = &mut self.links.source;
        self.guards.look(&self.follow, &mut batch, source).await?;
        // What appears without a base of its own gets one.
        let is_unknown = |name: &&TableName| self.follow.tables()[*name].table.columns.is_empty();
        let unknown = batch.stopped.iter().filter(is_unknown).cloned().collect();
        self.hand(batch, unknown);
        Ok(())
    }

    fn hand(&mut self, batch: Batch, unknown: Vec<TableName>) {
        if let Place::Idle(applier) = std::mem::replace(&mut self.applier, Place::Gone) {
            let more_waits = self.follow.waiting_bytes() > BATCH_BYTES;
            self.applier = Place::Busy(tokio::spawn(applier.run(batch, more_waits)), unknown);
        }
    }

    /// Takes note of how applying a batch ended, which showed `unknown` tables for the first time.
    async fn conclude(
        &mut self,
        (applier, applied): (Applier, Applied),
        unknown: Vec<TableName>,
    ) -> Result<()> {
        self.applier = Place::Idle(Box::new(applier));
        match applied {
            Applied::Fence => {
                self.last_fence = Instant::now();
                if !unknown.is_empty() {
                    self.following.journal.request_bases(&unknown).await?;
                }
            }
            Applied::Refused(refusal) => {
                let Refusal {
                    mut batch,
                    table,
                    error,
                    letter,
                } = *refusal;
                let reason = error.message();
                tracing::warn!(%table, error = %reason, "the table is held");
                let next = self.folded.as_mut();
                self.follow.hold(&mut batch, next, &table, reason, letter);
                self.hand(batch, unknown);
            }
        }
        Ok(())
    }
}

/// Waits until the applier comes back, and says which tables its batch showed for the first time; for
/// ever if it is not away.
async fn end(applier: &mut Place) -> (Result<(Applier, Applied)>, Vec<TableName>) {
    match applier {
        Place::Busy(work, unknown) => {
            let ended = joined(work.await);
            let unknown = std::mem::take(unknown);
            *applier = Place::Gone;
            (ended, unknown)
        }
        Place::Idle(_) | Place::Gone => std::future::pending().await,
    }
}

fn joined<T>(ended: std::result::Result<Result<T>, JoinError>) -> Result<T> {
    ended.map_err(|_| panicked("the applier"))?
}
