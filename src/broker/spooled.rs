//! The feed read from the spool first, and then from Kafka, without a gap.

use super::spool::{Need, Reader, Spool};
use super::{Feed, FeedRecord};
use crate::error::Result;
use crate::feed::Offsets;
use std::time::Duration;

/// How long is waited for more in the spool.
const WAIT: Duration = Duration::from_millis(20);

/// The spool of a feed, if it has one, and where it is read.
#[derive(Debug, Default)]
pub(super) struct Spooled {
    spool: Option<Spool>,
    /// Has the spool filled until all of it is read.
    need: Option<Need>,
    reader: Option<Reader>,
}

impl Spooled {
    /// Tells whether it is the spool that is read.
    pub fn is_read(&self) -> bool {
        self.reader.is_some()
    }

    /// Begins to read the spool at these offsets, if it has them.
    pub fn seek(&mut self, offsets: &Offsets) -> Result<()> {
        self.reader = match &self.spool {
            Some(spool) => spool.reader(offsets)?,
            None => None,
        };
        if self.reader.is_none() {
            self.need = None;
        }
        Ok(())
    }

    /// Tells whether the spool has what lies behind these offsets, as far as `held`, from where Kafka
    /// has it.
    pub fn holds(
        &self,
        offsets: &Offsets,
        held: impl Fn(&str, usize) -> Result<i64>,
    ) -> Result<bool> {
        let Some((first, end)) = self.spool.as_ref().map_or(Ok(None), Spool::bounds)? else {
            return Ok(false);
        };
        for (topic, partition, offset) in offsets.places() {
            let at = |of: &Offsets| of.at(topic, partition).unwrap_or_default();
            if offset < at(&first) || at(&end).max(offset) < held(topic, partition)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Feed {
    /// Has this feed read what the spool holds from there, and Kafka only behind it. As long as it
    /// reads the spool, the spool is filled, if there is a `need`.
    #[must_use]
    pub fn with_spool(mut self, spool: Spool, need: Option<Need>) -> Feed {
        self.spooled.spool = Some(spool);
        self.spooled.need = need;
        self
    }

    /// Returns the next record of the spool; none if it was left, or something else comes first.
    ///
    /// # Errors
    /// If the spool is damaged, or Kafka does not hold what follows.
    pub(super) async fn next_spooled(&mut self) -> Result<Option<FeedRecord>> {
        let reader = self.spooled.reader.as_mut().expect("the spool is read");
        let Some(raw) = reader.next()? else {
            if reader.may_be_left() {
                self.leave_spool()?;
            } else {
                tokio::time::sleep(WAIT).await;
            }
            return Ok(None);
        };
        let Some(number) = self.offsets.number(raw.topic, raw.partition) else {
            // The topic came when the spool was filled.
            reader.unread()?;
            self.look()?;
            if self.queue.is_empty() {
                tokio::time::sleep(WAIT).await;
            }
            return Ok(None);
        };
        super::take(&mut self.offsets, number, &raw, super::decoded)
    }

    /// Goes on with Kafka, where the spool ends.
    fn leave_spool(&mut self) -> Result<()> {
        self.assert_held(&self.offsets)?;
        self.assign()?;
        self.spooled.reader = None;
        self.spooled.need = None;
        tracing::info!("the feed's spool is read, and followed by Kafka");
        Ok(())
    }
}
