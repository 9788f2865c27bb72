//! Fresh bases: a table that is stopped is loaded anew while the others are followed.
//!
//! Nobody else writes a stopped table, so that its load is what the first load of all tables was.
//! What commits on it meanwhile waits in Kafka: the offsets that were noted before the base lead
//! to all of it, and when the load is proven, following begins again from there, as after a crash.

use super::chunk_read::Spare;
use super::lease::Lease;
use super::link::{Links, Retries};
use super::load::Load;
use super::precheck::start_of_load;
use super::schema::Making;
use super::spooling::Spooling;
use super::status::StatusBoard;
use crate::broker::Feed;
use crate::database::{Catalog, FreshBase, Record, Session, collations};
use crate::engine::Stop;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::fence::{BaseState, Fence};
use crate::journal::Journal;
use crate::proof::{Counts, How, TableProof, Verdict};
use crate::row::DigestKey;
use crate::schema::{Spellings, Table, TableName, Weight, compare, differences, obstacles};
use crate::task::Task;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The slot under which a table is cleared and its steps are recorded: that of the load's first
/// worker, which does not work yet, or not any more.
const BASE_SLOT: u32 = 1;

/// The rows that are deleted in one transaction when a table is cleared.
const ROWS_PER_DELETE: u64 = 10_000;

/// How often a load whose base can no longer be read begins again with a new one.
const BASES: usize = 2;

/// What the load of a fresh base has proven; a verdict only when the first fence that speaks of the
/// table is proven too.
#[derive(Debug, Deserialize, Serialize)]
pub struct BaseProof {
    /// The verdict as of the base.
    pub verdict: Verdict,
    /// The rows that were read.
    pub counts: Counts,
    /// The digest of the source's rows.
    pub digest: String,
}

impl BaseProof {
    fn of(proof: &TableProof) -> BaseProof {
        BaseProof {
            verdict: proof.verdict(),
            counts: proof.counts(),
            digest: proof.source().to_string(),
        }
    }

    /// Returns the verdict at a fence up to which all batches since the base are proven.
    pub fn carried(&self, fence: Fence) -> Verdict {
        match &self.verdict {
            Verdict::Equal { .. } => Verdict::Equal {
                fence,
                how: How::Carried,
            },
            other => other.clone(),
        }
    }
}

/// How the load of a fresh base ended.
#[derive(Debug)]
pub struct BaseEnd {
    /// The table.
    pub name: TableName,
    /// Why there is none; the table stays stopped.
    pub failure: Option<String>,
}

/// Everything that loading fresh bases needs.
#[derive(Clone, Debug)]
pub struct FreshBases {
    /// The task.
    pub task: Task,
    /// rowproof's record on the target.
    pub record: Record,
    /// The journal.
    pub journal: Journal,
    /// The key of the row digests.
    pub digest_key: DigestKey,
    /// The lease under which rows are written.
    pub lease: Lease,
    /// What is kept of the feed.
    pub spooling: Spooling,
    /// Cancelled when the operator stops the work.
    pub stop: CancellationToken,
}

impl FreshBases {
    /// Loads tables anew, one after the other, and goes on with those that were begun before a crash.
    /// All of them must be stopped.
    ///
    /// # Errors
    /// If the work is stopped or the lease is lost. What else goes wrong ends the base of one table.
    pub async fn run(self, names: Vec<TableName>) -> Result<Vec<BaseEnd>> {
        let mut ends = Vec::new();
        for name in names {
            let mut links = Links::new(&self.task);
            let mut bases = BASES;
            let mut retries = Retries::new();
            let failure = loop {
                let Err(error) = self.table(&mut links, &name).await else {
                    break None;
                };
                links.reset();
                if error.kind().is_retryable() {
                    let error = error.at(format!("loading {name} anew"));
                    retries.pause(error).await?;
                } else if error.kind() == ErrorKind::Expired && bases > 1 {
                    bases -= 1;
                    self.give_up(&mut links, &name, None).await?;
                } else {
                    let reason = why_given_up(&name, error)?;
                    self.give_up(&mut links, &name, Some(&reason)).await?;
                    break Some(reason);
                }
            };
            failpoint::pass("base-before-request-ended");
            self.journal.end_request(&name).await?;
            failpoint::pass("base-request-ended");
            ends.push(BaseEnd { name, failure });
        }
        Ok(ends)
    }

    /// Records that a table's base, as far as it was loaded, is given up: another one is to be begun, or
    /// none, with the reason. After a fault it is done again.
    async fn give_up(
        &self,
        links: &mut Links,
        name: &TableName,
        reason: Option<&str>,
    ) -> Result<()> {
        let mut retries = Retries::new();
        loop {
            let recording = async {
                let target = links.target.session().await?;
                self.begin(target).await?;
                match reason {
                    Some(reason) => self.record.fail_base(target, name, reason).await?,
                    None => self.record.end_base(target, name).await?,
                }
                target.execute("COMMIT").await
            };
            match recording.await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    links.reset();
                    let error = error.at(format!("giving up the base of {name}"));
                    retries.pause(error).await?;
                }
            }
        }
    }

    /// Takes a table through the steps that it has before it; each is recorded when it is done.
    async fn table(&self, links: &mut Links, name: &TableName) -> Result<()> {
        let target = links.target.session().await?;
        self.begin(target).await?;
        self.record.pass_workers(target, self.lease.epoch).await?;
        target.execute("COMMIT").await?;
        failpoint::pass("base-workers-passed");
        let known = self.record.fresh_bases(target).await?;
        // One that had joined is over when the table is stopped, though no proof has concluded it yet.
        let known = known
            .into_iter()
            .find(|base| base.table.name == *name && base.state != BaseState::Joined);
        let mut base = match known {
            Some(base) => base,
            None => self.fix(links, name).await?,
        };
        let _need = self.spooling.begin(&base.offsets, base.base);
        if base.state == BaseState::Clearing {
            self.clear(links, &base).await?;
            failpoint::pass("base-cleared");
            self.step(links, &mut base, BaseState::Loading).await?;
            failpoint::pass("base-loading");
        }
        if base.state == BaseState::Loading {
            let proof = self.load(&base).await?;
            let (source, target) = links.sessions().await?;
            source.set_snapshot(Some(base.base)).await?;
            self.making(target)
                .await?
                .after_rows(target, &base.table)
                .await?;
            if !matches!(proof.verdict(), Verdict::Equal { .. }) {
                self.journal.end_load_ledger(Some(name)).await?;
            }
            let proof = serde_json::to_string(&BaseProof::of(&proof));
            base.proof = Some(proof.expect("a proof is JSON"));
            failpoint::pass("base-loaded");
            self.step(links, &mut base, BaseState::Joining).await?;
            failpoint::pass("base-joining");
        }
        Ok(())
    }

    /// Fixes the base, as the first load does: the topic's ends are noted, then the clock is read.
    async fn fix(&self, links: &mut Links, name: &TableName) -> Result<FreshBase> {
        let feed = self.task.feed.as_ref().ok_or_else(|| {
            let what = "a task without a feed follows nothing that a fresh base could join";
            Error::new(ErrorKind::Refused, what)
        })?;
        let mut feed = Feed::connect(feed).await?;
        let (source, target) = links.sessions().await?;
        let (base, offsets) = start_of_load(&mut feed, source).await?;
        source.set_snapshot(Some(base)).await?;
        let wanted = Catalog::read(source, &self.task.scope).await?;
        let table = wanted.find(name).cloned().ok_or_else(|| {
            let what = format!("the source has no table {name} in scope that can be carried");
            Error::new(ErrorKind::Refused, what)
        })?;
        let known = collations(target).await?;
        if let Some(found) = obstacles(&table, &self.task.choices, &known).first() {
            let what = format!("{}: {}", found.what, found.why);
            return Err(Error::new(ErrorKind::Refused, what).advise(found.fix.clone()));
        }
        let followed = self.record.followed(target).await?;
        let taken = followed.iter().find(|row| {
            let target = row.table.as_ref().map(|of| &of.target);
            row.name != *name && target.is_some_and(|target| target.is_same(&table.target))
        });
        if let Some(row) = taken {
            let what = format!("table {} has its place on the target", row.name);
            return Err(Error::new(ErrorKind::Refused, what)
                .advise("send one of them to another name in [tables] routes"));
        }
        let base = FreshBase {
            table,
            base,
            offsets,
            state: BaseState::Clearing,
            proof: None,
        };
        self.begin(target).await?;
        if !followed.iter().any(|row| row.name == *name) {
            // Until it joins it must not look like a table that is followed.
            let stop = Stop::new(base.base, "it has no base yet");
            self.record.stop_followed(target, name, &stop).await?;
        }
        self.record.begin_base(target, &base).await?;
        failpoint::pass("base-before-begun");
        target.execute("COMMIT").await?;
        failpoint::pass("base-begun");
        Ok(base)
    }

    /// Clears what the old base left, and makes the table if it is not there, or not as it must be to
    /// hold the source's rows.
    async fn clear(&self, links: &mut Links, base: &FreshBase) -> Result<()> {
        let table = &base.table;
        self.journal.forget_base(&table.name).await?;
        let (source, target) = links.sessions().await?;
        source.set_snapshot(Some(base.base)).await?;
        self.begin(target).await?;
        self.record.forget_chunks(target, &table.name).await?;
        target.execute("COMMIT").await?;
        failpoint::pass("base-chunks-forgotten");
        let making = self.making(target).await?;
        if let Some(found) = making.existing.find(&table.target) {
            match losses(&making, table, found).as_slice() {
                [] => self.delete_rows(target, table).await?,
                losses => self.drop_table(target, table, losses).await?,
            }
            failpoint::pass("base-old-gone");
        }
        let making = self.making(target).await?;
        making
            .table((source, target), true, table, base.base)
            .await?;
        let wanted = Catalog::read(source, &self.task.scope).await?;
        making.remember_spellings(target, &wanted).await
    }

    async fn delete_rows(&self, target: &mut Session, table: &Table) -> Result<()> {
        let sql = format!("DELETE FROM {} LIMIT {ROWS_PER_DELETE}", table.target.sql());
        loop {
            if self.stop.is_cancelled() {
                return Err(super::migrate::interrupted());
            }
            self.begin(target).await?;
            let deleted = target.write(sql.clone(), table).await?;
            target.execute("COMMIT").await?;
            failpoint::pass("base-rows-deleted");
            if deleted < ROWS_PER_DELETE {
                return Ok(());
            }
        }
    }

    /// Drops a table that cannot hold what the source has now. A DDL commits by itself; the slot is
    /// asserted right before it.
    async fn drop_table(
        &self,
        target: &mut Session,
        table: &Table,
        losses: &[String],
    ) -> Result<()> {
        self.begin(target).await?;
        failpoint::pass("base-before-dropped");
        let dropped = target.execute(format!("DROP TABLE {}", table.target.sql()));
        dropped.await.map(|_| ()).map_err(|error| {
            error
                .at(format!(
                    "dropping {} to make it anew, because it cannot hold what the source has ({})",
                    table.target,
                    losses.join("; ")
                ))
                .advise(
                    "GRANT DROP on the database to rowproof's user on the target, or drop or \
                     alter the table yourself, and run rowproof resync again",
                )
        })
    }

    async fn load(&self, base: &FreshBase) -> Result<TableProof> {
        let load = Arc::new(Load {
            task: self.task.clone(),
            record: self.record.clone(),
            journal: self.journal.clone(),
            digest_key: self.digest_key.clone(),
            // Its figures are not those of the first load, which the page shows.
            status: StatusBoard::new(&self.task.name),
            lease: self.lease,
            base: base.base,
            stop: self.stop.clone(),
            spare: Spare::default(),
        });
        let table = Arc::new(base.table.clone());
        let mut proofs = load.run(&[table]).await?;
        Ok(proofs.remove(&base.table.name).unwrap_or_default())
    }

    async fn step(&self, links: &mut Links, base: &mut FreshBase, state: BaseState) -> Result<()> {
        base.state = state;
        let target = links.target.session().await?;
        self.begin(target).await?;
        self.record.set_base_state(target, base).await?;
        target.execute("COMMIT").await.map(|_| ())
    }

    async fn begin(&self, target: &mut Session) -> Result<()> {
        self.record.begin(target, BASE_SLOT, self.lease.epoch).await
    }

    async fn making<'a>(&'a self, target: &mut Session) -> Result<Making<'a>> {
        Ok(Making {
            task: &self.task,
            record: &self.record,
            journal: &self.journal,
            collations: collations(target).await?,
            existing: Catalog::read(target, &self.task.scope).await?,
        })
    }
}

/// Returns why a table gets no fresh base, unless the error ends all work.
fn why_given_up(name: &TableName, error: Error) -> Result<String> {
    let fatal = [ErrorKind::Interrupted, ErrorKind::Lease, ErrorKind::Broken];
    if fatal.contains(&error.kind()) {
        return Err(error);
    }
    tracing::warn!(table = %name, error = %error.message(), "no fresh base");
    let text = error.to_string().replace("\n  ", "; ");
    Ok(format!("no fresh base could be loaded: {text}"))
}

/// Returns why the target's table cannot hold and show every row of the source as it is.
fn losses(making: &Making<'_>, table: &Table, found: &Table) -> Vec<String> {
    let wanted = making.task.choices.adapt(table, &making.collations);
    let differences = differences(&wanted, found, &Spellings::default());
    let losses = differences.iter().filter(|of| of.weight == Weight::Loss);
    let losses: Vec<String> = losses.map(|of| of.what.clone()).collect();
    match losses.is_empty() {
        true => compare(&wanted, found),
        false => losses,
    }
}
