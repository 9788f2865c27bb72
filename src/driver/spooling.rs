//! Keeping the feed while tables are loaded, when Kafka may not keep it for so long.

use super::own_feed::own_feed;
use super::status::StatusBoard;
use crate::broker::{Filling, Keeping, Need, Spool, come_near, fill};
use crate::error::{Error, Result};
use crate::feed::{CommitTs, Offsets, physical_ms};
use crate::journal::{Journal, now_ms};
use crate::task::{FeedTask, SpoolWhen, Task};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often it is looked whether Kafka still keeps what the load needs.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked whether anybody needs that.
const NEED_LOOK: Duration = Duration::from_millis(100);

/// The pause before brokers that did not answer are asked again; a load does not need them.
const PAUSE: Duration = Duration::from_secs(3);

/// Has the feed of a task kept, if it has one.
#[derive(Clone, Debug)]
pub struct Spooling {
    feed: Option<FeedTask>,
    journal: Journal,
    spool: Spool,
    status: StatusBoard,
    failure: Arc<Failure>,
    /// Held by whoever fills the spool, to the end.
    alone: Arc<tokio::sync::Mutex<()>>,
}

/// Why the feed is kept no more, if something went wrong.
#[derive(Debug, Default)]
struct Failure {
    error: Mutex<Option<Error>>,
    told: Notify,
}

impl Spooling {
    /// Prepares for a task, and brings in order what a death left.
    ///
    /// # Errors
    /// If the spool is foreign or cannot be used.
    pub fn of(
        task: &Task,
        journal: &Journal,
        state_id: &str,
        status: &StatusBoard,
    ) -> Result<Spooling> {
        let spool = Spool::of(&task.state_dir, state_id, &task.name);
        spool.recover()?;
        let spooling = Spooling {
            feed: task.feed.clone(),
            journal: journal.clone(),
            spool,
            status: status.clone(),
            failure: Arc::default(),
            alone: Arc::default(),
        };
        spooling.show()?;
        Ok(spooling)
    }

    /// Returns the spool.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Has everything kept that the feed brings from these offsets on, which were noted before `base`,
    /// for as long as the need lives: in Kafka where it keeps that, and else on disk.
    pub fn begin(&self, noted: &Offsets, base: CommitTs) -> Option<Need> {
        let feed = self.feed.clone()?;
        let (need, filling) = self.spool.need();
        if let Some(filling) = filling {
            let (spooling, noted) = (self.clone(), noted.clone());
            tokio::spawn(async move {
                let _alone = spooling.alone.lock().await;
                if let Err(error) = spooling.keep(&feed, &filling, (&noted, base)).await {
                    tracing::warn!(error = %error.message(), "the feed is not kept on disk any more");
                    spooling.failure.set(error);
                }
            });
        }
        Some(need)
    }

    /// Has the spool filled as long as it is read, if there is one.
    ///
    /// # Errors
    /// If the spool cannot be read.
    pub fn go_on(&self) -> Result<Option<Need>> {
        let never = self
            .feed
            .as_ref()
            .is_none_or(|of| of.spool == SpoolWhen::Never);
        Ok(match self.spool.bounds()? {
            Some((_, end)) if !never => self.begin(&end, 0),
            _ => None,
        })
    }

    /// Returns, as soon as there is one, the error that ended what was begun.
    pub async fn failed(&self) -> Error {
        loop {
            if let Some(error) = self.failure.take() {
                return error;
            }
            self.failure.told.notified().await;
        }
    }

    /// Removes what is of no use to whoever begins to read at one of these offsets.
    ///
    /// # Errors
    /// If the spool cannot be read or removed.
    pub fn release(&self, offsets: &Offsets) -> Result<()> {
        self.spool.release(offsets)?;
        self.show()
    }

    fn show(&self) -> Result<()> {
        let bytes = self.spool.bytes()?;
        self.status.update(|status| status.spool_bytes = bytes);
        Ok(())
    }

    /// Waits until the feed must be kept on disk, and keeps it there. Ends when nobody needs it.
    async fn keep(
        &self,
        feed: &FeedTask,
        filling: &Filling,
        (noted, base): (&Offsets, CommitTs),
    ) -> Result<()> {
        let mut watch = Watch {
            noted: noted.clone(),
            base,
            firsts: None,
        };
        loop {
            let kept = async {
                if self.spool.is_empty()?
                    && !self.wait_until_short(feed, filling, &mut watch).await?
                {
                    return Ok(());
                }
                let told = |bytes| {
                    let is_current = self.spool.is_current();
                    self.status.update(|status| {
                        status.spool_bytes = bytes;
                        status.spool_is_current = is_current;
                    });
                };
                let feed = own_feed(feed, &self.journal).await?;
                fill(feed, &self.spool, filling, noted, told).await
            };
            match kept.await {
                Err(error) if error.kind().is_retryable() && filling.is_needed() => {
                    tracing::warn!(error = %error.message(), "trying again to keep the feed");
                    tokio::time::sleep(PAUSE).await;
                }
                kept => return kept,
            }
        }
    }

    /// Waits until Kafka may drop what is needed; tells whether it may, and not only the need is over.
    async fn wait_until_short(
        &self,
        task: &FeedTask,
        filling: &Filling,
        watch: &mut Watch,
    ) -> Result<bool> {
        if task.spool == SpoolWhen::Always {
            return Ok(true);
        }
        let mut feed = own_feed(task, &self.journal).await?;
        let noted = watch.noted.clone().named(feed.topic());
        while filling.is_needed() {
            // Also who never keeps it wants to hear of it before the load is done in vain.
            let firsts = feed.firsts(&noted)?;
            let then = watch.firsts.get_or_insert_with(|| firsts.clone()).clone();
            if task.spool == SpoolWhen::Auto {
                let keeping = feed.keeping().await?;
                let elapsed = watch.elapsed();
                let is_short = |keeping: Keeping| keeping.is_short(elapsed);
                if keeping.is_none_or(is_short) || come_near(&noted, &then, &firsts) {
                    tracing::info!(?keeping, "the feed is kept on disk while tables are loaded");
                    return Ok(true);
                }
            }
            let looked = Instant::now();
            while looked.elapsed() < LOOK_EVERY && filling.is_needed() {
                tokio::time::sleep(NEED_LOOK).await;
            }
        }
        Ok(false)
    }
}

impl Failure {
    fn set(&self, error: Error) {
        *self.error.lock().expect("nothing panics while it is held") = Some(error);
        self.told.notify_one();
    }

    fn take(&self) -> Option<Error> {
        let mut error = self.error.lock().expect("nothing panics while it is held");
        error.take()
    }
}

/// What is known of how Kafka drops records.
struct Watch {
    noted: Offsets,
    base: CommitTs,
    /// The first offsets that it held when it was looked at first.
    firsts: Option<Vec<i64>>,
}

impl Watch {
    fn elapsed(&self) -> Duration {
        let now = u64::try_from(now_ms()).unwrap_or_default();
        Duration::from_millis(now.saturating_sub(physical_ms(self.base)))
    }
}
