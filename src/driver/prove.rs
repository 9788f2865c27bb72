//! Proving batches: the keys that a batch touched, read from both sides at its fence.

use super::chunk_read::{Spare, compare_rows};
use super::link::{Links, Retries};
use super::status::StatusBoard;
use crate::apply::lookup_condition;
use crate::database::{source_scan, target_scan};
use crate::engine::Batch;
use crate::error::{ErrorKind, Result};
use crate::feed::FoldedTable;
use crate::fence::Fence;
use crate::journal::{BatchRow, FoundBy, Journal, now_ms};
use crate::proof::{Comparison, Reason};
use crate::row::{DigestKey, Rows};
use crate::task::Task;
use tokio::sync::mpsc;

/// How many keys one query looks up.
const KEYS_PER_QUERY: usize = 500;

/// How many batches may wait to be proven before the applier waits.
pub const BATCHES_AHEAD: usize = 16;

/// A batch that was applied, and its fence.
#[derive(Debug)]
pub struct ProofJob {
    /// The fence at the end of the batch.
    pub fence: Fence,
    /// The batch.
    pub batch: Batch,
}

/// Proves batches while the next ones are applied.
#[derive(Debug)]
pub struct Prover {
    /// The task.
    pub task: Task,
    /// The journal.
    pub journal: Journal,
    /// The key of the row digests.
    pub digest_key: DigestKey,
    /// The status.
    pub status: StatusBoard,
}

impl Prover {
    /// Proves batches in their order until no more come.
    ///
    /// # Errors
    /// If a side cannot be read for another reason than that a snapshot has expired or a
    /// definition has changed: those withdraw the verdicts of the tables in question.
    pub async fn run(self, mut jobs: mpsc::Receiver<ProofJob>) -> Result<()> {
        let mut links = Links::new(&self.task);
        while let Some(mut job) = jobs.recv().await {
            self.prove(&mut links, &mut job).await?;
            self.journal
                .set_proven(job.fence, &job.batch.offsets)
                .await?;
            self.status.update(|status| status.proven = Some(job.fence));
        }
        Ok(())
    }

    async fn prove(&self, links: &mut Links, job: &mut ProofJob) -> Result<()> {
        for name in &job.batch.unprovable {
            let detail = "following this table has stopped; `rowproof check` says why";
            self.journal
                .withdraw(name, job.fence.w, Reason::Ddl, detail)
                .await?;
        }
        if job.batch.changes == 0 {
            return Ok(());
        }
        let (mut keys, mut differences, mut verdict) = (0, 0, "equal");
        for part in &mut job.batch.parts {
            let tables = part.tables()?;
            let unprovable = &job.batch.unprovable;
            for folded in tables
                .iter()
                .filter(|of| !unprovable.contains(&of.table.name))
            {
                keys += folded.rows.len() as u64;
                match self.prove_or_withdraw(links, job.fence, folded).await? {
                    Some(0) => {}
                    Some(found) => {
                        differences += found;
                        verdict = "different";
                    }
                    None => verdict = "unproven",
                }
            }
        }
        let batch = BatchRow {
            fence: job.fence,
            from: job.batch.from,
            changes: job.batch.changes as u64,
            keys,
            differences,
            verdict: verdict.to_owned(),
            at_ms: now_ms(),
        };
        self.journal.add_batch(&batch).await
    }

    /// Proves what a batch did to one table, and returns how many rows differ; none if the table
    /// cannot be read at this fence any more, which withdraws its verdict.
    async fn prove_or_withdraw(
        &self,
        links: &mut Links,
        fence: Fence,
        folded: &FoldedTable,
    ) -> Result<Option<u64>> {
        let error = match self.prove_table(links, fence, folded).await {
            Ok(found) => return Ok(Some(found)),
            Err(error) => error,
        };
        let name = &folded.table.name;
        let reason = match error.kind() {
            ErrorKind::Expired => Reason::Expired,
            ErrorKind::SchemaChanged => Reason::SchemaChanged,
            _ => return Err(error.at(format!("proving {name}"))),
        };
        links.reset();
        self.journal
            .withdraw(name, fence.w, reason, error.message())
            .await?;
        Ok(None)
    }

    /// Proves what a batch did to one table, and returns how many rows differ.
    async fn prove_table(
        &self,
        links: &mut Links,
        fence: Fence,
        folded: &FoldedTable,
    ) -> Result<u64> {
        let mut differences = 0;
        for rows in folded.rows.chunks(KEYS_PER_QUERY) {
            let keys: Vec<&[u8]> = rows.iter().map(|row| row.key.as_slice()).collect();
            let condition = lookup_condition(&folded.table, keys.iter().copied());
            let mut retries = Retries::new();
            let comparison = loop {
                match self
                    .read_and_compare(links, fence, folded, &condition)
                    .await
                {
                    Ok(comparison) => break comparison,
                    Err(error) => {
                        links.reset();
                        retries.pause(error).await?;
                    }
                }
            };
            let name = &folded.table.name;
            let found = &comparison.differences;
            self.journal
                .add_differences(name, fence, FoundBy::Batch, found)
                .await?;
            // Only now: in between nothing that differs may look closed.
            self.journal.close_differences(name, fence, &keys).await?;
            differences += found.len() as u64;
        }
        Ok(differences)
    }

    async fn read_and_compare(
        &self,
        links: &mut Links,
        fence: Fence,
        folded: &FoldedTable,
        condition: &str,
    ) -> Result<Comparison> {
        let (source, target) = links.sessions().await?;
        source.set_snapshot(Some(fence.w)).await?;
        let (mut source_rows, mut target_rows) = (Rows::new(), Rows::new());
        let read_target = async {
            target.assert_fence(&self.task.name, fence).await?;
            let sql = target_scan(&folded.table, Some(condition), Some(fence.s));
            target.scan(sql, &mut target_rows).await
        };
        let sql = source_scan(&folded.table, Some(condition), None);
        let read_source = source.scan(sql, &mut source_rows);
        let (source_read, target_read) = tokio::join!(read_source, read_target);
        source_read.and(target_read)?;
        // Batches are small, and their buffers too.
        let (table, key, spare) = (&folded.table, &self.digest_key, Spare::default());
        compare_rows(table, key, source_rows, target_rows, &spare).await
    }
}
