//! Reading the feed ahead of the applier, large messages included.

use crate::broker::{ClaimStore, Feed, FeedEvent};
use crate::error::Result;
use crate::feed::CommitTs;
use crate::journal::Journal;
use crate::task::{Scope, Task};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// The bytes of records that are read ahead of the applier; a larger one comes alone (INV-8).
const BYTES_AHEAD: u32 = 16 << 20;

/// What the feed brought, and its share of what may be read ahead.
pub type Ahead = (FeedEvent, OwnedSemaphorePermit);

/// The reader of the feed.
#[derive(Debug)]
pub struct Reader {
    /// The feed, at the offsets from which it is read.
    pub feed: Feed,
    /// Where the ids of topics are kept.
    pub journal: Journal,
    /// Where large messages come from.
    pub claims: Claims,
    /// Where records go.
    pub records: mpsc::Sender<Ahead>,
    /// Cancelled when the work is to end.
    pub stop: CancellationToken,
}

impl Reader {
    /// Reads until it is told to stop, or nobody wants records any more.
    ///
    /// # Errors
    /// If the feed fails for good, or is no longer the same.
    pub async fn run(mut self) -> Result<()> {
        let room = Arc::new(Semaphore::new(BYTES_AHEAD as usize));
        let mut look = tokio::time::interval(self.feed.look_every());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut topics = self.feed.topic_ids().len();
        loop {
            let mut event = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = self.records.closed() => return Ok(()),
                // Coming back to the brokers takes longer than the time between two looks.
                _ = look.tick(), if !self.feed.is_shut_out() => {
                    self.feed.look()?;
                    // Those that have come meanwhile.
                    if self.feed.topic_ids().len() > topics {
                        self.journal.keep_topic_ids(self.feed.topic_ids()).await?;
                        topics = self.feed.topic_ids().len();
                    }
                    continue;
                }
                event = self.feed.next_event() => event?,
            };
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = self.records.closed() => return Ok(()),
                redeemed = self.claims.redeem(&mut event) => redeemed?,
            };
            let bytes = match &event {
                FeedEvent::Record(record) => record.bytes,
                FeedEvent::Topic { .. } => 0,
            };
            let bytes = u32::try_from(bytes).unwrap_or(BYTES_AHEAD);
            let share = Arc::clone(&room).acquire_many_owned(bytes.min(BYTES_AHEAD));
            let share = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = self.records.closed() => return Ok(()),
                share = share => share.expect("the semaphore is never closed"),
            };
            if self.records.send((event, share)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// The large messages that the migration wants.
#[derive(Debug)]
pub struct Claims {
    store: Option<ClaimStore>,
    scope: Scope,
    /// What committed at or before this is applied: its files may be gone.
    applied: CommitTs,
}

impl Claims {
    /// Opens the storage of a task, if it names one.
    ///
    /// # Errors
    /// If the storage cannot be used.
    pub fn of(task: &Task, applied: CommitTs) -> Result<Claims> {
        let storage = task
            .feed
            .as_ref()
            .and_then(|feed| feed.claim_check.as_ref());
        Ok(Claims {
            store: storage.map(ClaimStore::open).transpose()?,
            scope: task.scope.clone(),
            applied,
        })
    }

    async fn redeem(&self, event: &mut FeedEvent) -> Result<()> {
        let (Some(store), FeedEvent::Record(record)) = (&self.store, event) else {
            return Ok(());
        };
        let wanted = |row: &crate::feed::RowChange| {
            row.commit_ts > self.applied && self.scope.contains(&row.table)
        };
        store.redeem(record, wanted).await
    }
}
