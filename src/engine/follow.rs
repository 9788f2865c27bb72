//! Following the source: from the feed's messages to batches, fence by fence.

use super::{Followed, Letter, Stop, action};
use crate::error::Result;
use crate::feed::{
    Assembly, Claim, CommitTs, Ddl, Message, Offsets, Origin, Part, RowChange, Spill, Stretch,
    Zone, fold,
};
use crate::fence::{FenceRow, FenceState};
use crate::row::DigestKey;
use crate::schema::{Table, TableName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything that the driver must do to get from one fence to the next.
#[derive(Debug)]
pub struct Batch {
    /// The timestamp of the fence before.
    pub from: CommitTs,
    /// The timestamp of the fence after.
    pub to: CommitTs,
    /// The timestamp at or below which the batch leaves out what it reads again of tables that do not
    /// join: it lies above `from` where another table joins from further back.
    floor: CommitTs,
    /// For each partition the offset from which the feed is read once this is applied.
    pub offsets: Offsets,
    /// How many changes were folded.
    pub changes: usize,
    /// Whether a change had an old image and a new one: the changefeed sends old values.
    pub old_values: bool,
    /// Whether a key that the feed calls new was seen to have been there: the changefeed sends no old
    /// values. It is for the driver to find out.
    pub old_values_hidden: bool,
    /// The last images of all keys that were touched.
    pub parts: Vec<Part>,
    /// The tables that this batch stops; to be recorded in its transaction.
    pub stopped: Vec<TableName>,
    /// The tables that are brought from their fresh bases to the fence by this batch; to be recorded
    /// in its transaction, before what it stops.
    pub joined: Vec<Followed>,
    /// The tables that the target refused: of what the batch did to them nothing is written.
    pub refused: BTreeSet<TableName>,
    /// All tables that are stopped, and why: what the source shows of them at the end of the batch
    /// is not what the target holds, so that they cannot be proven.
    pub unprovable: BTreeMap<TableName, Stop>,
}

impl Batch {
    /// Returns how many keys the batch touched at most.
    pub fn keys_at_most(&self) -> usize {
        self.parts.iter().map(Part::keys_at_most).sum()
    }

    /// Returns the timestamp above which the batch tells all that happened to the tables that do not
    /// join.
    pub fn floor(&self) -> CommitTs {
        self.floor
    }

    /// Returns the timestamp above which the batch tells all that happened to a table with this base.
    pub fn since(&self, name: &TableName, base: CommitTs) -> CommitTs {
        match self.joined.iter().any(|of| of.table.name == *name) {
            true => base,
            false => base.max(self.floor),
        }
    }

    fn refuse(&mut self, name: &TableName, stop: Stop) {
        self.refused.insert(name.clone());
        self.unprovable.insert(name.clone(), stop);
    }

    /// Tells whether the target surely holds no row under the keys that are new in this batch
    /// ([`FoldedRow::is_new`](crate::feed::FoldedRow::is_new)): the feed sends old values, and the target
    /// stands at the fence where the batch begins, with nothing of it written.
    pub fn knows_new_keys(&self, target: &FenceRow) -> bool {
        self.old_values
            && self.joined.is_empty()
            && target.state == FenceState::Complete
            && target.w == self.from
    }
}

/// The state of following: what waits, what is applied, and which tables take part.
#[derive(Debug)]
pub struct Follow {
    assembly: Assembly,
    at_least: CommitTs,
    /// The timestamp up to which all tables but those that join are proven: what of them is read
    /// again at or below it is discarded.
    floor: CommitTs,
    tables: BTreeMap<TableName, Followed>,
    /// The time zone in which the feed writes TIMESTAMP values.
    zone: Zone,
    /// The key of the digests in the ledgers.
    digest_key: DigestKey,
    taken: Option<Stretch>,
    /// The tables that the DDL of the stretch may stop: no other is ever in scope.
    concerned: BTreeSet<TableName>,
    /// The tables in scope of which the stretch has rows.
    touched: BTreeSet<TableName>,
    /// The tables that the next batch stops, because a fresh base was asked for.
    given_up: BTreeSet<TableName>,
    /// The tables that the feed may have made and of which it has told nothing yet, not even their
    /// `CREATE TABLE`.
    made: BTreeSet<TableName>,
}

impl Follow {
    /// Starts behind the newest proven timestamp, on a target that holds this fence row, with offsets
    /// from which the feed shows all that committed later, and of tables that join all that committed
    /// above their bases.
    ///
    /// What lies between the two was applied before a crash and not yet proven. It is folded again,
    /// to its last images at the end of the first batch: those are never older than what the target
    /// holds, because that batch ends at the target's fence or later. A table that joins is nothing
    /// else than one whose changes above its base were not applied yet: it makes the first batch begin
    /// at its base or before, and end at it or later, and behind the target's fence, which says nothing
    /// of it.
    pub fn new(
        proven: CommitTs,
        offsets: Offsets,
        row: &FenceRow,
        tables: BTreeMap<TableName, Followed>,
        zone: Zone,
        digest_key: DigestKey,
        spill: Spill,
    ) -> Self {
        let bases = tables.values().filter(|of| of.joins).map(|of| of.base);
        let (mut from, mut at_least) = (proven, row.next_fence_at_least());
        for base in bases {
            from = from.min(base);
            // A fence between the two would find the table ahead of it.
            at_least = at_least.max(row.next_fence_at_least() + 1).max(base);
        }
        // A crash came between the making of a table and the batch that was to tell of it; that may
        // now come in several.
        let made = tables
            .iter()
            .filter(|(_, of)| of.base >= proven && !of.joins && of.stopped.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        Follow {
            made,
            assembly: Assembly::new(from, offsets, spill),
            at_least,
            floor: proven,
            tables,
            zone,
            digest_key,
            taken: None,
            concerned: BTreeSet::new(),
            touched: BTreeSet::new(),
            given_up: BTreeSet::new(),
        }
    }

    /// Has no fence made before a timestamp: the source cannot be read as of what is much older, neither
    /// to prove a batch nor for what the feed does not hold.
    pub fn not_before(&mut self, ts: CommitTs) {
        self.at_least = self.at_least.max(ts);
    }

    /// Returns all tables, the stopped ones included.
    pub fn tables(&self) -> &BTreeMap<TableName, Followed> {
        &self.tables
    }

    /// Returns the bytes of the changes that wait for the watermark.
    pub fn waiting_bytes(&self) -> usize {
        self.assembly.byte_len()
    }

    /// Returns the bytes of those of them that the watermark has passed, at least.
    pub fn resolved_bytes(&self) -> usize {
        self.assembly.resolved_bytes()
    }

    /// Returns the timestamp up to which everything is applied or taken.
    pub fn applied(&self) -> CommitTs {
        self.assembly.applied()
    }

    /// Returns topic and partition of each whose watermark is far behind those of the others.
    pub fn slow_partitions(&self) -> Vec<(String, usize)> {
        self.assembly.slow_partitions()
    }

    /// Returns the timestamp up to which the feed is complete.
    pub fn resolved(&self) -> CommitTs {
        self.assembly.resolved()
    }

    /// Tells whether changes wait that can be taken without another message.
    pub fn is_behind(&self) -> bool {
        let resolved = self.resolved();
        self.waiting_bytes() > 0 && resolved > self.applied() && resolved >= self.at_least
    }

    /// Takes in one message of the feed.
    ///
    /// # Errors
    /// If it fits neither into memory nor on the disk.
    pub fn on_message(&mut self, partition: usize, offset: i64, message: Message) -> Result<()> {
        match &message {
            Message::Row(row) | Message::Claim(Claim { row, .. })
                if row.commit_ts <= self.floor_of(&row.table) =>
            {
                self.assembly.skip(partition, offset);
                Ok(())
            }
            _ => self.assembly.push(partition, offset, message),
        }
    }

    /// Returns the timestamp up to which nothing of a table is to be applied.
    fn floor_of(&self, name: &TableName) -> CommitTs {
        match self.tables.get(name) {
            Some(followed) if followed.joins => followed.base,
            Some(followed) => followed.base.max(self.floor),
            None => self.floor,
        }
    }

    /// Gives a table up at the end of the next batch, because a fresh base was asked for; what is
    /// stopped already stays as it is.
    pub fn give_up(&mut self, name: &TableName) {
        self.given_up.insert(name.clone());
    }

    /// Notes that a fresh base of a stopped table is being loaded, or why that ended without one.
    pub fn note_base(&mut self, name: &TableName, failure: Option<&str>) {
        let followed = self.tables.get_mut(name);
        if let Some(stop) = followed.and_then(|followed| followed.stopped.as_mut()) {
            stop.loading = failure.is_none();
            if let Some(failure) = failure {
                stop.reason = failure.to_owned();
            }
        }
    }

    /// Takes note of a topic that the feed has begun to use.
    pub fn on_topic(&mut self, topic: &str, offsets: Vec<i64>) {
        self.assembly.add_topic(topic, offsets);
    }

    /// Takes the next stretch of the feed if the watermark allows one, and returns the tables that
    /// `CREATE TABLE` made in it and whose definition the driver must look up on the source as of
    /// [`Follow::taken_to`] before it asks for the batch.
    ///
    /// # Errors
    /// If rows on disk cannot be read or written.
    pub fn take_stretch(
        &mut self,
        in_scope: impl Fn(&TableName) -> bool,
    ) -> Result<Option<BTreeSet<TableName>>> {
        assert!(
            self.taken.is_none(),
            "a stretch is taken only after the batch of the one before"
        );
        let Some(mut stretch) = self.assembly.take(self.at_least)? else {
            return Ok(None);
        };
        let touched = stretch.rows.tables().into_iter();
        self.touched = touched.filter(|name| in_scope(name)).cloned().collect();
        stretch.ddls.retain(|ddl| {
            let of_several = action::OF_SEVERAL_TABLES.contains(&ddl.action);
            of_several || ddl.table.table.is_empty() || in_scope(&ddl.table)
        });
        let named = stretch.ddls.iter().map(|ddl| ddl.table.clone());
        let mut concerned: BTreeSet<TableName> = named.filter(|name| in_scope(name)).collect();
        concerned.extend(self.tables.keys().cloned());
        let created = stretch
            .ddls
            .iter()
            .filter(|ddl| ddl.action == action::CREATE_TABLE)
            .filter(|ddl| !self.tables.contains_key(&ddl.table))
            .filter(|ddl| ddl.commit_ts > self.floor)
            .map(|ddl| ddl.table.clone())
            .collect();
        self.concerned = concerned;
        self.taken = Some(stretch);
        Ok(Some(created))
    }

    /// Returns the end of the stretch that is taken.
    pub fn taken_to(&self) -> Option<CommitTs> {
        self.taken.as_ref().map(|stretch| stretch.to)
    }

    /// Adds a table that the stretch created, with the definition that the source has at its end.
    pub fn add_table(&mut self, table: Arc<Table>) {
        let base = self.taken.as_ref().map_or(0, |stretch| stretch.from);
        self.made.insert(table.name.clone());
        self.tables
            .insert(table.name.clone(), Followed::new(table, base));
    }

    /// Folds the stretch that is taken into a batch.
    ///
    /// A change that cannot be carried stops its table right before it, and no other.
    ///
    /// # Errors
    /// If rows on disk cannot be read or written.
    pub fn batch(&mut self) -> Result<Option<Batch>> {
        let Some(mut stretch) = self.taken.take() else {
            return Ok(None);
        };
        let mut stopped = Vec::new();
        for ddl in &stretch.ddls {
            self.on_ddl(ddl, &mut stopped);
        }
        let tells_of = |name: &TableName| {
            self.touched.contains(name) || stretch.ddls.iter().any(|ddl| ddl.table == *name)
        };
        self.made.retain(|name| !tells_of(name));
        self.stop_unknown(stretch.from, &mut stopped);
        let live: BTreeMap<TableName, Arc<Table>> = self
            .tables
            .iter()
            .map(|(name, followed)| (name.clone(), Arc::clone(&followed.table)))
            .collect();
        let folded = loop {
            let applies = |row: &RowChange| self.applies(row, &stopped);
            match fold(
                &mut stretch.rows,
                &live,
                self.zone,
                &self.digest_key,
                applies,
            )? {
                Ok(folded) => break folded,
                Err(error) => {
                    let at = error.origin.commit_ts.saturating_sub(1);
                    let reason = format!("a change that cannot be carried: {}", error.what);
                    let stop = Stop::held(at, reason, Letter::of(error.origin, &stretch.offsets));
                    // A DDL that stops the table later is not reached any more.
                    self.stop_again(&error.table, stop, &mut stopped);
                }
            }
        };
        for name in std::mem::take(&mut self.given_up) {
            let stop = Stop::new(stretch.to, "a fresh base was asked for");
            self.stop(&name, stop, &mut stopped);
        }
        self.at_least = stretch.to;
        Ok(Some(Batch {
            from: stretch.from,
            to: stretch.to,
            floor: std::mem::replace(&mut self.floor, stretch.to),
            offsets: stretch.offsets,
            changes: folded.changes,
            old_values: folded.old_values,
            old_values_hidden: false,
            parts: folded.parts,
            unprovable: self.unprovable(),
            stopped,
            joined: self.join(),
            refused: BTreeSet::new(),
        }))
    }

    /// Holds a table whose rows in this batch the target refuses for good, `letter` among them. The
    /// batch is then applied without them, and is as exact as before for all other tables. So is the
    /// `next` one, if that is folded already.
    pub fn hold(
        &mut self,
        batch: &mut Batch,
        next: Option<&mut Batch>,
        name: &TableName,
        reason: &str,
        letter: Origin,
    ) {
        let base = self.tables.get(name).map_or(0, |followed| followed.base);
        let letter = Letter::of(letter, &batch.offsets);
        let stop = Stop::held(batch.since(name, base), reason, letter);
        self.stop_again(name, stop.clone(), &mut batch.stopped);
        if let Some(next) = next {
            // What would stop it later is not reached any more.
            next.stopped.retain(|other| other != name);
            next.refuse(name, stop.clone());
        }
        batch.refuse(name, stop);
    }

    fn join(&mut self) -> Vec<Followed> {
        let joining = self.tables.values_mut().filter(|of| of.joins);
        joining
            .map(|followed| {
                followed.joins = false;
                followed.clone()
            })
            .collect()
    }

    fn unprovable(&self) -> BTreeMap<TableName, Stop> {
        let tables = self.tables.iter();
        tables
            .filter_map(|(name, followed)| Some((name.clone(), followed.stopped.clone()?)))
            .collect()
    }

    /// Tells whether a change is to be written: it lies above its table's base, and the table is
    /// followed, or was until this stretch stopped it behind the change. What the record says is
    /// stopped is written no more: the batch that stopped it wrote what came before.
    fn applies(&self, row: &RowChange, stopped: &[TableName]) -> bool {
        self.tables.get(&row.table).is_some_and(|followed| {
            let before_stop = match &followed.stopped {
                None => true,
                Some(stop) => row.commit_ts <= stop.at && stopped.contains(&row.table),
            };
            row.commit_ts > followed.base && before_stop
        })
    }

    fn on_ddl(&mut self, ddl: &Ddl, stopped: &mut Vec<TableName>) {
        let names: Vec<TableName> = match ddl.action {
            action::CREATE_SCHEMA | action::ALTER_SCHEMA_CHARSET => Vec::new(),
            action::DROP_SCHEMA => self
                .tables
                .keys()
                .filter(|name| name.schema.eq_ignore_ascii_case(&ddl.table.schema))
                .cloned()
                .collect(),
            action::CREATE_TABLE if self.is_its_creation(ddl) => Vec::new(),
            action::FLASHBACK_CLUSTER => self.tables.keys().cloned().collect(),
            of_several if action::OF_SEVERAL_TABLES.contains(&of_several) => self
                .concerned
                .iter()
                .filter(|name| **name == ddl.table || action::names(&ddl.query, name))
                .cloned()
                .collect(),
            _ => vec![ddl.table.clone()],
        };
        for name in names {
            // What a DDL did up to a table's base, the base shows.
            if ddl.commit_ts <= self.floor_of(&name) {
                continue;
            }
            let reason = format!("a DDL that rowproof does not carry yet: {}", ddl.query);
            self.stop(&name, Stop::new(ddl.commit_ts, reason), stopped);
        }
    }

    /// Tells whether this is the DDL that made a table known: the driver added it at the start of this
    /// stretch, or of one that was begun before a crash, and nothing was told of it since.
    fn is_its_creation(&self, ddl: &Ddl) -> bool {
        let is_followed = |of: &Followed| of.base < ddl.commit_ts && of.stopped.is_none();
        self.made.contains(&ddl.table) && self.tables.get(&ddl.table).is_some_and(is_followed)
    }

    /// Stops tables in scope whose rows arrive although no load and no `CREATE TABLE` made them
    /// known: they were renamed into scope, recovered, or their definition cannot be carried.
    fn stop_unknown(&mut self, from: CommitTs, stopped: &mut Vec<TableName>) {
        let touched = std::mem::take(&mut self.touched);
        for name in touched {
            if self.tables.contains_key(&name) {
                continue;
            }
            let reason = "it appeared after the load without a CREATE TABLE that rowproof can \
                          carry";
            self.stop(&name, Stop::new(from, reason), stopped);
        }
    }

    fn stop(&mut self, name: &TableName, stop: Stop, stopped: &mut Vec<TableName>) {
        let followed = self.tables.entry(name.clone()).or_insert_with(|| {
            let unknown = Arc::new(Table::unknown(name.clone()));
            Followed::new(unknown, stop.at)
        });
        if followed.stopped.is_none() {
            followed.stopped = Some(stop);
            stopped.push(name.clone());
        }
    }

    /// Stops a table earlier than something else has stopped it in the same stretch.
    fn stop_again(&mut self, name: &TableName, stop: Stop, stopped: &mut Vec<TableName>) {
        if let Some(followed) = self.tables.get_mut(name) {
            followed.stopped = None;
        }
        stopped.retain(|other| other != name);
        self.stop(name, stop, stopped);
    }
}

#[cfg(test)]
mod crashes;
#[cfg(test)]
mod tests;
