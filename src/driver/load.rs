//! The full load: every chunk is read at T0, written, read back and compared.

use super::chunk_read::{
    Findings, Moment, Spare, compare_in_pieces, compare_rows, cut, read_chunk,
};
use super::lease::Lease;
use super::link::{Links, Retries};
use super::status::StatusBoard;
use super::whole::compare_whole;
use crate::apply::insert_rows;
use crate::chunk::{CHUNK_BYTES_MAX, Chunk, Range, Walk};
use crate::database::{LoadedChunk, Record};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::feed::CommitTs;
use crate::fence::Fence;
use crate::journal::{FoundBy, Journal};
use crate::proof::{Ledger, TableProof, Tally, ledger_obstacle};
use crate::row::{DigestKey, Rows};
use crate::schema::{Pairing, Table, TableName};
use crate::task::Task;
use futures_util::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Everything that the workers of a load share.
#[derive(Debug)]
pub struct Load {
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
    /// T0.
    pub base: CommitTs,
    /// Cancelled when the operator stops the work.
    pub stop: CancellationToken,
    /// Buffers for the rows of chunks.
    pub spare: Spare,
}

/// One stripe of one table.
#[derive(Clone, Debug)]
struct StripeWork {
    table: Arc<Table>,
    stripe: u32,
    range: Range,
}

/// What is proven of a table while it is loaded.
#[derive(Debug, Default)]
struct TableLoad {
    proof: TableProof,
    stripes_left: usize,
    /// The chunks that are in the proof, by stripe and place: after a fault a stripe is gone
    /// through again, and no chunk may count twice.
    seen: BTreeSet<(u32, u32)>,
}

type Loads = Mutex<BTreeMap<TableName, TableLoad>>;

impl Load {
    /// Loads all tables and returns what is proven of each.
    ///
    /// # Errors
    /// If a stripe fails for good; what other workers have written stays, and a restart goes on
    /// behind it.
    pub async fn run(
        self: Arc<Self>,
        tables: &[Arc<Table>],
    ) -> Result<BTreeMap<TableName, TableProof>> {
        let mut queue = VecDeque::new();
        let mut loads = BTreeMap::new();
        for stripes in self.plan_all(tables).await? {
            let Some(first) = stripes.first() else {
                continue;
            };
            let load = TableLoad {
                stripes_left: stripes.len(),
                ..TableLoad::default()
            };
            loads.insert(first.table.name.clone(), load);
            queue.extend(stripes);
        }
        let queue = Arc::new(Mutex::new(queue));
        let loads: Arc<Loads> = Arc::new(Mutex::new(loads));
        let mut workers = JoinSet::new();
        for slot in 0..self.task.workers {
            let slot = u32::try_from(slot).expect("workers are few") + 1;
            let (load, queue, loads) = (Arc::clone(&self), Arc::clone(&queue), Arc::clone(&loads));
            workers.spawn(async move { load.work(slot, &queue, &loads).await });
        }
        while let Some(worker) = workers.join_next().await {
            worker.map_err(|_| super::migrate::panicked("a worker of the load"))??;
        }
        let loads = std::mem::take(&mut *loads.lock().expect("no holder of the loads panics"));
        Ok(loads
            .into_iter()
            .map(|(name, load)| (name, load.proof))
            .collect())
    }

    /// Returns the stripes of all tables; several tables are planned at a time.
    async fn plan_all(&self, tables: &[Arc<Table>]) -> Result<Vec<Vec<StripeWork>>> {
        let next = AtomicUsize::new(0);
        let planning = (0..self.task.workers).map(|worker| {
            let next = &next;
            async move {
                let slot = u32::try_from(worker).expect("workers are few") + 1;
                let mut links = Links::new(&self.task);
                let mut planned = Vec::new();
                while let Some(table) = tables.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut retries = Retries::new();
                    let stripes = loop {
                        match self.plan(&mut links, slot, table).await {
                            Ok(stripes) => break stripes,
                            Err(error) => {
                                links.reset();
                                let error = error.at(format!("cutting {}", table.name));
                                retries.pause(error).await?;
                            }
                        }
                    };
                    planned.push(stripes);
                }
                Ok::<_, Error>(planned)
            }
        });
        Ok(try_join_all(planning)
            .await?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Returns the stripes of a table as they were cut when its load began. After a fault it is called
    /// again.
    async fn plan(
        &self,
        links: &mut Links,
        slot: u32,
        table: &Arc<Table>,
    ) -> Result<Vec<StripeWork>> {
        let (source, target) = links.sessions().await?;
        let known = self.record.load_chunks(target, &table.name).await?;
        let mut ranges: Vec<Range> = known
            .iter()
            .filter(|chunk| chunk.seq.is_none())
            .map(|chunk| chunk.range.clone())
            .collect();
        if ranges.is_empty() {
            source.set_snapshot(Some(self.base)).await?;
            let count = u32::try_from(self.task.workers).expect("workers are few");
            ranges = cut(source, table, count).await?;
            self.record.begin(target, slot, self.lease.epoch).await?;
            for (stripe, range) in (0..).zip(&ranges) {
                let bounds = LoadedChunk {
                    stripe,
                    seq: None,
                    range: range.clone(),
                    rows: 0,
                };
                self.record
                    .add_load_chunk(target, &table.name, &bounds)
                    .await?;
            }
            failpoint::pass("stripes-before-commit");
            target.execute("COMMIT").await?;
            failpoint::pass("stripes-committed");
        }
        if self.task.scope.adopts(&table.name) {
            self.clear(links, slot, table, &ranges).await?;
        }
        let stripes = (0..).zip(ranges);
        let table = |stripe, range| StripeWork {
            table: Arc::clone(table),
            stripe,
            range,
        };
        Ok(stripes
            .map(|(stripe, range)| table(stripe, range))
            .collect())
    }

    async fn work(
        &self,
        slot: u32,
        queue: &Mutex<VecDeque<StripeWork>>,
        loads: &Loads,
    ) -> Result<()> {
        let mut links = Links::new(&self.task);
        loop {
            let work = queue
                .lock()
                .expect("no holder of the queue panics")
                .pop_front();
            let Some(work) = work else {
                return Ok(());
            };
            let mut retries = Retries::new();
            while let Err(error) = self
                .stripe(&mut links, slot, &work, loads, &mut retries)
                .await
            {
                links.reset();
                retries
                    .pause(error.at(format!("loading {}", work.table.name)))
                    .await?;
            }
            if self.finish_stripe(&work, loads) {
                self.finish_table(&mut links, &work.table, loads).await?;
            }
        }
    }

    /// Counts a stripe that is loaded, and tells whether it was the last one of its table.
    fn finish_stripe(&self, work: &StripeWork, loads: &Loads) -> bool {
        let mut loads = loads.lock().expect("no holder of the loads panics");
        loads.get_mut(&work.table.name).is_some_and(|load| {
            load.stripes_left -= 1;
            load.stripes_left == 0
        })
    }

    /// Proves a table whose rows could not be read back chunk by chunk: as a whole, now that it is
    /// loaded and nothing is applied yet.
    async fn finish_table(
        &self,
        links: &mut Links,
        table: &Arc<Table>,
        loads: &Loads,
    ) -> Result<()> {
        let mut retries = Retries::new();
        while table.pairing() != Pairing::Ranges {
            let ledger = self.ledger_of(table);
            let findings = Findings {
                ledger: ledger.as_ref(),
                ..self.findings()
            };
            let (key, fence) = (&self.digest_key, findings.fence);
            let compared = compare_whole(links, self.moment(), table, key, &findings).await;
            match compared {
                Ok(tally) => {
                    if let Some(rows) = gathered(ledger) {
                        self.journal
                            .set_load_ledger(&table.name, self.base, rows)
                            .await?;
                    }
                    let mut loads = loads.lock().expect("no holder of the loads panics");
                    if let Some(load) = loads.get_mut(&table.name) {
                        load.proof.add(fence, &tally);
                    }
                    break;
                }
                Err(error) => {
                    links.reset();
                    let error = error.at(format!("proving {}", table.name));
                    retries.pause(error).await?;
                }
            }
        }
        failpoint::pass("table-loaded");
        self.status.update(|status| status.load.tables_done += 1);
        Ok(())
    }

    /// The snapshot of the fence at T0 is known only when the load is done.
    pub(super) fn findings(&self) -> Findings<'_> {
        Findings {
            journal: &self.journal,
            fence: Fence { w: self.base, s: 0 },
            by: FoundBy::Load,
            clearing: None,
            ledger: None,
        }
    }

    /// Returns where the ledger of a table's rows is gathered, if it can have one.
    fn ledger_of(&self, table: &Table) -> Option<Mutex<Ledger>> {
        ledger_obstacle(table).is_none().then(Mutex::default)
    }

    pub(super) fn moment(&self) -> Moment<'_> {
        Moment {
            task: &self.task.name,
            w: self.base,
            s: None,
        }
    }

    /// Loads a stripe behind what the target already holds of it. After a fault it is called again:
    /// the target says how far it came.
    async fn stripe(
        &self,
        links: &mut Links,
        slot: u32,
        work: &StripeWork,
        loads: &Loads,
        retries: &mut Retries,
    ) -> Result<()> {
        let (source, target) = links.sessions().await?;
        source.set_snapshot(Some(self.base)).await?;
        let mut walk = Walk::new(work.range.clone(), work.table.row_bytes_estimate);
        for known in self.record.load_chunks(target, &work.table.name).await? {
            let Some(chunk) = known.chunk().filter(|_| known.stripe == work.stripe) else {
                continue;
            };
            walk.resume_after(&chunk);
            if work.table.pairing() != Pairing::Ranges {
                self.count(loads, work, &chunk, known.rows, |_, _| {});
            } else if !self
                .journal
                .has_load_proof(&work.table.name, work.stripe, chunk.seq)
                .await?
            {
                let mut rows = Rows::new();
                let sql = chunk.range.source_sql(&work.table, None);
                links.source.session().await?.scan(sql, &mut rows).await?;
                self.prove(links, work, &chunk, rows, loads).await?;
            } else {
                self.count(loads, work, &chunk, known.rows, |proof, fence| {
                    proof.add_known_equal(fence, known.rows);
                });
            }
        }
        while !self.stop.is_cancelled() {
            let source = links.source.session().await?;
            source.set_snapshot(Some(self.base)).await?;
            let Some((chunk, rows)) =
                read_chunk(source, &work.table, &mut walk, &self.spare).await?
            else {
                return Ok(());
            };
            self.write(links, slot, work, &chunk, &rows).await?;
            if work.table.pairing() == Pairing::Ranges {
                self.prove(links, work, &chunk, rows, loads).await?;
            } else {
                self.count(loads, work, &chunk, rows.len() as u64, |_, _| {});
            }
            *retries = Retries::new();
        }
        Err(super::migrate::interrupted())
    }

    /// INV-3: the rows of a chunk and the row that says they are there commit together.
    async fn write(
        &self,
        links: &mut Links,
        slot: u32,
        work: &StripeWork,
        chunk: &Chunk,
        rows: &Rows,
    ) -> Result<()> {
        let lacking = match self.task.scope.adopts(&work.table.name) {
            true => Some(self.lacking(links, &work.table, rows).await?),
            false => None,
        };
        let target = links.target.session().await?;
        self.record.begin(target, slot, self.lease.epoch).await?;
        let written = lacking.as_ref().unwrap_or(rows);
        for statement in insert_rows(&work.table, written.iter()) {
            target.write(statement, &work.table).await?;
        }
        let loaded = LoadedChunk {
            stripe: work.stripe,
            seq: Some(chunk.seq),
            range: chunk.range.clone(),
            rows: rows.len() as u64,
        };
        self.record
            .add_load_chunk(target, &work.table.name, &loaded)
            .await?;
        failpoint::pass("chunk-before-commit");
        target.execute("COMMIT").await?;
        failpoint::pass("chunk-committed");
        Ok(())
    }

    /// Reads a chunk back and compares it with what the source gave.
    async fn prove(
        &self,
        links: &mut Links,
        work: &StripeWork,
        chunk: &Chunk,
        source: Rows,
        loads: &Loads,
    ) -> Result<()> {
        let (table, rows) = (&work.table, source.len() as u64);
        let (range, ledger) = (&chunk.range, self.ledger_of(table));
        let findings = Findings {
            ledger: ledger.as_ref(),
            ..self.findings()
        };
        let tally = self
            .compare_chunk(links, table, range, source, &findings)
            .await?;
        failpoint::pass("chunk-compared");
        if tally.differences() == 0 {
            let (at, ledger) = ((work.stripe, chunk), gathered(ledger));
            self.journal
                .add_load_proof(&table.name, self.base, at, rows, ledger.as_ref())
                .await?;
        }
        failpoint::pass("chunk-proven");
        self.count(loads, work, chunk, rows, |proof, fence| {
            proof.add(fence, &tally)
        });
        Ok(())
    }

    /// Compares what the source has in a range with what the target has there now.
    pub(super) async fn compare_chunk(
        &self,
        links: &mut Links,
        table: &Arc<Table>,
        range: &Range,
        source: Rows,
        findings: &Findings<'_>,
    ) -> Result<Tally> {
        let mut target = self.spare.take();
        let sql = range.target_sql(table, None);
        let session = links.target.session().await?;
        let whole = session
            .scan_up_to(sql, &mut target, CHUNK_BYTES_MAX)
            .await?;
        let key = &self.digest_key;
        if whole {
            let (rows, wanted) = ((source, target), findings.ledger.is_some());
            let comparison = compare_rows(table, key, rows, wanted, &self.spare).await?;
            findings.keep(&table.name, &comparison).await
        } else {
            drop((source, target));
            let (at, range) = (self.moment(), range.clone());
            compare_in_pieces(links, at, table, key, range, findings).await
        }
    }

    /// Counts a proven chunk, once.
    fn count(
        &self,
        loads: &Loads,
        work: &StripeWork,
        chunk: &Chunk,
        rows: u64,
        add: impl FnOnce(&mut TableProof, Fence),
    ) {
        let mut loads = loads.lock().expect("no holder of the loads panics");
        let Some(load) = loads.get_mut(&work.table.name) else {
            return;
        };
        if load.seen.insert((work.stripe, chunk.seq)) {
            add(&mut load.proof, Fence { w: self.base, s: 0 });
            self.status.update(|status| {
                status.load.rows += rows;
                status.load.chunks += 1;
            });
        }
    }
}

/// Takes out what was gathered.
fn gathered(ledger: Option<Mutex<Ledger>>) -> Option<Ledger> {
    ledger.map(|ledger| ledger.into_inner().expect("no holder of the ledger panics"))
}
