//! The applier: it writes one batch while the next is taken in and folded.

use super::batch::{BatchWriter, ROWS_PER_TRANSACTION};
use super::crew::Crew;
use super::held::Obstacle;
use super::link::{Links, Retries};
use super::status::StatusBoard;
use super::unproven::{ToProve, Unproven};
use crate::engine::Batch;
use crate::error::{Error, Result};
use crate::feed::Origin;
use crate::fence::Fence;
use crate::schema::TableName;
use std::collections::BTreeSet;
use std::time::Instant;

/// The slot of the applier; the load's workers have the others.
pub const APPLIER_SLOT: u32 = 0;

/// Applies batches one after the other.
#[derive(Debug)]
pub struct Applier {
    /// What writes them.
    pub writer: BatchWriter,
    /// The connections of what is done one by one.
    pub links: Links,
    /// The connections of large batches.
    pub crew: Crew,
    /// The status.
    pub status: StatusBoard,
    /// Where batches go to be proven.
    pub proofs: ToProve,
    /// The tables that have refused a row of the batch once.
    pub suspects: BTreeSet<TableName>,
}

/// How the work on a batch ended.
#[derive(Debug)]
pub enum Applied {
    /// The target stands at its end, and it is handed over to be proven.
    Fence,
    /// A table refuses a row for good: the batch is to be applied without it.
    Refused(Box<Refusal>),
}

/// A table that refuses a row for good.
#[derive(Debug)]
pub struct Refusal {
    /// The batch, of which nothing is at a fence.
    pub batch: Batch,
    /// The table.
    pub table: TableName,
    /// What the target said.
    pub error: Error,
    /// The change that it refuses, or one of a few.
    pub letter: Origin,
}

impl Applier {
    /// Applies a batch, and comes back for the next one. `more_waits` says that behind it so much waits
    /// that the target catches up, however small the batch is.
    ///
    /// A refusal is believed when the same table meets one again on a new connection; what passes is
    /// tried again, and shown meanwhile.
    ///
    /// # Errors
    /// If the target fails for good, or another instance takes over.
    pub async fn run(mut self, mut batch: Batch, more_waits: bool) -> Result<(Applier, Applied)> {
        let began = Instant::now();
        let mut retries = Retries::new();
        let fence = loop {
            let (links, crew) = (&mut self.links, &mut self.crew);
            let applied = self.writer.apply(&mut batch, links, crew, &self.suspects);
            let Obstacle { error, table } = match applied.await {
                Ok(fence) => break fence,
                Err(obstacle) => obstacle,
            };
            self.links.reset();
            match table.filter(|_| error.kind().lies_in_the_table()) {
                Some((table, letter)) if self.suspects.contains(&table) => {
                    let refusal = Refusal {
                        batch,
                        table,
                        error,
                        letter,
                    };
                    return Ok((self, Applied::Refused(Box::new(refusal))));
                }
                Some((table, _)) => {
                    self.suspects.insert(table);
                }
                None => self.wait_for_target(error, &mut retries).await?,
            }
        };
        self.suspects.clear();
        tracing::debug!(w = fence.w, changes = batch.changes, took = ?began.elapsed(), "a batch is applied");
        self.hand_over(fence, batch, more_waits).await;
        Ok((self, Applied::Fence))
    }

    async fn wait_for_target(&self, error: Error, retries: &mut Retries) -> Result<()> {
        let error = error.at("applying a batch");
        let reason = format!("the target to take it: {}", error.message());
        self.status
            .update(|status| status.waiting_for = Some(reason));
        retries.pause(error).await
    }

    /// Hands a batch that is applied over to be proven, and waits as long as too much waits already.
    async fn hand_over(&self, fence: Fence, batch: Batch, more_waits: bool) {
        self.status.update(|status| {
            status.waiting_for = None;
            status.fence = Some(fence);
            status.batches += 1;
            status.changes += batch.changes as u64;
        });
        let catches_up = more_waits || batch.changes > ROWS_PER_TRANSACTION;
        let sending = Instant::now();
        self.proofs
            .send(Unproven::of(fence, batch, catches_up))
            .await;
        tracing::debug!(waited = ?sending.elapsed(), "handed over to be proven");
    }
}
