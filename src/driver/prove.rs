//! Proving batches: the keys that a batch touched, read from both sides at its fence.

use super::chunk_read::{Findings, Moment, Spare, compare_rows};
use super::copies::{ROWS_PER_QUERY, Wanted};
use super::fresh_base::BaseProof;
use super::held::described;
use super::link::{Links, Retries};
use super::spooling::Spooling;
use super::status::StatusBoard;
use super::unproven::{Touched, Unproven, Waiting};
use crate::apply::lookup_condition;
use crate::chunk::CHUNK_BYTES_MAX;
use crate::database::{Record, source_scan, target_scan};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::feed::Offsets;
use crate::fence::{BaseState, Fence};
use crate::journal::{BatchRow, FoundBy, Journal, now_ms};
use crate::proof::{Comparison, DifferenceKind, Reason};
use crate::row::{DigestKey, Rows};
use crate::schema::{Table, TableName};
use crate::task::Task;
use futures_util::future::try_join_all;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// How many keys one query looks up.
const KEYS_PER_QUERY: usize = 500;

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
    /// What is kept of the feed.
    pub spooling: Spooling,
}

impl Prover {
    /// Proves what is applied until no more comes: all batches that wait at once, at the newest of
    /// their fences.
    ///
    /// # Errors
    /// If a side cannot be read for a reason that does not lie in one table: what does, or that a
    /// snapshot has expired, withdraws the verdict of the table in question.
    pub async fn run(self, mut waiting: Waiting) -> Result<()> {
        let mut all: Vec<Links> = (0..self.task.workers)
            .map(|_| Links::new(&self.task))
            .collect();
        while let Some(mut unproven) = waiting.next().await {
            let withdrawn = self.prove(&mut all, &mut unproven, &mut waiting).await?;
            failpoint::pass("proof-before-recorded");
            let fence = unproven.fence;
            self.journal
                .set_proven(fence, &unproven.offsets, &unproven.ledgers)
                .await?;
            failpoint::pass("proof-recorded");
            self.status.update(|status| {
                status.proven = Some(fence);
                status.to_prove.batches -= unproven.batches;
                status.to_prove.keys -= unproven.keys;
            });
            let mut retries = Retries::new();
            let links = &mut all[0];
            while let Err(error) = self.conclude_bases(links, &unproven, &withdrawn).await {
                links.reset();
                retries.pause(error.at("recording a fresh base")).await?;
            }
            while let Err(error) = self.release(links, &unproven.offsets).await {
                links.reset();
                retries.pause(error.at("removing what was spooled")).await?;
            }
        }
        Ok(())
    }

    /// Removes of the spool what neither following nor a fresh base will read again after a death.
    async fn release(&self, links: &mut Links, proven: &Offsets) -> Result<()> {
        if self.spooling.spool().is_empty()? {
            return Ok(());
        }
        let mut needed = proven.clone();
        for base in self
            .record
            .fresh_bases(links.target.session().await?)
            .await?
        {
            needed.go_back_to(&base.offsets);
        }
        self.spooling.release(&needed)
    }

    /// Gives the tables that a proven batch has joined their verdicts: they were read equal at their
    /// bases, and what came since is proven up to this fence (INV-2). Only now are their bases done
    /// with; after a crash before that they join once more.
    async fn conclude_bases(
        &self,
        links: &mut Links,
        proven: &Unproven,
        withdrawn: &BTreeSet<TableName>,
    ) -> Result<()> {
        if proven.joined.is_empty() {
            return Ok(());
        }
        let target = links.target.session().await?;
        for base in self.record.fresh_bases(target).await? {
            let name = &base.table.name;
            if base.state != BaseState::Joined || !proven.joined.contains(name) {
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
                let (fence, by) = (proven.fence, FoundBy::Load);
                let (verdict, w) = (proof.carried(fence), fence.w);
                self.journal
                    .set_table(&base.table, by, &verdict, proof.counts, &proof.digest, w)
                    .await?;
            }
            failpoint::pass("base-before-ended");
            self.record.conclude_base(target, &base).await?;
            failpoint::pass("base-ended");
            self.journal.end_load_ledger(Some(name)).await?;
            self.status.end_base(name);
        }
        Ok(())
    }

    /// Proves batches, and returns the tables of which nothing is proven.
    async fn prove(
        &self,
        all: &mut [Links],
        unproven: &mut Unproven,
        waiting: &mut Waiting,
    ) -> Result<BTreeSet<TableName>> {
        let mut withdrawn: BTreeSet<TableName> = unproven.unprovable.keys().cloned().collect();
        for (name, stop) in &unproven.unprovable {
            let (reason, detail) = described(stop);
            self.journal
                .withdraw(name, unproven.fence.w, reason, &detail)
                .await?;
            unproven.ledgers.ended.insert(name.clone(), detail);
        }
        if unproven.changes == 0 {
            return Ok(withdrawn);
        }
        let (found, mut failed) = (Found::default(), false);
        while let Some(mut touched) = unproven.take()? {
            let name = touched.table.name.clone();
            if withdrawn.contains(&name) {
                continue;
            }
            let proved = self.prove_table(all, unproven.fence, &mut touched, &found);
            let Err(error) = proved.await else {
                continue;
            };
            all.iter_mut().for_each(Links::reset);
            // What was read stays proven: what changed of it since is touched by what is newer.
            if error.kind() == ErrorKind::Expired && waiting.take_newer(unproven) {
                unproven.put_back(touched);
                continue;
            }
            self.withdraw(&name, unproven.fence, error).await?;
            failed = true;
            let why = "a batch of the table could not be proven";
            unproven.ledgers.ended.insert(name.clone(), why.to_owned());
            withdrawn.insert(name);
        }
        let differences = found.differences.into_inner();
        let verdict = match (differences, failed) {
            (0, false) => "equal",
            (0, true) => "unproven",
            _ => "different",
        };
        let batch = BatchRow {
            fence: unproven.fence,
            from: unproven.from,
            changes: unproven.changes,
            keys: found.keys.into_inner(),
            differences,
            verdict: verdict.to_owned(),
            at_ms: now_ms(),
        };
        self.journal.add_batch(&batch).await?;
        Ok(withdrawn)
    }

    /// Withdraws the verdict of a table that cannot be read at a fence any more.
    async fn withdraw(&self, name: &TableName, fence: Fence, error: Error) -> Result<()> {
        let reason = match error.kind() {
            ErrorKind::Expired => Reason::Expired,
            ErrorKind::SchemaChanged => Reason::SchemaChanged,
            // Somebody altered it so that its rows cannot be read any more, or took the rights to.
            ErrorKind::Rejected | ErrorKind::Refused => Reason::Failed,
            _ => return Err(error.at(format!("proving {name}"))),
        };
        self.journal
            .withdraw(name, fence.w, reason, error.message())
            .await
    }

    /// Proves what was done to one table; after an error the keys that are not proven are left.
    async fn prove_table(
        &self,
        all: &mut [Links],
        fence: Fence,
        touched: &mut Touched,
        found: &Found,
    ) -> Result<()> {
        let findings = Findings {
            journal: &self.journal,
            fence,
            by: FoundBy::Batch,
            clearing: None,
            ledger: None,
        };
        if touched.table.key_len == 0 {
            return self
                .prove_copies(&mut all[0], touched, &findings, found)
                .await;
        }
        let lookups = Lookups::new(std::mem::take(&mut touched.keys));
        let provers = lookups.waiting().len().min(all.len());
        let provers = all[..provers]
            .iter_mut()
            .map(|links| self.prove_keys(links, &touched.table, &lookups, &findings, found));
        let proved = try_join_all(provers).await;
        touched.keys = lookups.left();
        proved.map(|_| ())
    }

    /// Proves keys as long as any wait.
    async fn prove_keys(
        &self,
        links: &mut Links,
        table: &Arc<Table>,
        lookups: &Lookups,
        findings: &Findings<'_>,
        found: &Found,
    ) -> Result<()> {
        let fence = findings.fence;
        let mut retries = Retries::new();
        while let Some(taken) = lookups.take() {
            let keys: Vec<&[u8]> = taken.keys.iter().map(Vec::as_slice).collect();
            let comparison = match self.compare_keys(links, fence, table, &keys).await {
                Ok(Some(comparison)) => comparison,
                // INV-8: these keys' rows are more than is held at once.
                Ok(None) => {
                    taken.halve();
                    continue;
                }
                Err(error) => {
                    links.reset();
                    retries.pause(error).await?;
                    continue;
                }
            };
            retries = Retries::new();
            let name = &table.name;
            let differences = findings.keep(name, &comparison).await?.differences();
            // Only now: in between nothing that differs may look closed.
            self.journal.close_differences(name, fence, &keys).await?;
            found.add(keys.len(), differences);
            taken.done();
        }
        Ok(())
    }

    /// Proves what was done to a table without a key: the rows that were touched are counted.
    async fn prove_copies(
        &self,
        links: &mut Links,
        touched: &mut Touched,
        findings: &Findings<'_>,
        found: &Found,
    ) -> Result<()> {
        let at = Moment {
            task: &self.task.name,
            w: findings.fence.w,
            s: Some(findings.fence.s),
        };
        self.journal.note_keyless(findings.fence.w).await?;
        let name = &touched.table.name;
        while !touched.keys.is_empty() {
            let left = touched.keys.len().saturating_sub(ROWS_PER_QUERY);
            let rows = touched.keys[left..].iter().map(Vec::as_slice);
            let wanted = Wanted::new(&touched.table, &self.digest_key, rows)?;
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
            let differences = findings.keep(name, &comparison).await?.differences();
            let digests = wanted.digests();
            self.journal
                .close_copies(name, findings.fence, digests)
                .await?;
            found.add(touched.keys.len() - left, differences);
            touched.keys.truncate(left);
        }
        Ok(())
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
        let comparison =
            compare_rows(table, key, (source_rows, target_rows), false, &spare).await?;
        Ok((comparison, whole))
    }
}

/// What the proof of some batches has found so far.
#[derive(Debug, Default)]
struct Found {
    keys: AtomicU64,
    differences: AtomicU64,
}

impl Found {
    fn add(&self, keys: usize, differences: u64) {
        self.keys.fetch_add(keys as u64, Ordering::Relaxed);
        self.differences.fetch_add(differences, Ordering::Relaxed);
    }
}

/// The keys of one table that wait to be looked up, in lists that one query takes.
#[derive(Debug)]
struct Lookups(Mutex<Vec<Vec<Vec<u8>>>>);

/// A list that is being looked up; unless that is done it goes back, whatever ends the work.
struct Taken<'a> {
    keys: Vec<Vec<u8>>,
    lookups: &'a Lookups,
}

impl Lookups {
    fn new(keys: Vec<Vec<u8>>) -> Lookups {
        let mut lists = Vec::with_capacity(keys.len().div_ceil(KEYS_PER_QUERY));
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() {
            lists.push(keys.by_ref().take(KEYS_PER_QUERY).collect());
        }
        Lookups(Mutex::new(lists))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Vec<Vec<u8>>>> {
        self.0.lock().expect("no holder of the keys panics")
    }

    fn take(&self) -> Option<Taken<'_>> {
        let keys = self.waiting().pop()?;
        let lookups = self;
        Some(Taken { keys, lookups })
    }

    /// Returns the keys that are not done.
    fn left(self) -> Vec<Vec<u8>> {
        let lists = self.0.into_inner().expect("no holder of the keys panics");
        lists.into_iter().flatten().collect()
    }
}

impl Taken<'_> {
    fn done(mut self) {
        self.keys.clear();
    }

    fn halve(mut self) {
        let half = self.keys.split_off(self.keys.len() / 2);
        self.lookups.waiting().push(half);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            let keys = std::mem::take(&mut self.keys);
            self.lookups.waiting().push(keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_whose_proof_was_cut_short_are_left() {
        let keys: Vec<Vec<u8>> = (0..KEYS_PER_QUERY + 2).map(|n| vec![n as u8, 1]).collect();
        let lookups = Lookups::new(keys);
        assert_eq!(lookups.waiting().len(), 2);
        let last = lookups.take().expect("a list");
        assert_eq!(last.keys.len(), 2);
        last.halve();
        lookups.take().expect("a half").done();
        drop(lookups.take().expect("the other half"));
        assert_eq!(lookups.left().len(), KEYS_PER_QUERY + 1);
    }
}
