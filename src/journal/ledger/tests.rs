use super::*;
use crate::proof::Bucket;
use crate::report::testing::{TestJournal, empty_journal};
use crate::row::DigestKey;

type Change = std::result::Result<Ledger, &'static str>;

fn name() -> TableName {
    TableName::new("s", "t")
}

/// The ledger of rows, or of a change that brings some and takes others.
fn ledger(come: &[u32], go: &[u32]) -> Ledger {
    let key = DigestKey::from_bytes([2; 32]);
    let digest = |row: &u32| key.row(&row.to_le_bytes());
    let mut ledger = Ledger::default();
    for row in come {
        ledger.add(Bucket::of(&digest(row)), &digest(row));
    }
    for row in go {
        ledger.remove(Bucket::of(&digest(row)), &digest(row));
    }
    ledger
}

fn fence(w: CommitTs) -> Fence {
    Fence { w, s: w }
}

/// Proves a batch that reaches from one timestamp to another.
async fn prove(test: &TestJournal, span: (CommitTs, CommitTs), change: &Change) {
    let mut step = LedgerStep::default();
    step.carry(&name(), span, change);
    prove_step(test, span.1, &step).await;
}

async fn prove_step(test: &TestJournal, w: CommitTs, step: &LedgerStep) {
    let offsets = vec![0].into();
    let proven = test.journal.set_proven(fence(w), &offsets, step).await;
    proven.expect("kept");
}

/// Returns the ledger at the newest proven fence, or why there is none.
async fn kept(test: &TestJournal) -> std::result::Result<Ledger, String> {
    let (_, ledgers) = test.journal.ledgers().await.expect("readable");
    let row = ledgers.get(&name()).cloned();
    row.map_or(Err("nothing".to_owned()), |row| row.ledger)
}

async fn loaded(test: &TestJournal, base: CommitTs, rows: &[u32]) {
    let rows = ledger(rows, &[]);
    let set = test.journal.set_load_ledger(&name(), base, rows).await;
    set.expect("kept");
}

#[tokio::test]
async fn inv_3_a_ledger_stands_at_the_proven_fence_and_ends_with_a_reason() {
    let test = empty_journal().await;
    loaded(&test, 10, &[1, 2]).await;
    for _ in 0..2 {
        let begun = test.journal.begin_loaded_ledger(&name()).await;
        begun.expect("a crash in between has it begin again");
    }
    prove_step(&test, 10, &LedgerStep::default()).await;
    assert_eq!(kept(&test).await, Ok(ledger(&[1, 2], &[]).fitted()));
    prove(&test, (10, 20), &Ok(ledger(&[3], &[1]))).await;
    // Told again, as by a batch that a crash has folded anew, it is known already.
    prove(&test, (10, 20), &Ok(ledger(&[3], &[1]))).await;
    assert_eq!(kept(&test).await, Ok(ledger(&[2, 3], &[]).fitted()));
    prove(&test, (20, 30), &Err("no old image")).await;
    assert_eq!(kept(&test).await, Err("no old image".to_owned()));
    prove(&test, (30, 40), &Ok(ledger(&[4], &[]))).await;
    assert_eq!(kept(&test).await, Err("no old image".to_owned()));
}

#[tokio::test]
async fn a_check_begins_a_ledger_with_what_came_while_it_read() {
    let test = empty_journal().await;
    prove_step(&test, 20, &LedgerStep::default()).await;
    // Something later is proven already.
    let opened = test.journal.open_ledgers(&[name()], fence(19)).await;
    assert!(!opened.expect("readable"));
    let opened = test.journal.open_ledgers(&[name()], fence(30)).await;
    assert!(opened.expect("readable"));
    // The batch that ends at the fence is in what is read there; those behind it are not.
    prove(&test, (20, 30), &Ok(ledger(&[8], &[9]))).await;
    prove(&test, (30, 40), &Ok(ledger(&[3], &[1]))).await;
    prove(&test, (40, 50), &Ok(ledger(&[4], &[3]))).await;
    let rows = Some(ledger(&[1, 2], &[]));
    let closed = test.journal.close_opening(&name(), fence(30), rows).await;
    closed.expect("kept");
    assert_eq!(kept(&test).await, Ok(ledger(&[2, 4], &[]).fitted()));
    prove(&test, (50, 60), &Ok(ledger(&[5], &[2]))).await;
    assert_eq!(kept(&test).await, Ok(ledger(&[4, 5], &[]).fitted()));
}

#[tokio::test]
async fn a_ledger_that_begins_ahead_of_the_proof_waits_for_it() {
    let test = empty_journal().await;
    prove_step(&test, 20, &LedgerStep::default()).await;
    let opened = test.journal.open_ledgers(&[name()], fence(40)).await;
    assert!(opened.expect("readable"));
    let rows = Some(ledger(&[1], &[]));
    let closed = test.journal.close_opening(&name(), fence(40), rows).await;
    closed.expect("kept");
    assert!(
        kept(&test)
            .await
            .is_err_and(|why| why.contains("nothing is proven"))
    );
    prove(&test, (20, 40), &Ok(ledger(&[7], &[8]))).await;
    assert_eq!(kept(&test).await, Ok(ledger(&[1], &[]).fitted()));
    // After a crash the feed is read again from the proven fence, and a batch may pass another.
    let opened = test.journal.open_ledgers(&[name()], fence(50)).await;
    assert!(opened.expect("readable"));
    let rows = Some(ledger(&[1], &[]));
    let closed = test.journal.close_opening(&name(), fence(50), rows).await;
    closed.expect("kept");
    prove(&test, (40, 60), &Ok(ledger(&[2], &[]))).await;
    assert!(
        kept(&test)
            .await
            .is_err_and(|why| why.contains("within a batch"))
    );
}

#[tokio::test]
async fn a_check_that_cannot_begin_a_ledger_leaves_the_one_that_is_kept() {
    let test = empty_journal().await;
    loaded(&test, 10, &[1]).await;
    let begun = test.journal.begin_loaded_ledger(&name()).await;
    begun.expect("kept");
    prove_step(&test, 10, &LedgerStep::default()).await;
    let opened = test.journal.open_ledgers(&[name()], fence(15)).await;
    assert!(opened.expect("readable"));
    prove(&test, (10, 20), &Ok(ledger(&[2], &[]))).await;
    let wanted = Ok(ledger(&[1, 2], &[]).fitted());
    for rows in [Some(ledger(&[1], &[])), None] {
        let closed = test.journal.close_opening(&name(), fence(15), rows).await;
        closed.expect("kept");
        assert_eq!(kept(&test).await, wanted);
    }
    // One check begins after another: only the later one may begin a ledger.
    for w in [20, 21] {
        let opened = test.journal.open_ledgers(&[name()], fence(w)).await;
        assert!(opened.expect("readable"));
    }
    let rows = Some(ledger(&[9], &[]));
    let closed = test.journal.close_opening(&name(), fence(20), rows).await;
    closed.expect("kept");
    assert_eq!(kept(&test).await, wanted);
}

#[tokio::test]
async fn a_stopped_table_has_none_until_a_fresh_base_joins() {
    let test = empty_journal().await;
    loaded(&test, 10, &[1]).await;
    let begun = test.journal.begin_loaded_ledger(&name()).await;
    begun.expect("kept");
    let mut stop = LedgerStep::default();
    stop.ended.insert(name(), "a DDL".to_owned());
    prove_step(&test, 20, &stop).await;
    assert_eq!(kept(&test).await, Err("a DDL".to_owned()));
    loaded(&test, 25, &[5, 6]).await;
    prove_step(&test, 30, &stop).await;
    // The batch tells all that came since the base, though it begins elsewhere; a crash before the
    // base is done with has the table join once more.
    for (w, come) in [(40, 7), (50, 8)] {
        let mut join = LedgerStep::joining(BTreeSet::from([name()]));
        join.carry(&name(), (30, w), &Ok(ledger(&[come], &[5])));
        prove_step(&test, w, &join).await;
        assert_eq!(kept(&test).await, Ok(ledger(&[6, come], &[]).fitted()));
    }
    let ended = test.journal.end_load_ledger(Some(&name())).await;
    ended.expect("forgotten");
    // A base that was not read equal begins none.
    let join = LedgerStep::joining(BTreeSet::from([name()]));
    prove_step(&test, 60, &join).await;
    assert!(kept(&test).await.is_err());
}

#[tokio::test]
async fn without_old_values_all_ledgers_end() {
    let test = empty_journal().await;
    loaded(&test, 10, &[1]).await;
    let begun = test.journal.begin_loaded_ledger(&name()).await;
    begun.expect("kept");
    let mut step = LedgerStep {
        all_ended: Some("no old values"),
        ..LedgerStep::default()
    };
    step.carry(&name(), (10, 20), &Ok(ledger(&[2], &[])));
    prove_step(&test, 20, &step).await;
    assert_eq!(kept(&test).await, Err("no old values".to_owned()));
}

#[tokio::test]
async fn inv_4_a_chunk_counts_once() {
    use crate::chunk::{Chunk, Range};
    let test = empty_journal().await;
    let chunk = |seq| Chunk {
        seq,
        range: Range::default(),
    };
    for seq in [0, 1, 1, 0] {
        let rows = ledger(&[seq], &[]);
        let added = test
            .journal
            .add_load_proof(&name(), 10, (0, &chunk(seq)), 1, Some(&rows))
            .await;
        added.expect("kept");
    }
    let begun = test.journal.begin_loaded_ledger(&name()).await;
    begun.expect("kept");
    prove_step(&test, 10, &LedgerStep::default()).await;
    assert_eq!(kept(&test).await, Ok(ledger(&[0, 1], &[]).fitted()));
}
