//! Following the source: the feed is read, folded, applied, and fenced, batch by batch.

use super::applier::Applier;
use super::base_desk::BaseDesk;
use super::batch::BatchWriter;
use super::crew::Crew;
use super::lease::Lease;
use super::link::Links;
use super::pipeline::Pipeline;
use super::reader::{Claims, Reader};
use super::schema::Making;
use super::spooling::Spooling;
use super::status::StatusBoard;
use super::unproven::ToProve;
use crate::broker::Feed;
use crate::database::{Catalog, Record, collations};
use crate::engine::Follow;
use crate::error::Result;
use crate::feed::Offsets;
use crate::journal::{FoundBy, Journal};
use crate::proof::{Counts, Reason, Verdict};
use crate::row::DigestKey;
use crate::schema::{Table, TableName, obstacles};
use crate::task::Task;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How many records are read ahead of the applier; their bytes are bounded too.
const RECORDS_AHEAD: usize = 4_096;

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
        follow: Follow,
        offsets: &Offsets,
        begun: Vec<TableName>,
        proofs: ToProve,
    ) -> Result<Ended> {
        feed.seek(offsets).await?;
        let desk = BaseDesk::new(begun, &self.stop);
        let (records, inbox) = mpsc::channel(RECORDS_AHEAD);
        let ahead = Reader {
            journal: self.journal.clone(),
            claims: Claims::of(&self.task, follow.applied())?,
            feed,
            records,
            stop: self.stop.clone(),
        };
        let reader = tokio::spawn(ahead.run());
        let applier = Applier {
            writer: BatchWriter {
                task: self.task.name.clone(),
                record: self.record.clone(),
                digest_key: self.digest_key.clone(),
                lease: self.lease,
            },
            links: Links::new(&self.task),
            crew: Crew::new(&self.task, &self.record, self.lease),
            status: self.status.clone(),
            proofs,
            suspects: BTreeSet::new(),
        };
        let pipeline = Pipeline::new(&self, follow, desk, inbox, applier);
        // Its end closes the inbox, which ends the reader.
        let result = pipeline.run().await;
        let read = reader
            .await
            .map_err(|_| super::migrate::panicked("the reader of the feed"))?;
        let ended = result?;
        read.map(|()| ended)
    }

    /// Makes tables that the feed created, with the definition that the source has at the end of
    /// the stretch. A table that cannot be carried is left to the machine, which stops it.
    pub(super) async fn create_tables(
        &self,
        follow: &mut Follow,
        links: &mut Links,
        created: &BTreeSet<TableName>,
    ) -> Result<()> {
        let source = links.source.session().await?;
        source.set_snapshot(follow.taken_to()).await?;
        let wanted = Catalog::read(source, &self.task.scope).await?;
        let target = links.target.session().await?;
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
