//! The crew that writes large batches: several connections, between two fences.

use super::held::Obstacle;
use super::lease::Lease;
use super::link::Link;
use crate::database::{Record, Session};
use crate::failpoint;
use crate::feed::FoldedTable;
use crate::task::Task;
use futures_util::future::try_join_all;
use std::sync::Mutex;

/// How many statements a transaction of the crew has, each of up to a thousand rows.
const STATEMENTS_PER_TRANSACTION: usize = 10;

/// A statement, the table that it writes, and the place of its first row if that is known, else 0.
pub struct Statement<'a> {
    /// What the batch did to the table.
    pub folded: &'a FoldedTable,
    /// The place of the first row.
    pub place: usize,
    /// The text.
    pub sql: String,
}

impl Statement<'_> {
    /// Executes the statement; an error says which table met it.
    pub async fn execute(self, target: &mut Session) -> Result<(), Obstacle> {
        let done = target.write(self.sql, &self.folded.table).await;
        let met = |error| Obstacle::of(self.folded, self.place, error);
        done.map(|_| ()).map_err(met)
    }
}

/// How many connections a crew has for each worker of the load. OceanBase was seen to take most from
/// eight, of which some always wait for a commit; a load reads besides, and has no use for so many.
const LINKS_PER_WORKER: usize = 2;

/// Connections to the target, each with a slot of its own (INV-9): those of the load's workers, which
/// are free while a feed is followed, and as many more.
#[derive(Debug)]
pub struct Crew {
    links: Vec<Link>,
    record: Record,
    lease: Lease,
}

impl Crew {
    /// Gathers a crew; it connects when it is needed.
    pub fn new(task: &Task, record: &Record, lease: Lease) -> Crew {
        Crew {
            links: (0..Self::size(task)).map(|_| Link::target(task)).collect(),
            record: record.clone(),
            lease,
        }
    }

    /// Returns how many connections a crew has; their slots are numbered from 1.
    pub fn size(task: &Task) -> usize {
        task.workers * LINKS_PER_WORKER
    }

    /// Executes statements in any order, and returns when all are committed.
    ///
    /// # Errors
    /// With the first one that any of them meets. Those under way are then given up with their
    /// connections; what they had not committed is gone, and the batch is written anew.
    pub async fn write<'a>(
        &mut self,
        statements: impl Iterator<Item = Statement<'a>> + Send,
    ) -> Result<(), Obstacle> {
        let queue = Mutex::new(statements);
        let (record, epoch) = (&self.record, self.lease.epoch);
        let next = || queue.lock().expect("no holder of the queue panics").next();
        let writers = self
            .links
            .iter_mut()
            .zip(1..)
            .map(|(link, slot)| async move {
                while let Some(first) = next() {
                    let target = link.session().await?;
                    record.begin(target, slot, epoch).await?;
                    first.execute(target).await?;
                    for _ in 1..STATEMENTS_PER_TRANSACTION {
                        let Some(statement) = next() else { break };
                        statement.execute(target).await?;
                    }
                    failpoint::pass("crew-before-commit");
                    target.execute("COMMIT").await?;
                    failpoint::pass("crew-committed");
                }
                Ok(())
            });
        let written = try_join_all(writers).await.map(|_| ());
        if written.is_err() {
            self.links.iter_mut().for_each(Link::reset);
        }
        written
    }
}
