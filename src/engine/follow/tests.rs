//! Tests of the machine: messages in, batches out.

use super::*;
use crate::feed::Zone;
use crate::feed::testing::{change, ddl, digest_key, spill};
use crate::schema::testing::integer_table;

fn follow() -> Follow {
    let table = Arc::new(integer_table("s", "t"));
    let followed = Followed::new(Arc::clone(&table), 10);
    resumed(
        &complete(10),
        BTreeMap::from([(table.name.clone(), followed)]),
    )
}

fn complete(w: CommitTs) -> FenceRow {
    FenceRow {
        state: FenceState::Complete,
        w,
        next_w: w,
        offsets: vec![0].into(),
    }
}

/// Begins behind the fence of a row, which is proven.
fn resumed(row: &FenceRow, tables: BTreeMap<TableName, Followed>) -> Follow {
    let (offsets, zone) = (row.offsets.clone(), Zone::default());
    Follow::new(
        row.w,
        offsets,
        row,
        tables,
        zone,
        digest_key(),
        spill(1 << 20),
    )
}

/// Begins behind a fence with one of two tables joining from a base at 30.
fn joining(w: CommitTs) -> Follow {
    let mut tables = two_tables().tables;
    let joining = tables.get_mut(&TableName::new("s", "t")).expect("it");
    (joining.base, joining.joins) = (30, true);
    resumed(&complete(w), tables)
}

fn insert(ts: CommitTs, id: u32) -> Message {
    let id = format!(r#"{{"t":8,"f":11,"v":{id}}}"#);
    let value = format!(r#"{{"u":{{"id":{id},"value":{{"t":8,"f":65,"v":null}}}}}}"#);
    Message::Row(change(ts, &value))
}

fn push(follow: &mut Follow, offset: i64, message: Message) {
    follow.on_message(0, offset, message).expect("room");
}

fn take(follow: &mut Follow, scope: impl Fn(&TableName) -> bool) -> Option<BTreeSet<TableName>> {
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

#[test]
fn a_batch_reaches_to_one_below_the_watermark() {
    let batch = batch(
        &mut follow(),
        vec![insert(11, 1), insert(20, 2), Message::Watermark(20)],
    );
    assert_eq!((batch.from, batch.to, batch.keys_at_most()), (10, 19, 1));
}

#[test]
fn an_idle_feed_still_makes_fences() {
    let batch = batch(&mut follow(), vec![Message::Watermark(50)]);
    assert_eq!((batch.to, batch.keys_at_most()), (49, 0));
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
    assert_eq!(first.keys_at_most(), 1);
    assert_eq!(first.stopped, [TableName::new("s", "t")]);
    assert!(first.unprovable.contains_key(&TableName::new("s", "t")));
    let later = batch(&mut follow, vec![insert(21, 3), Message::Watermark(30)]);
    assert_eq!((later.keys_at_most(), later.stopped.len()), (0, 0));
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
    assert_eq!((batch.keys_at_most(), batch.stopped.len()), (1, 0));
}

#[test]
fn inv_3_after_a_crash_within_a_batch_no_fence_is_made_before_its_end() {
    let row = FenceRow {
        state: FenceState::Applying,
        w: 10,
        next_w: 40,
        offsets: vec![0].into(),
    };
    let mut follow = resumed(&row, follow().tables);
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
    assert_eq!(batch.keys_at_most(), 1);
    let stop = follow.tables()[&TableName::new("s", "t")].stopped.as_ref();
    assert_eq!(stop.map(|stop| stop.at), Some(11));
}

fn two_tables() -> Follow {
    let mut follow = follow();
    let other = Arc::new(integer_table("s", "other"));
    let followed = Followed::new(Arc::clone(&other), 10);
    follow.tables.insert(other.name.clone(), followed);
    follow
}

fn of_other(message: Message) -> Message {
    match message {
        Message::Row(row) => {
            let name = TableName::new("s", "other");
            Message::Row(RowChange::new(row.commit_ts, name, row.value()))
        }
        other => other,
    }
}

#[test]
fn inv_1_a_table_that_is_held_is_left_alone_by_the_batch_that_is_folded_already() {
    let mut follow = two_tables();
    let messages = vec![insert(11, 1), Message::Watermark(20)];
    let mut first = batch(&mut follow, messages);
    let messages = vec![
        insert(21, 1),
        of_other(insert(22, 3)),
        Message::Ddl(ddl(25)),
        Message::Watermark(30),
    ];
    let mut next = batch(&mut follow, messages);
    let name = TableName::new("s", "t");
    assert_eq!(next.stopped, std::slice::from_ref(&name));
    follow.hold(
        &mut first,
        Some(&mut next),
        &name,
        "error 1062",
        Origin::default(),
    );
    // It was stopped before the DDL came, so that the record says so once.
    assert_eq!(first.stopped, std::slice::from_ref(&name));
    assert!(next.stopped.is_empty());
    assert_eq!(next.refused, BTreeSet::from([name.clone()]));
    for of in [&first, &next] {
        assert_eq!(
            (of.unprovable[&name].at, of.unprovable[&name].is_held()),
            (10, true)
        );
    }
}

#[test]
fn inv_1_a_refused_table_is_held_alone_and_the_rest_of_the_batch_stays() {
    let mut follow = two_tables();
    let messages = vec![
        insert(11, 1),
        of_other(insert(12, 2)),
        Message::Watermark(20),
    ];
    let mut first = batch(&mut follow, messages);
    let name = TableName::new("s", "t");
    let mut tables = first.parts[0].tables().expect("a part").into_owned();
    let letter = tables.remove(1).rows[0].origin;
    assert_eq!((letter.commit_ts, letter.position.offset), (11, 0));
    follow.hold(&mut first, None, &name, "error 1062", letter);
    assert_eq!(first.stopped, std::slice::from_ref(&name));
    assert_eq!(first.refused, BTreeSet::from([name.clone()]));
    let stop = &first.unprovable[&name];
    assert_eq!(
        (stop.at, stop.is_held()),
        (10, true),
        "nothing of the batch is in"
    );
    let messages = vec![
        insert(21, 1),
        of_other(insert(22, 3)),
        Message::Watermark(30),
    ];
    let later = batch(&mut follow, messages);
    assert_eq!((later.keys_at_most(), later.stopped.len()), (1, 0));
    assert!(later.unprovable.contains_key(&name));
    assert!(
        later.refused.is_empty(),
        "nothing of it is in the batch at all"
    );
}

#[test]
fn inv_3_a_table_that_the_record_says_is_stopped_is_written_no_more() {
    let mut follow = two_tables();
    let name = TableName::new("s", "t");
    let stop = Stop::new(15, "it was stopped before the crash");
    follow.tables.get_mut(&name).expect("it").stopped = Some(stop);
    // The batch that stopped it wrote what came before, and is read again.
    let messages = vec![insert(12, 1), of_other(insert(12, 2))];
    let again = batch(
        &mut follow,
        messages
            .into_iter()
            .chain([Message::Watermark(20)])
            .collect(),
    );
    assert_eq!((again.keys_at_most(), again.stopped.len()), (1, 0));
}

#[test]
fn a_damaged_message_before_a_ddl_holds_its_table_before_the_ddl() {
    let mut follow = follow();
    let damaged = Message::Row(change(12, ""));
    let messages = vec![
        insert(11, 1),
        damaged,
        Message::Ddl(ddl(14)),
        Message::Watermark(20),
    ];
    let batch = batch(&mut follow, messages);
    let stop = &batch.unprovable[&TableName::new("s", "t")];
    let letter = stop.letter.clone().expect("it is held");
    assert_eq!((stop.at, letter.commit_ts, letter.offset), (11, 12, 1));
    assert_eq!((batch.stopped.len(), batch.keys_at_most()), (1, 1));
}

#[test]
fn inv_1_a_table_joins_at_its_base_or_later_and_takes_nothing_from_below_it() {
    let name = TableName::new("s", "t");
    let mut follow = joining(20);
    let early = vec![
        of_other(insert(15, 1)),
        insert(25, 1),
        of_other(insert(25, 2)),
        Message::Ddl(ddl(26)),
        Message::Watermark(30),
    ];
    for (offset, message) in (0..).zip(early) {
        push(&mut follow, offset, message);
    }
    assert!(take(&mut follow, |_| true).is_none(), "a fence at 29");
    push(&mut follow, 5, insert(31, 3));
    push(&mut follow, 6, Message::Watermark(40));
    take(&mut follow, |_| true).expect("a stretch");
    let batch = finish(&mut follow);
    assert_eq!((batch.from, batch.to, batch.keys_at_most()), (20, 39, 2));
    let joined: Vec<_> = batch.joined.iter().map(|of| &of.table.name).collect();
    assert_eq!((joined, batch.stopped.len()), (vec![&name], 0));
}

#[test]
fn inv_4_a_batch_that_reaches_back_for_one_table_tells_no_more_of_the_others() {
    let (name, other) = (TableName::new("s", "t"), TableName::new("s", "other"));
    let mut follow = joining(40);
    let messages = vec![
        of_other(insert(35, 1)),
        insert(35, 2),
        Message::Watermark(60),
    ];
    let first = batch(&mut follow, messages);
    assert_eq!((first.from, first.keys_at_most()), (30, 1));
    assert_eq!((first.since(&name, 30), first.since(&other, 10)), (30, 40));
    push(&mut follow, 9, Message::Watermark(70));
    take(&mut follow, |_| true).expect("a stretch");
    let second = finish(&mut follow);
    assert_eq!(
        (second.since(&name, 30), second.since(&other, 10)),
        (59, 59)
    );
}

#[test]
fn a_feed_that_lags_behind_garbage_collection_is_caught_up_with_in_one_stretch() {
    let mut follow = follow();
    follow.not_before(100);
    for (offset, message) in [
        insert(20, 1),
        Message::Watermark(50),
        insert(60, 2),
        Message::Watermark(101),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(take(&mut follow, |_| true).is_none());
        assert!(!follow.is_behind());
        push(&mut follow, offset as i64, message);
    }
    assert!(follow.is_behind());
    take(&mut follow, |_| true).expect("a stretch");
    let batch = finish(&mut follow);
    assert_eq!((batch.from, batch.to, batch.keys_at_most()), (10, 100, 2));
}

#[test]
fn inv_4_a_claim_below_the_floor_is_discarded_like_a_row() {
    let mut follow = joining(40);
    // A large row was deleted, and a small one took its key; the fence at 40 has both.
    let deleted = change(35, r#"{"d":{"id":{"t":8,"f":11,"v":1}}}"#);
    let Message::Row(row) = of_other(Message::Row(deleted)) else {
        unreachable!("a row");
    };
    let claim = Message::Claim(Claim {
        row: row.with_key_only(true),
        location: "file:///gone.json".to_owned(),
    });
    let messages = vec![claim, of_other(insert(36, 1)), Message::Watermark(60)];
    let first = batch(&mut follow, messages);
    assert_eq!((first.from, first.keys_at_most()), (30, 0));
}

/// Begins again after a crash between the making of table `s.t` and the batch that was to tell it.
fn after_its_making() -> Follow {
    let mut follow = follow();
    let creation = Ddl {
        action: action::CREATE_TABLE,
        ..ddl(30)
    };
    // The stretch that made the table reached to 39; after the crash, there is less at first.
    push(&mut follow, 0, Message::Watermark(20));
    take(&mut follow, |_| true).expect("a stretch");
    assert_eq!(finish(&mut follow).to, 19);
    push(&mut follow, 1, Message::Ddl(creation));
    follow
}

#[test]
fn inv_3_a_table_that_was_made_before_a_crash_is_known_by_its_creation_whenever_that_comes() {
    let mut follow = after_its_making();
    push(&mut follow, 2, insert(31, 1));
    push(&mut follow, 3, Message::Watermark(40));
    let created = take(&mut follow, |_| true).expect("a stretch");
    assert!(created.is_empty(), "it is made already");
    let batch = finish(&mut follow);
    assert_eq!((batch.stopped, batch.unprovable.len()), (Vec::new(), 0));
}

#[test]
fn a_table_that_had_rows_before_is_not_made_by_a_creation() {
    let mut follow = after_its_making();
    push(&mut follow, 2, insert(25, 1));
    push(&mut follow, 3, Message::Watermark(30));
    take(&mut follow, |_| true).expect("a stretch");
    assert_eq!(finish(&mut follow).to, 29);
    push(&mut follow, 4, Message::Watermark(40));
    take(&mut follow, |_| true).expect("a stretch");
    assert_eq!(finish(&mut follow).stopped, [TableName::new("s", "t")]);
}
