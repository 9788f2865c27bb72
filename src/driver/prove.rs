//! Proving batches: the keys that a batch touched, read from both sides at its fence.

use super::chunk_read::{Findings, Moment, Spare, compare_rows};
use super::copies::{ROWS_PER_QUERY, Wanted};
use super::failpoint;
use super::fresh_base::BaseProof;
use super::held::described;
use super::link::{Links, Retries};
use super::status::StatusBoard;
use crate::apply::lookup_condition;
use crate::chunk::CHUNK_BYTES_MAX;
use crate::database::{Record, source_scan, target_scan};
use crate::engine::Batch;
use crate::error::{ErrorKind, Result};
use crate::feed::{FoldedRow, FoldedTable};
use crate::fence::{BaseState, Fence};
use crate::journal::{BatchRow, FoundBy, Journal, now_ms};
use crate::proof::{Comparison, DifferenceKind, Reason};
use crate::row::{DigestKey, Rows};
use crate::schema::{Table, TableName};
use crate::task::Task;
use futures_util::future::try_join_all;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
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
    /// rowproof's record on the target.
    pub record: Record,
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
    /// If a side cannot be read for a reason that does not lie in one table: what does, or that a
    /// snapshot has expired, withdraws the verdict of the table in question.
    pub async fn run(self, mut jobs: mpsc::Receiver<ProofJob>) -> Result<()> {
        let mut all: Vec<Links> = (0..self.task.workers)
            .map(|_| Links::new(&self.task))
            .collect();
        while let Some(mut job) = jobs.recv().await {
            let withdrawn = self.prove(&mut all, &mut job).await?;
            failpoint::pass("proof-before-recorded");
            self.journal
                .set_proven(job.fence, &job.batch.offsets)
                .await?;
            failpoint::pass("proof-recorded");
            self.status.update(|status| status.proven = Some(job.fence));
            let mut retries = Retries::new();
            let links = &mut all[0];
            while let Err(error) = self.conclude_bases(links, &job, &withdrawn).await {
                links.reset();
                retries.pause(error.at("recording a fresh base")).await?;
            }
        }
        Ok(())
    }

    /// Gives the tables that a proven batch has joined their verdicts: they were read equal at their
    /// bases, and what came since is proven up to this fence (INV-2). Only now are their bases done
    /// with; after a crash before that they join once more.
    async fn conclude_bases(
        &self,
        links: &mut Links,
        job: &ProofJob,
        withdrawn: &BTreeSet<TableName>,
    ) -> Result<()> {
        if job.batch.joined.is_empty() {
            return Ok(());
        }
        let target = links.target.session().await?;
        for base in self.record.fresh_bases(target).await? {
            let name = &base.table.name;
            if base.state != BaseState::Joined || !job.batch.joined.contains(name) {
                continue;
            }
            let proof = base.proof.as_deref().map(serde_json::from_str::<BaseProof>);
            if let Some(Ok(proof)) = proof
                && !withdrawn.contains(name)
            {
                let (w, s) = (base.base, 0);
                self.journal
                    .close_differences_before(name, Fence { w, s })
                    .await?;
                let (verdict, by, w) = (proof.carried(job.fence), FoundBy::Load, job.fence.w);
                self.journal
                    .set_table(&base.table, by, &verdict, proof.counts, &proof.digest, w)
                    .await?;
            }
            failpoint::pass("base-before-ended");
            self.record.conclude_base(target, &base).await?;
            failpoint::pass("base-ended");
            self.status.end_base(name);
        }
        Ok(())
    }

    /// Proves a batch, and returns the tables of which nothing is proven.
    async fn prove(&self, all: &mut [Links], job: &mut ProofJob) -> Result<BTreeSet<TableName>> {
        let mut withdrawn: BTreeSet<TableName> = job.batch.unprovable.keys().cloned().collect();
        for (name, stop) in &job.batch.unprovable {
            let (reason, detail) = described(stop);
            self.journal
                .withdraw(name, job.fence.w, reason, &detail)
                .await?;
        }
        if job.batch.changes == 0 {
            return Ok(withdrawn);
        }
        let (mut keys, mut differences, mut verdict) = (0, 0, "equal");
        for part in &mut job.batch.parts {
            let tables = part.tables()?;
            let unprovable = &job.batch.unprovable;
            for folded in tables
                .iter()
                .filter(|of| !unprovable.contains_key(&of.table.name))
            {
                keys += folded.rows.len() as u64;
                match self.prove_or_withdraw(all, job.fence, folded).await? {
                    Some(0) => {}
                    Some(found) => {
                        differences += found;
                        verdict = "different";
                    }
                    None => {
                        verdict = "unproven";
                        withdrawn.insert(folded.table.name.clone());
                    }
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
        self.journal.add_batch(&batch).await?;
        Ok(withdrawn)
    }

    /// Proves what a batch did to one table, and returns how many rows differ; none if the table
    /// cannot be read at this fence any more, which withdraws its verdict.
    async fn prove_or_withdraw(
        &self,
        all: &mut [Links],
        fence: Fence,
        folded: &FoldedTable,
    ) -> Result<Option<u64>> {
        let error = match self.prove_table(all, fence, folded).await {
            Ok(found) => return Ok(Some(found)),
            Err(error) => error,
        };
        let name = &folded.table.name;
        let reason = match error.kind() {
            ErrorKind::Expired => Reason::Expired,
            ErrorKind::SchemaChanged => Reason::SchemaChanged,
            // Somebody altered it so that its rows cannot be read any more, or took the rights to.
            ErrorKind::Rejected | ErrorKind::Refused => Reason::Failed,
            _ => return Err(error.at(format!("proving {name}"))),
        };
        all.iter_mut().for_each(Links::reset);
        self.journal
            .withdraw(name, fence.w, reason, error.message())
            .await?;
        Ok(None)
    }

    /// Proves what a batch did to one table, and returns how many rows differ.
    async fn prove_table(
        &self,
        all: &mut [Links],
        fence: Fence,
        folded: &FoldedTable,
    ) -> Result<u64> {
        let findings = Findings {
            journal: &self.journal,
            fence,
            by: FoundBy::Batch,
            clearing: None,
        };
        if folded.table.key_len == 0 {
            return self.prove_copies(&mut all[0], folded, &findings).await;
        }
        let waiting: Vec<&[FoldedRow]> = folded.rows.chunks(KEYS_PER_QUERY).collect();
        let provers = waiting.len().min(all.len());
        let waiting = Mutex::new(waiting);
        let provers = all[..provers]
            .iter_mut()
            .map(|links| self.prove_keys(links, &folded.table, &waiting, &findings));
        Ok(try_join_all(provers).await?.into_iter().sum())
    }

    /// Proves keys as long as any wait, and returns how many rows differ.
    async fn prove_keys(
        &self,
        links: &mut Links,
        table: &Arc<Table>,
        waiting: &Mutex<Vec<&[FoldedRow]>>,
        findings: &Findings<'_>,
    ) -> Result<u64> {
        let next = || waiting.lock().expect("no holder of the keys panics").pop();
        let put_back = |rows| {
            let mut waiting = waiting.lock().expect("no holder of the keys panics");
            waiting.push(rows);
        };
        let fence = findings.fence;
        let mut differences = 0;
        let mut retries = Retries::new();
        while let Some(rows) = next() {
            let keys: Vec<&[u8]> = rows.iter().map(|row| row.key.as_slice()).collect();
            let comparison = match self.compare_keys(links, fence, table, &keys).await {
                Ok(Some(comparison)) => comparison,
                // INV-8: these keys' rows are more than is held at once.
                Ok(None) => {
                    let (left, right) = rows.split_at(rows.len() / 2);
                    put_back(left);
                    put_back(right);
                    continue;
                }
                Err(error) => {
                    links.reset();
                    retries.pause(error).await?;
                    put_back(rows);
                    continue;
                }
            };
            retries = Retries::new();
            let name = &table.name;
            differences += findings.keep(name, &comparison).await?.differences();
            // Only now: in between nothing that differs may look closed.
            self.journal.close_differences(name, fence, &keys).await?;
        }
        Ok(differences)
    }

    /// Proves what a batch did to a table without a key: the rows that it touched are counted.
    async fn prove_copies(
        &self,
        links: &mut Links,
        folded: &FoldedTable,
        findings: &Findings<'_>,
    ) -> Result<u64> {
        let at = Moment {
            task: &self.task.name,
            w: findings.fence.w,
            s: Some(findings.fence.s),
        };
        self.journal.note_keyless(findings.fence.w).await?;
        let name = &folded.table.name;
        let mut differences = 0;
        for rows in folded.rows.chunks(ROWS_PER_QUERY) {
            let rows = rows.iter().map(|row| row.key.as_slice());
            let wanted = Wanted::new(&folded.table, &self.digest_key, rows)?;
            let mut retries = Retries::new();
            let comparison = loop {
                match wanted.compare(links, at).await {
                    Ok(comparison) => break comparison,
                    Err(error) => {
                        links.reset();
                        retries.pause(error).await?;
                    }
                }
            };
            differences += findings.keep(name, &comparison).await?.differences();
            let digests = wanted.digests();
            self.journal
                .close_copies(name, findings.fence, digests)
                .await?;
        }
        Ok(differences)
    }

    /// Reads the rows of some keys on both sides and compares them; none if these are several keys
    /// and their rows more than is held at once.
    ///
    /// By a collation a server finds 'A' where 'a' was asked for, and the other one may not. So a row
    /// that was found beside the keys, and on one side only, is asked for by its own key too: then
    /// both sides find it, if they have it.
    async fn compare_keys(
        &self,
        links: &mut Links,
        fence: Fence,
        table: &Arc<Table>,
        keys: &[&[u8]],
    ) -> Result<Option<Comparison>> {
        let at = Moment {
            task: &self.task.name,
            w: fence.w,
            s: Some(fence.s),
        };
        let (comparison, whole) = self
            .read_keys(links, at, table, keys, CHUNK_BYTES_MAX)
            .await?;
        if !whole && keys.len() > 1 {
            return Ok(None);
        }
        let unpaired = comparison.differences.iter();
        let beside = unpaired
            .filter(|found| found.kind != DifferenceKind::Changed)
            .map(|found| found.key.as_slice())
            .filter(|key| !keys.contains(key));
        let all: Vec<&[u8]> = keys.iter().copied().chain(beside).collect();
        if all.len() == keys.len() {
            return Ok(Some(comparison));
        }
        // One key has few rows beside it; a part of them would look different where nothing is.
        let bytes_max = match keys.len() {
            1 => usize::MAX,
            _ => CHUNK_BYTES_MAX,
        };
        let (comparison, whole) = self.read_keys(links, at, table, &all, bytes_max).await?;
        Ok(whole.then_some(comparison))
    }

    /// Reads what both sides find by some keys and compares it; false if there was more than is held
    /// at once.
    async fn read_keys(
        &self,
        links: &mut Links,
        at: Moment<'_>,
        table: &Arc<Table>,
        keys: &[&[u8]],
        bytes_max: usize,
    ) -> Result<(Comparison, bool)> {
        let (source, target) = at.sessions(links).await?;
        let condition = lookup_condition(table, keys.iter().copied());
        let (mut source_rows, mut target_rows) = (Rows::new(), Rows::new());
        let (source_whole, target_whole) = tokio::join!(
            source.scan_up_to(
                source_scan(table, Some(&condition)),
                &mut source_rows,
                bytes_max
            ),
            target.scan_up_to(
                target_scan(table, Some(&condition), at.s),
                &mut target_rows,
                bytes_max
            )
        );
        let whole = source_whole? & target_whole?;
        // Batches are small, and their buffers too.
        let (key, spare) = (&self.digest_key, Spare::default());
        let comparison = compare_rows(table, key, source_rows, target_rows, &spare).await?;
        Ok((comparison, whole))
    }
}
