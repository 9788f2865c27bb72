//! Following the source: from the feed's messages to batches, fence by fence.

use crate::error::Result;
use crate::feed::{Assembly, CommitTs, Ddl, Message, Part, RowChange, Spill, Stretch, Zone, fold};
use crate::fence::FenceRow;
use crate::schema::{Table, TableName, quote};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// TiDB's numbers for the DDL that the machine tells apart (`model.ActionType`).
mod action {
    pub const CREATE_SCHEMA: u32 = 1;
    pub const DROP_SCHEMA: u32 = 2;
    pub const CREATE_TABLE: u32 = 3;
    pub const ALTER_SCHEMA_CHARSET: u32 = 26;
    pub const RENAME_TABLE: u32 = 14;
    pub const RECOVER_TABLE: u32 = 25;
    pub const EXCHANGE_PARTITION: u32 = 42;
    pub const RENAME_TABLES: u32 = 47;
    pub const FLASHBACK_CLUSTER: u32 = 62;
    pub const RECOVER_SCHEMA: u32 = 63;

    /// DDL that concerns tables beside the one that its message names.
    pub const OF_SEVERAL_TABLES: [u32; 6] = [
        RENAME_TABLE,
        RECOVER_TABLE,
        EXCHANGE_PARTITION,
        RENAME_TABLES,
        FLASHBACK_CLUSTER,
        RECOVER_SCHEMA,
    ];
}

/// A table that is followed, or was until something stopped it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The definition by which rows are read, written and compared.
    pub table: Arc<Table>,
    /// The timestamp from which changes are applied: what committed later is not in the load.
    pub base: CommitTs,
    /// Why and when following ended. A stopped table is `Unproven`, never silently behind.
    pub stopped: Option<Stop>,
}

/// The end of following a table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stop {
    /// The last timestamp whose rows were applied.
    pub at: CommitTs,
    /// What happened, for people.
    pub reason: String,
}

/// Everything that the driver must do to get from one fence to the next.
#[derive(Debug)]
pub struct Batch {
    /// The timestamp of the fence before.
    pub from: CommitTs,
    /// The timestamp of the fence after.
    pub to: CommitTs,
    /// For each partition the offset from which the feed is read once this is applied.
    pub offsets: Vec<i64>,
    /// How many changes were folded.
    pub changes: usize,
    /// Whether a change had an old image and a new one: the changefeed sends old values.
    pub old_values: bool,
    /// The last images of all keys that were touched.
    pub parts: Vec<Part>,
    /// The tables that this batch stops; to be recorded in its transaction.
    pub stopped: Vec<TableName>,
    /// All tables that are stopped: what the source shows of them at the end of the batch is not
    /// what the target holds, so that they cannot be proven.
    pub unprovable: BTreeSet<TableName>,
}

/// The state of following: what waits, what is applied, and which tables take part.
#[derive(Debug)]
pub struct Follow {
    assembly: Assembly,
    at_least: CommitTs,
    tables: BTreeMap<TableName, Followed>,
    /// The time zone in which the feed writes TIMESTAMP values.
    zone: Zone,
    taken: Option<Stretch>,
    /// The tables that the DDL of the stretch may stop: no other is ever in scope.
    concerned: BTreeSet<TableName>,
    /// The tables in scope of which the stretch has rows.
    touched: BTreeSet<TableName>,
}

impl Follow {
    /// Starts behind the newest proven timestamp, with the feed's offsets there, on a target that
    /// holds this fence row.
    ///
    /// What lies between the two was applied before a crash and not yet proven. It is folded again,
    /// to its last images at the end of the first batch: those are never older than what the target
    /// holds, because that batch ends at the target's fence or later.
    pub fn new(
        proven: CommitTs,
        offsets: Vec<i64>,
        row: &FenceRow,
        tables: BTreeMap<TableName, Followed>,
        zone: Zone,
        spill: Spill,
    ) -> Self {
        Follow {
            assembly: Assembly::new(proven, offsets, spill),
            at_least: row.next_fence_at_least(),
            tables,
            zone,
            taken: None,
            concerned: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Returns all tables, the stopped ones included.
    pub fn tables(&self) -> &BTreeMap<TableName, Followed> {
        &self.tables
    }

    /// Returns the bytes of the changes that wait for the watermark.
    pub fn waiting_bytes(&self) -> usize {
        self.assembly.byte_len()
    }

    /// Returns the timestamp up to which everything is applied or taken.
    pub fn applied(&self) -> CommitTs {
        self.assembly.applied()
    }

    /// Returns the timestamp up to which the feed is complete.
    pub fn resolved(&self) -> CommitTs {
        self.assembly.resolved()
    }

    /// Takes in one message of the feed.
    ///
    /// # Errors
    /// If it fits neither into memory nor on the disk.
    pub fn on_message(&mut self, partition: usize, offset: i64, message: Message) -> Result<()> {
        self.assembly.push(partition, offset, message)
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
        self.tables.insert(
            table.name.clone(),
            Followed {
                table,
                base,
                stopped: None,
            },
        );
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
            self.on_ddl(ddl, stretch.from, &mut stopped);
        }
        self.stop_unknown(stretch.from, &mut stopped);
        let live: BTreeMap<TableName, Arc<Table>> = self
            .tables
            .iter()
            .map(|(name, followed)| (name.clone(), Arc::clone(&followed.table)))
            .collect();
        let folded = loop {
            match fold(&mut stretch.rows, &live, self.zone, |row| self.applies(row))? {
                Ok(folded) => break folded,
                Err(error) => {
                    let reason = format!(
                        "a change that cannot be carried at {}: {}",
                        error.commit_ts, error.what
                    );
                    let at = error.commit_ts.saturating_sub(1);
                    self.stop(&error.table, Stop { at, reason }, &mut stopped);
                }
            }
        };
        self.at_least = stretch.to;
        let is_stopped = |name: &TableName| self.tables[name].stopped.is_some();
        let unprovable = self
            .tables
            .keys()
            .filter(|name| is_stopped(name))
            .cloned()
            .collect();
        Ok(Some(Batch {
            from: stretch.from,
            to: stretch.to,
            offsets: stretch.offsets,
            changes: folded.changes,
            old_values: folded.old_values,
            parts: folded.parts,
            stopped,
            unprovable,
        }))
    }

    fn applies(&self, row: &RowChange) -> bool {
        self.tables.get(&row.table).is_some_and(|followed| {
            let before_stop = followed
                .stopped
                .as_ref()
                .is_none_or(|stop| row.commit_ts <= stop.at);
            row.commit_ts > followed.base && before_stop
        })
    }

    fn on_ddl(&mut self, ddl: &Ddl, from: CommitTs, stopped: &mut Vec<TableName>) {
        let names: Vec<TableName> = match ddl.action {
            action::CREATE_SCHEMA | action::ALTER_SCHEMA_CHARSET => Vec::new(),
            action::DROP_SCHEMA => self
                .tables
                .keys()
                .filter(|name| name.schema.eq_ignore_ascii_case(&ddl.table.schema))
                .cloned()
                .collect(),
            action::CREATE_TABLE if self.is_its_creation(ddl, from) => Vec::new(),
            action::FLASHBACK_CLUSTER => self.tables.keys().cloned().collect(),
            of_several if action::OF_SEVERAL_TABLES.contains(&of_several) => self
                .concerned
                .iter()
                .filter(|name| **name == ddl.table || names(&ddl.query, name))
                .cloned()
                .collect(),
            _ => vec![ddl.table.clone()],
        };
        for name in names {
            let reason = format!("a DDL that rowproof does not carry yet: {}", ddl.query);
            self.stop(
                &name,
                Stop {
                    at: ddl.commit_ts,
                    reason,
                },
                stopped,
            );
        }
    }

    /// Tells whether this is the DDL that made a table known: the driver added it with the start of
    /// this stretch as its base, or of a stretch that was begun before a crash.
    fn is_its_creation(&self, ddl: &Ddl, from: CommitTs) -> bool {
        self.tables.get(&ddl.table).is_some_and(|followed| {
            let in_stretch = (from..ddl.commit_ts).contains(&followed.base);
            in_stretch && followed.stopped.is_none()
        })
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
                          carry"
                .to_owned();
            self.stop(&name, Stop { at: from, reason }, stopped);
        }
    }

    fn stop(&mut self, name: &TableName, stop: Stop, stopped: &mut Vec<TableName>) {
        let followed = self.tables.entry(name.clone()).or_insert_with(|| Followed {
            table: Arc::new(Table::unknown(name.clone())),
            base: stop.at,
            stopped: None,
        });
        if followed.stopped.is_none() {
            followed.stopped = Some(stop);
            stopped.push(name.clone());
        }
    }
}

/// Tells whether a statement, in which TiCDC quotes every name, may speak of this table.
fn names(query: &str, name: &TableName) -> bool {
    query
        .to_lowercase()
        .contains(&quote(&name.table).to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::testing::{change, ddl, spill};
    use crate::fence::FenceState;
    use crate::schema::testing::integer_table;

    fn follow() -> Follow {
        let table = Arc::new(integer_table("s", "t"));
        let followed = Followed {
            table: Arc::clone(&table),
            base: 10,
            stopped: None,
        };
        let row = FenceRow {
            state: FenceState::Complete,
            w: 10,
            next_w: 10,
            offsets: vec![0],
        };
        Follow::new(
            10,
            vec![0],
            &row,
            BTreeMap::from([(table.name.clone(), followed)]),
            Zone::default(),
            spill(1 << 20),
        )
    }

    fn insert(ts: CommitTs, id: u32) -> Message {
        let id = format!(r#"{{"t":8,"f":11,"v":{id}}}"#);
        let value = format!(r#"{{"u":{{"id":{id},"value":{{"t":8,"f":65,"v":null}}}}}}"#);
        Message::Row(change(ts, &value))
    }

    fn push(follow: &mut Follow, offset: i64, message: Message) {
        follow.on_message(0, offset, message).expect("room");
    }

    fn take(
        follow: &mut Follow,
        scope: impl Fn(&TableName) -> bool,
    ) -> Option<BTreeSet<TableName>> {
        follow.take_stretch(scope).expect("readable rows")
    }

    fn finish(follow: &mut Follow) -> Batch {
        follow.batch().expect("readable rows").expect("a batch")
    }

    fn batch(follow: &mut Follow, messages: Vec<Message>) -> Batch {
        for (offset, message) in messages.into_iter().enumerate() {
            push(follow, offset as i64, message);
        }
        take(follow, |_| true).expect("a stretch");
        finish(follow)
    }

    fn row_count(batch: &Batch) -> usize {
        batch.parts.iter().map(Part::keys_at_most).sum()
    }

    #[test]
    fn a_batch_reaches_to_one_below_the_watermark() {
        let batch = batch(
            &mut follow(),
            vec![insert(11, 1), insert(20, 2), Message::Watermark(20)],
        );
        assert_eq!((batch.from, batch.to, row_count(&batch)), (10, 19, 1));
    }

    #[test]
    fn an_idle_feed_still_makes_fences() {
        let batch = batch(&mut follow(), vec![Message::Watermark(50)]);
        assert_eq!((batch.to, row_count(&batch)), (49, 0));
    }

    #[test]
    fn a_ddl_stops_its_table_after_the_rows_before_it() {
        let mut follow = follow();
        let messages = vec![
            insert(11, 1),
            Message::Ddl(ddl(12)),
            insert(13, 2),
            Message::Watermark(20),
        ];
        let first = batch(&mut follow, messages);
        assert_eq!(row_count(&first), 1);
        assert_eq!(first.stopped, [TableName::new("s", "t")]);
        assert!(first.unprovable.contains(&TableName::new("s", "t")));
        let later = batch(&mut follow, vec![insert(21, 3), Message::Watermark(30)]);
        assert_eq!((row_count(&later), later.stopped.len()), (0, 0));
    }

    #[test]
    fn rows_of_an_unknown_table_in_scope_make_it_stopped_and_not_forgotten() {
        let mut follow = follow();
        follow.tables.clear();
        let batch = batch(&mut follow, vec![insert(11, 1), Message::Watermark(20)]);
        assert_eq!(batch.stopped, [TableName::new("s", "t")]);
        assert!(follow.tables()[&TableName::new("s", "t")].stopped.is_some());
    }

    #[test]
    fn a_created_table_is_followed_from_its_creation() {
        let mut follow = follow();
        follow.tables.clear();
        let mut creation = ddl(11);
        creation.action = action::CREATE_TABLE;
        for (offset, message) in [
            Message::Ddl(creation),
            insert(12, 1),
            Message::Watermark(20),
        ]
        .into_iter()
        .enumerate()
        {
            push(&mut follow, offset as i64, message);
        }
        let created = take(&mut follow, |_| true).expect("a stretch");
        assert_eq!(created, BTreeSet::from([TableName::new("s", "t")]));
        follow.add_table(Arc::new(integer_table("s", "t")));
        let batch = finish(&mut follow);
        assert_eq!((row_count(&batch), batch.stopped.len()), (1, 0));
    }

    #[test]
    fn inv_3_after_a_crash_within_a_batch_no_fence_is_made_before_its_end() {
        let row = FenceRow {
            state: FenceState::Applying,
            w: 10,
            next_w: 40,
            offsets: vec![0],
        };
        let mut follow = Follow::new(
            10,
            vec![0],
            &row,
            follow().tables,
            Zone::default(),
            spill(1 << 20),
        );
        push(&mut follow, 0, Message::Watermark(30));
        assert!(take(&mut follow, |_| true).is_none());
        push(&mut follow, 1, Message::Watermark(41));
        assert!(take(&mut follow, |_| true).is_some());
    }

    #[test]
    fn a_rename_stops_the_table_under_both_names() {
        let mut follow = follow();
        let mut rename = ddl(12);
        rename.action = action::RENAME_TABLE;
        rename.table = TableName::new("elsewhere", "new");
        rename.query = "RENAME TABLE `s`.`t` TO `elsewhere`.`new`".to_owned();
        push(&mut follow, 0, Message::Ddl(rename));
        push(&mut follow, 1, Message::Watermark(20));
        take(&mut follow, |name| name.schema == "s").expect("a stretch");
        assert_eq!(finish(&mut follow).stopped, [TableName::new("s", "t")]);
    }

    #[test]
    fn a_change_that_cannot_be_carried_stops_its_table_right_before_it() {
        let mut follow = follow();
        let broken = Message::Row(change(12, r#"{"u":{"id":{"t":8,"f":11,"v":2}}}"#));
        let batch = batch(
            &mut follow,
            vec![insert(11, 1), broken, insert(13, 3), Message::Watermark(20)],
        );
        assert_eq!(row_count(&batch), 1);
        let stop = follow.tables()[&TableName::new("s", "t")].stopped.as_ref();
        assert_eq!(stop.map(|stop| stop.at), Some(11));
    }
}
