//! Where a migration goes on following: behind what was last proven.

use super::link::Links;
use super::migrate::Run;
use crate::broker::Feed;
use crate::database::{Record, Session, readable_ts};
use crate::engine::{Follow, Followed, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CommitTs, Offsets, Spill};
use crate::fence::BaseState;
use crate::proof::Reason;
use crate::schema::{Table, TableName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The bytes of changes that are held in memory while they wait for the watermark or are folded; what
/// exceeds them goes to the state directory (INV-8).
const FEED_MEMORY_BYTES: usize = 64 << 20;

/// Where following begins.
pub(super) struct Start {
    /// The machine.
    pub(super) follow: Follow,
    /// For each partition the offset from which the feed is read.
    pub(super) offsets: Offsets,
    /// The tables whose fresh bases are still to be loaded.
    pub(super) begun: Vec<TableName>,
}

impl Run {
    /// Takes up following where it was last proven, or earlier for the sake of tables that join.
    pub(super) async fn resume(
        &self,
        record: &Record,
        links: &mut Links,
        feed: &Feed,
    ) -> Result<Start> {
        let target = links.target.session().await?;
        let row = record.fence(target).await?.ok_or_else(|| {
            Error::new(ErrorKind::Broken, "INV-3: the target's fence row is gone")
                .advise("something else writes rowproof.fence; check who may")
        })?;
        let (proven, offsets) = match self.journal.proven().await? {
            Some((proven, _)) if proven.w > row.w => {
                return Err(Error::new(
                    ErrorKind::Broken,
                    format!(
                        "INV-3: the target stands at {} although it was proven at {}",
                        row.w, proven.w
                    ),
                )
                .advise("the target was restored to an older state: begin again with a new task"));
            }
            Some((proven, offsets)) => (proven.w, offsets),
            None => (row.w, row.offsets.clone()),
        };
        let mut offsets = offsets.named(feed.topic());
        let mut tables = self.followed_tables(record, target, row.w).await?;
        let begun = self
            .join_bases(record, target, feed, &mut tables, &mut offsets)
            .await?;
        let spill = Spill {
            dir: self.task.state_dir.clone(),
            memory_bytes: FEED_MEMORY_BYTES,
        };
        let zone = self.task.feed_zone();
        let digest_key = self.journal.digest_key().await?;
        let places = offsets.clone();
        let mut follow = Follow::new(proven, places, &row, tables, zone, digest_key, spill);
        follow.not_before(readable_ts(links.source.session().await?).await?);
        Ok(Start {
            follow,
            offsets,
            begun,
        })
    }

    /// Has the tables join whose fresh bases are loaded: the feed is read from where it shows all that
    /// came since. Returns the tables whose bases are still to be loaded.
    async fn join_bases(
        &self,
        record: &Record,
        target: &mut Session,
        feed: &Feed,
        tables: &mut BTreeMap<TableName, Followed>,
        offsets: &mut Offsets,
    ) -> Result<Vec<TableName>> {
        let mut begun = Vec::new();
        for mut base in record.fresh_bases(target).await? {
            let name = base.table.name.clone();
            let stopped = tables.get(&name).and_then(|of| of.stopped.as_ref());
            let over = base.state == BaseState::Joined && stopped.is_some();
            if over || !self.task.scope.contains(&name) {
                // What a fence speaks of was stopped again, or is no longer wanted.
                record.end_base(target, &name).await?;
                self.status.end_base(&name);
            } else if !base.state.is_loaded() {
                begun.push(name);
            } else if !feed.holds(&base.offsets).await? {
                let reason = "Kafka no longer holds what came since the fresh base";
                self.journal
                    .withdraw(&name, base.base, Reason::NotRead, reason)
                    .await?;
                self.journal.request_bases(&[name]).await?;
                record.end_base(target, &base.table.name).await?;
            } else {
                self.task.scope.set_policies(&mut base.table);
                let mut followed = Followed::new(Arc::new(base.table), base.base);
                followed.joins = true;
                tables.insert(name, followed);
                offsets.go_back_to(&base.offsets);
            }
        }
        Ok(begun)
    }

    /// Reads the tables with the definitions by which they were made; a table that has changed since
    /// is stopped by its DDL in the feed. One that was taken out of scope is stopped for good: its
    /// changes are not applied any more.
    async fn followed_tables(
        &self,
        record: &Record,
        target: &mut Session,
        at: CommitTs,
    ) -> Result<BTreeMap<TableName, Followed>> {
        let mut tables = BTreeMap::new();
        for row in record.followed(target).await? {
            let mut stopped = row.stopped;
            if stopped.is_none() && !self.task.scope.contains(&row.name) {
                let stop = Stop::new(at, "it was taken out of scope");
                record.stop_followed(target, &row.name, &stop).await?;
                stopped = Some(stop);
            }
            let mut table = row
                .table
                .unwrap_or_else(|| Table::unknown(row.name.clone()));
            let known = table.policies();
            self.task.scope.set_policies(&mut table);
            if known != table.policies() {
                let detail =
                    "the policies of its columns have changed; check reads the whole table";
                self.journal
                    .withdraw(&row.name, at, Reason::NotRead, detail)
                    .await?;
                record.set_model(target, &table).await?;
            }
            let mut followed = Followed::new(Arc::new(table), row.base);
            followed.stopped = stopped;
            tables.insert(row.name, followed);
        }
        Ok(tables)
    }
}
