use super::*;
use segment::write_frame;

fn spool(dir: &Path) -> Spool {
    Spool::of(dir, "state", "task")
}

fn offsets(of: &[i64]) -> Offsets {
    let mut all = Offsets::default();
    all.add("t", of.to_vec());
    all
}

fn raw(partition: usize, offset: i64) -> Raw<'static> {
    Raw {
        topic: "t",
        partition,
        offset,
        key: b"key",
        value: b"value",
    }
}

/// Writes records, in one file for each slice.
fn write(spool: &Spool, from: &[i64], files: &[&[(usize, i64)]]) {
    let mut at = offsets(from);
    let mut writer = Writer::open(spool, &at).expect("a writer");
    for (place, records) in files.iter().enumerate() {
        if place > 0 {
            writer.begin_file(&at).expect("a file");
        }
        for (partition, offset) in *records {
            writer.append(&raw(*partition, *offset)).expect("room");
            *at.at_mut(*partition) = offset + 1;
        }
    }
    writer.finish(&at).expect("a disk");
}

fn read(spool: &Spool, from: &[i64]) -> Vec<(usize, i64)> {
    let reader = spool.reader(&offsets(from)).expect("a spool");
    let mut reader = reader.expect("what is asked for");
    let mut found = Vec::new();
    while let Some(raw) = reader.next().expect("a sound spool") {
        assert_eq!(
            (raw.topic, raw.key, raw.value),
            ("t", &b"key"[..], &b"value"[..])
        );
        found.push((raw.partition, raw.offset));
    }
    found
}

#[test]
fn what_was_written_is_read_from_any_offset_that_is_held_and_from_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path());
    assert!(spool.bounds().expect("none").is_none());
    write(
        &spool,
        &[5, 7],
        &[&[(0, 5), (1, 7)], &[(1, 8), (0, 6)], &[(1, 9)]],
    );
    let bounds = spool.bounds().expect("a spool");
    assert_eq!(bounds, Some((offsets(&[5, 7]), offsets(&[7, 10]))));
    assert_eq!(
        read(&spool, &[5, 7]),
        [(0, 5), (1, 7), (1, 8), (0, 6), (1, 9)]
    );
    // From the file that is needed on; who reads passes over what came before.
    assert_eq!(read(&spool, &[6, 9]), [(1, 8), (0, 6), (1, 9)]);
    for not_held in [[4, 7], [7, 10], [9, 10]] {
        let reader = spool.reader(&offsets(&not_held)).expect("a spool");
        assert!(reader.is_none(), "{not_held:?}");
    }
    // It goes on where it ended.
    write(&spool, &[7, 10], &[&[(0, 7)]]);
    assert_eq!(read(&spool, &[6, 10]).last(), Some(&(0, 7)));
}

#[test]
fn who_reads_meets_what_is_being_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path());
    let mut writer = Writer::open(&spool, &offsets(&[0])).expect("a writer");
    writer.append(&raw(0, 0)).expect("room");
    writer.sync(&offsets(&[1])).expect("a disk");
    let mut reader = spool
        .reader(&offsets(&[0]))
        .expect("a spool")
        .expect("held");
    assert_eq!(reader.next().expect("sound"), Some(raw(0, 0)));
    reader.unread().expect("a file");
    assert_eq!(reader.next().expect("sound"), Some(raw(0, 0)));
    assert_eq!(reader.next().expect("sound"), None);
    writer.begin_file(&offsets(&[1])).expect("a file");
    assert_eq!(reader.next().expect("sound"), None);
    writer.append(&raw(0, 1)).expect("room");
    writer.sync(&offsets(&[2])).expect("a disk");
    assert_eq!(reader.next().expect("sound"), Some(raw(0, 1)));
    assert_eq!(reader.next().expect("sound"), None);
}

#[test]
fn inv_3_a_torn_end_is_cut_off_and_written_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path());
    let mut writer = Writer::open(&spool, &offsets(&[0])).expect("a writer");
    for offset in 0..3 {
        writer.append(&raw(0, offset)).expect("room");
    }
    writer.sync(&offsets(&[3])).expect("a disk");
    drop(writer);
    let path = spool.path(0);
    let whole = std::fs::read(&path).expect("the file");
    let mut payload = Vec::new();
    raw(0, 2).pack(&mut payload);
    let record = write_frame(&mut Vec::new(), &payload).expect("memory") as usize;
    for cut in 1..record {
        // A file that ends too early, and one whose last bytes never came to the disk.
        let mut zeroed = whole[..whole.len() - cut].to_vec();
        zeroed.resize(whole.len(), 0);
        for torn in [whole[..whole.len() - cut].to_vec(), zeroed] {
            std::fs::write(&path, torn).expect("a file");
            spool.recover().expect("a spool");
            let (_, end) = spool.bounds().expect("a spool").expect("a spool");
            assert_eq!(end, offsets(&[2]), "{cut}");
            write(&spool, &[2], &[&[(0, 2)]]);
            assert_eq!(read(&spool, &[0]), [(0, 0), (0, 1), (0, 2)]);
            std::fs::remove_file(spool.path(1)).expect("a file");
            let _ = std::fs::remove_file(spool.path(2));
        }
    }
    // A file whose beginning is torn has nothing in it.
    std::fs::write(&path, &whole).expect("a file");
    std::fs::write(spool.path(1), &whole[..9]).expect("a file");
    spool.recover().expect("a spool");
    assert_eq!(read(&spool, &[0]).len(), 3);
}

#[test]
fn inv_3_a_foreign_damaged_or_incomplete_spool_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path());
    write(&spool, &[0], &[&[(0, 0)], &[(0, 1)], &[(0, 2)]]);
    for (state, task) in [("other", "task"), ("state", "other")] {
        let error = Spool::of(dir.path(), state, task).recover();
        let error = error.expect_err("foreign").to_string();
        assert!(error.contains("belongs to another"), "{error}");
    }
    let path = spool.path(1);
    let whole = std::fs::read(&path).expect("a file");
    let mut damaged = whole.clone();
    *damaged.last_mut().expect("bytes") ^= 1;
    std::fs::write(&path, damaged).expect("a file");
    let mut reader = spool
        .reader(&offsets(&[0]))
        .expect("a spool")
        .expect("held");
    assert_eq!(reader.next().expect("sound"), Some(raw(0, 0)));
    let error = reader.next().expect_err("damaged").to_string();
    assert!(error.contains("damaged"), "{error}");
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("a file");
    let mut reader = spool
        .reader(&offsets(&[0]))
        .expect("a spool")
        .expect("held");
    assert_eq!(reader.next().expect("sound"), Some(raw(0, 0)));
    assert!(reader.next().is_err(), "torn in the middle");
    std::fs::remove_file(&path).expect("a file");
    assert!(spool.recover().is_err(), "a file is missing");
}

#[test]
fn what_is_passed_is_removed_and_what_is_needed_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path());
    write(&spool, &[0, 0], &[&[(0, 0), (1, 0)], &[(0, 1)], &[(1, 1)]]);
    spool.release(&offsets(&[1, 0])).expect("a spool");
    assert_eq!(read(&spool, &[0, 0]).len(), 4);
    spool.release(&offsets(&[2, 1])).expect("a spool");
    assert_eq!(read(&spool, &[2, 1]), [(1, 1)]);
    let (need, filling) = spool.need();
    spool.release(&offsets(&[9, 9])).expect("a spool");
    assert!(!spool.is_empty().expect("a spool"), "it is being filled");
    drop((need, filling));
    spool.release(&offsets(&[9, 9])).expect("a spool");
    assert!(spool.is_empty().expect("a directory"));
}

#[test]
fn one_fills_it_as_long_as_anybody_needs_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path());
    let (first, filling) = spool.need();
    let (second, none) = spool.need();
    let filling = filling.expect("nobody fills it yet");
    assert!(none.is_none());
    drop(first);
    assert!(filling.is_needed() && !spool.may_be_left());
    drop(second);
    assert!(!filling.is_needed());
    let (_third, again) = spool.need();
    assert!(again.is_some() && !filling.is_needed());
    drop(filling);
    assert!(!spool.may_be_left(), "it is filled anew");
}

#[test]
fn a_disk_without_room_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path());
    let writer = Writer::open(&spool, &offsets(&[0])).expect("a writer");
    let mut writer = writer.with_free_bytes(u64::MAX);
    let error = writer.append(&raw(0, 0)).expect_err("no room").to_string();
    assert!(
        error.contains("make room") && error.contains("MiB are free"),
        "{error}"
    );
}
