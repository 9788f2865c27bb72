//! What is applied and waits to be proven.
//!
//! Batches that wait are taken together and proven at the newest of their fences: a key that is read
//! there shows all that any of them did to it, so that each is read once and as it is now, and the
//! older fences need no proof of their own. Nothing is dropped: only when every key of all of them is
//! read does the proven fence move, to that newest one.

use super::status::StatusBoard;
use crate::engine::{Batch, Stop};
use crate::error::Result;
use crate::feed::{CommitTs, FoldedTable, Offsets, Part};
use crate::fence::Fence;
use crate::journal::LedgerStep;
use crate::row::Rows;
use crate::schema::{Table, TableName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

/// Why all ledgers end.
const NO_OLD_VALUES: &str = "the changefeed does not send old values (output-old-value = false)";

/// The bytes of keys that may wait to be proven before the applier waits (INV-8); a batch with more
/// waits alone. As much again is being proven.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// How many batches may wait: those without changes take little, but not nothing.
const BATCHES_MAX: usize = 4_096;

/// How many keys of a table are proven at once; those that wait are packed.
const KEYS_AT_ONCE: usize = 50_000;

/// The share of what may wait at which the proof begins although the target catches up.
const ENOUGH_BYTES: usize = WAITING_BYTES_MAX / 4 * 3;

/// How long the proof leaves both servers to an applier that catches up and brings nothing new.
const CATCHING_UP: Duration = Duration::from_secs(5);

/// How long it does so in all, whatever comes: what is far behind may be so for days.
const PUT_OFF_MAX: Duration = Duration::from_secs(30);

/// What a batch is counted for by itself, and each table that it cannot prove.
const BYTES_PER_BATCH: usize = 1 << 10;

/// What a batch is counted for that is on disk, so that few of them are there at once.
const BYTES_ON_DISK: usize = 4 << 20;

/// The keys of one table that were touched and are not proven yet.
#[derive(Debug)]
pub struct Touched {
    /// The table.
    pub table: Arc<Table>,
    /// The packed keys; whole packed rows where the table has no key.
    pub keys: Vec<Vec<u8>>,
}

/// Batches that are applied and not yet proven, taken together.
#[derive(Debug)]
pub struct Unproven {
    /// The fence at the end of the newest batch.
    pub fence: Fence,
    /// The timestamp at which the oldest batch begins.
    pub from: CommitTs,
    /// For each partition the offset from which the feed is read behind the newest batch.
    pub offsets: Offsets,
    /// How many batches these are.
    pub batches: u64,
    /// The changes that they hold.
    pub changes: u64,
    /// The keys that they touched, at most: one that several touched counts for each.
    pub keys: u64,
    /// The tables that joined with them.
    pub joined: BTreeSet<TableName>,
    /// The tables of which nothing can be proven at the newest fence, and why.
    pub unprovable: BTreeMap<TableName, Stop>,
    /// What they do to ledgers.
    pub ledgers: LedgerStep,
    /// What they touched and is in memory.
    tables: BTreeMap<TableName, Pending>,
    /// What they touched and is on disk, each with the timestamps between which it was touched.
    spilled: Vec<(Part, (CommitTs, CommitTs))>,
    /// Whether the first of them stops a table.
    stops: bool,
    /// Whether the target was catching up when the newest of them was applied.
    catches_up: bool,
}

/// Keys of a table that wait, packed.
#[derive(Debug)]
struct Pending {
    table: Arc<Table>,
    /// As they came, batch by batch.
    keys: Vec<Rows>,
    /// Those of which each is there once; the proof takes its keys from here.
    distinct: Rows,
}

impl Pending {
    fn of(table: &Arc<Table>) -> Pending {
        Pending {
            table: Arc::clone(table),
            keys: Vec::new(),
            distinct: Rows::new(),
        }
    }

    /// Takes out some keys, of which no other will be taken once more.
    fn take(&mut self) -> Vec<Vec<u8>> {
        if !self.keys.is_empty() {
            self.distinct = Rows::distinct(self.keys.iter().chain([&self.distinct]));
            self.keys.clear();
        }
        self.distinct.pop(KEYS_AT_ONCE)
    }

    /// Returns what it takes in memory, many small batches included.
    fn byte_len(&self) -> usize {
        let all = self.keys.iter().chain([&self.distinct]);
        all.map(|keys| size_of::<Rows>() + keys.capacity()).sum()
    }
}

impl Unproven {
    /// Takes what must be proven of a batch that was applied; its images are done with, because a proof
    /// reads both sides by key.
    pub fn of(fence: Fence, batch: Batch, catches_up: bool) -> Unproven {
        let span = (batch.floor(), batch.to);
        let keys = batch.keys_at_most() as u64;
        let joined = batch.joined.iter().map(|of| of.table.name.clone());
        let joined: BTreeSet<TableName> = joined.collect();
        let mut ledgers = LedgerStep::joining(joined.clone());
        ledgers.all_ended = batch.old_values_hidden.then_some(NO_OLD_VALUES);
        let mut unproven = Unproven {
            catches_up,
            fence,
            from: batch.from,
            offsets: batch.offsets,
            batches: 1,
            changes: batch.changes as u64,
            keys,
            joined,
            unprovable: batch.unprovable,
            ledgers,
            tables: BTreeMap::new(),
            spilled: Vec::new(),
            stops: !batch.stopped.is_empty(),
        };
        for part in batch.parts {
            match part.into_memory() {
                Ok(tables) => {
                    for folded in &tables {
                        unproven.add_folded(folded, span);
                    }
                }
                Err(on_disk) => unproven.spilled.push((on_disk, span)),
            }
        }
        unproven
    }

    fn add_folded(&mut self, folded: &FoldedTable, span: (CommitTs, CommitTs)) {
        let name = &folded.table.name;
        self.ledgers.carry(name, span, &folded.ledger);
        let keys = folded.rows.iter().map(|row| &row.key[..]);
        self.add_keys(&folded.table, vec![Rows::of_packed(keys)]);
    }

    fn add_keys(&mut self, table: &Arc<Table>, keys: Vec<Rows>) {
        let pending = self.tables.entry(table.name.clone());
        let pending = pending.or_insert_with(|| Pending::of(table));
        pending.keys.extend(keys);
    }

    /// Adds a newer one: all is to be proven at its fence. What is stopped stays stopped until
    /// following begins anew, so that its list of such tables is the longer one.
    fn add(&mut self, newer: Unproven) {
        self.fence = newer.fence;
        self.offsets = newer.offsets;
        self.unprovable = newer.unprovable;
        self.catches_up = newer.catches_up;
        self.batches += newer.batches;
        self.changes += newer.changes;
        self.keys += newer.keys;
        self.joined.extend(newer.joined);
        self.ledgers.add(newer.ledgers);
        self.spilled.extend(newer.spilled);
        for pending in newer.tables.into_values() {
            let mut keys = pending.keys;
            if !pending.distinct.is_empty() {
                keys.push(pending.distinct);
            }
            self.add_keys(&pending.table, keys);
        }
    }

    /// Takes out keys of a table that are to be proven, each once; none when that was all.
    ///
    /// # Errors
    /// If they are on disk and cannot be read.
    pub fn take(&mut self) -> Result<Option<Touched>> {
        while self.tables.is_empty() {
            let Some((mut part, span)) = self.spilled.pop() else {
                return Ok(None);
            };
            for folded in part.tables()?.iter() {
                self.add_folded(folded, span);
            }
        }
        let mut first = self.tables.first_entry().expect("there is one");
        let pending = first.get_mut();
        let table = Arc::clone(&pending.table);
        let keys = pending.take();
        if pending.distinct.is_empty() {
            first.remove();
        }
        Ok(Some(Touched { table, keys }))
    }

    /// Puts back what of a table is still to be proven.
    pub fn put_back(&mut self, touched: Touched) {
        let keys = touched.keys.iter().map(Vec::as_slice);
        self.add_keys(&touched.table, vec![Rows::of_packed(keys)]);
    }

    /// Returns about what it takes in memory.
    fn byte_len(&self) -> usize {
        let keys: usize = self.tables.values().map(Pending::byte_len).sum();
        let disk = self.spilled.len().min(1) * BYTES_ON_DISK;
        keys + disk + self.ledgers.byte_len() + (1 + self.unprovable.len()) * BYTES_PER_BATCH
    }
}

/// A batch that waits, with its share of what may.
type Queued = (Unproven, OwnedSemaphorePermit);

/// Makes the queue between the applier and the prover.
pub fn proof_queue(status: StatusBoard) -> (ToProve, Waiting) {
    let (sender, jobs) = mpsc::channel(BATCHES_MAX);
    let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
    let to_prove = ToProve {
        sender,
        room,
        status,
    };
    (to_prove, Waiting { jobs, next: None })
}

/// The applier's end of the queue.
#[derive(Debug)]
pub struct ToProve {
    sender: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    status: StatusBoard,
}

impl ToProve {
    /// Hands over a batch that was applied, and waits as long as too much waits already (INV-8).
    pub async fn send(&self, unproven: Unproven) {
        self.status.update(|status| {
            status.to_prove.batches += unproven.batches;
            status.to_prove.keys += unproven.keys;
        });
        let share = unproven.byte_len().min(WAITING_BYTES_MAX);
        let share = u32::try_from(share).expect("the room is small");
        let room = Arc::clone(&self.room);
        let share = match Arc::clone(&room).try_acquire_many_owned(share) {
            Ok(share) => share,
            Err(_) => {
                let reason = "the proof of what is applied: too much of it waits".to_owned();
                self.status
                    .update(|status| status.waiting_for = Some(reason));
                let acquired = tokio::select! {
                    acquired = room.acquire_many_owned(share) => acquired,
                    () = self.sender.closed() => return,
                };
                self.status.update(|status| status.waiting_for = None);
                acquired.expect("the semaphore is never closed")
            }
        };
        // The prover ends first only when it failed; its error is the one to report.
        let _ = self.sender.send((unproven, share)).await;
    }
}

/// The prover's end of the queue.
#[derive(Debug)]
pub struct Waiting {
    jobs: mpsc::Receiver<Queued>,
    /// What was looked at and left for later.
    next: Option<Queued>,
}

impl Waiting {
    /// Waits for a batch, and takes all that wait behind it too; none when no more come.
    ///
    /// While the target catches up, both servers are left to the applier as long as what waits has
    /// room: the keys are then read once, at a fence that is worth more than all those before.
    pub async fn next(&mut self) -> Option<Unproven> {
        let (mut unproven, mut share) = match self.next.take() {
            Some(next) => next,
            None => self.jobs.recv().await?,
        };
        let latest = Instant::now() + PUT_OFF_MAX;
        while unproven.catches_up && share.num_permits() < ENOUGH_BYTES && self.next.is_none() {
            let until = latest.min(Instant::now() + CATCHING_UP);
            match timeout_at(until, self.jobs.recv()).await {
                Ok(Some(newer)) if newer.0.stops => self.next = Some(newer),
                Ok(Some((newer, its_share))) => {
                    unproven.add(newer);
                    share.merge(its_share);
                }
                Ok(None) | Err(_) => break,
            }
        }
        drop(share);
        self.take_newer(&mut unproven);
        Some(unproven)
    }

    /// Adds all that waits to `unproven`, which is then to be proven at a newer fence; false if
    /// nothing waits.
    ///
    /// It ends before a batch that stops a table: what came before is proven at the fence before, as
    /// long as the table is there what the source is.
    pub fn take_newer(&mut self, unproven: &mut Unproven) -> bool {
        let before = unproven.fence;
        while self.next.is_none() {
            match self.jobs.try_recv() {
                Ok(newer) if newer.0.stops => self.next = Some(newer),
                Ok((newer, _)) => unproven.add(newer),
                Err(_) => break,
            }
        }
        unproven.fence != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::testing::integer_table;
    use std::time::Duration;

    /// A batch that ends at `w` and touched these keys of one table.
    fn batch(w: CommitTs, keys: &[&str]) -> Unproven {
        let mut unproven = Unproven {
            fence: Fence { w, s: w },
            from: w - 1,
            offsets: Offsets::default(),
            batches: 1,
            changes: keys.len() as u64,
            keys: keys.len() as u64,
            joined: BTreeSet::new(),
            unprovable: BTreeMap::new(),
            ledgers: LedgerStep::default(),
            tables: BTreeMap::new(),
            spilled: Vec::new(),
            stops: false,
            catches_up: false,
        };
        let keys = keys.iter().map(|key| key.as_bytes());
        let table = Arc::new(integer_table("s", "t"));
        unproven.add_keys(&table, vec![Rows::of_packed(keys)]);
        unproven
    }

    fn keys(unproven: &mut Unproven) -> Vec<String> {
        let touched = unproven.take().expect("in memory").expect("a table");
        let keys = touched.keys.into_iter();
        keys.map(|key| String::from_utf8(key).expect("a text"))
            .collect()
    }

    #[tokio::test]
    async fn inv_1_batches_that_wait_are_proven_at_the_newest_fence_and_each_key_once() {
        let status = StatusBoard::new("t");
        let (to_prove, mut waiting) = proof_queue(status.clone());
        for (w, keys) in [(10, &["a", "b"]), (20, &["b", "c"]), (30, &["a", "d"])] {
            to_prove.send(batch(w, keys)).await;
        }
        let backlog = status.snapshot().to_prove;
        assert_eq!((backlog.batches, backlog.keys), (3, 6));
        let mut unproven = waiting.next().await.expect("batches");
        assert_eq!((unproven.from, unproven.fence.w), (9, 30));
        assert_eq!((unproven.batches, unproven.changes), (3, 6));
        assert_eq!(keys(&mut unproven), ["a", "b", "c", "d"]);
        assert!(unproven.take().expect("in memory").is_none());
    }

    #[tokio::test]
    async fn inv_1_what_was_not_read_at_an_older_fence_is_read_at_a_newer_one() {
        let (to_prove, mut waiting) = proof_queue(StatusBoard::new("t"));
        to_prove.send(batch(10, &["a", "b"])).await;
        let mut unproven = waiting.next().await.expect("a batch");
        let mut touched = unproven.take().expect("in memory").expect("a table");
        assert!(!waiting.take_newer(&mut unproven), "nothing is newer");
        to_prove.send(batch(20, &["b", "c"])).await;
        // "a" was read at 10 before the snapshot expired.
        touched.keys.retain(|key| key != b"a");
        assert!(waiting.take_newer(&mut unproven));
        unproven.put_back(touched);
        assert_eq!(unproven.fence.w, 20);
        assert_eq!(keys(&mut unproven), ["b", "c"]);
    }

    #[tokio::test]
    async fn what_comes_before_the_stop_of_a_table_is_proven_before_it() {
        let (to_prove, mut waiting) = proof_queue(StatusBoard::new("t"));
        let stopping = Unproven {
            stops: true,
            ..batch(20, &["b"])
        };
        to_prove.send(batch(10, &["a"])).await;
        to_prove.send(stopping).await;
        to_prove.send(batch(30, &["c"])).await;
        let mut first = waiting.next().await.expect("a batch");
        assert_eq!((first.fence.w, first.batches), (10, 1));
        assert!(!waiting.take_newer(&mut first));
        let second = waiting.next().await.expect("batches");
        assert_eq!((second.fence.w, second.batches), (30, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_proof_waits_while_the_target_catches_up_but_never_for_long() {
        let large = |w, keys: &[&str]| Unproven {
            catches_up: true,
            ..batch(w, keys)
        };
        let (to_prove, mut waiting) = proof_queue(StatusBoard::new("t"));
        let applier = tokio::spawn(async move {
            for w in [10, 20, 30] {
                to_prove.send(large(w, &["a", "b"])).await;
                tokio::time::sleep(CATCHING_UP / 2).await;
            }
            to_prove.send(batch(40, &["c"])).await;
            to_prove.send(large(50, &["d"])).await;
            to_prove
        });
        let first = waiting.next().await.expect("batches");
        assert_eq!((first.fence.w, first.batches), (50, 5));
        let to_prove = applier.await.expect("an applier");
        to_prove.send(large(60, &["e"])).await;
        let asked = Instant::now();
        let stuck = waiting.next().await.expect("a batch");
        assert_eq!((stuck.fence.w, asked.elapsed()), (60, CATCHING_UP));
        to_prove.send(large(70, &[&"k".repeat(ENOUGH_BYTES)])).await;
        let asked = Instant::now();
        let full = waiting.next().await.expect("a batch");
        assert_eq!((full.fence.w, asked.elapsed()), (70, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_proof_is_not_put_off_for_ever_though_the_target_never_catches_up() {
        let (to_prove, mut waiting) = proof_queue(StatusBoard::new("t"));
        let applier = tokio::spawn(async move {
            for w in 1.. {
                let behind = Unproven {
                    catches_up: true,
                    ..batch(w, &["a"])
                };
                to_prove.send(behind).await;
                tokio::time::sleep(CATCHING_UP / 5).await;
            }
        });
        let asked = Instant::now();
        let batches = waiting.next().await.expect("batches");
        assert!(batches.batches > 20, "{}", batches.batches);
        assert_eq!(asked.elapsed(), PUT_OFF_MAX);
        applier.abort();
    }

    #[tokio::test]
    async fn inv_8_the_applier_waits_when_too_many_keys_wait() {
        let status = StatusBoard::new("t");
        let (to_prove, mut waiting) = proof_queue(status.clone());
        let large = "k".repeat(WAITING_BYTES_MAX * 2 / 3);
        to_prove.send(batch(10, &[&large])).await;
        let second = to_prove.send(batch(20, &[&large]));
        let patience = Duration::from_millis(50);
        tokio::pin!(second);
        assert!(tokio::time::timeout(patience, &mut second).await.is_err());
        let reason = status.snapshot().waiting_for.expect("a reason");
        assert!(reason.contains("proof"), "{reason}");
        assert_eq!(waiting.next().await.expect("a batch").fence.w, 10);
        second.await;
        assert_eq!(status.snapshot().waiting_for, None);
        assert_eq!(waiting.next().await.expect("a batch").fence.w, 20);
    }
}
