//! Dead at every boundary of what is durable, one after the other, on one migration under live writes.

use crate::lab::{Lab, Migrating, USER, Writers, repository, run, wait_until};
use crate::plain_sql::assert_same_rows;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long a point may take to be reached.
const PATIENCE: Duration = Duration::from_secs(60);

/// Points of the start and of the load, in their order, each with the passage at which it dies: then
/// some chunks are there and others are not.
const LOAD: [&str; 13] = [
    "lease-taken",
    "task-recorded",
    "table-made 3",
    "stripes-before-commit 2",
    "stripes-committed 2",
    "chunk-before-commit 2",
    "chunk-committed",
    "chunk-compared 2",
    "chunk-proven",
    "table-loaded",
    "load-before-verdicts",
    "load-before-finished",
    "load-finished",
];

/// The load's last point: who died at the one before it has no load any more.
const LOADED: &str = "load-proven";

/// Points of a batch that is one transaction. The first batch after a restart is not like the
/// others, so both are met.
const FEED: [&str; 11] = [
    "batch-before-begin",
    "batch-begun 3",
    "batch-deleted",
    "batch-deleted 3",
    "batch-before-commit",
    "batch-before-commit 4",
    "batch-committed",
    "batch-committed 2",
    "batch-fence-read 2",
    "proof-before-recorded",
    "proof-recorded 2",
];

/// Points of a batch of many transactions.
const LARGE: [&str; 9] = [
    "batch-before-applying",
    "batch-applying 2",
    "crew-before-commit",
    "crew-committed",
    "batch-deleted 2",
    "crew-before-commit 4",
    "crew-committed 4",
    "batch-before-commit",
    "batch-committed",
];

/// Points of a fresh base, in their order. A base that is loaded while its request is still in the
/// journal is loaded once more.
const BASE: [&str; 15] = [
    "base-workers-passed",
    "base-before-begun",
    "base-begun",
    "base-chunks-forgotten",
    "base-rows-deleted",
    "base-old-gone",
    "base-cleared",
    "base-loading",
    "base-loaded",
    "base-joining",
    "base-before-request-ended",
    "base-request-ended",
    "base-joined",
    "base-before-ended",
    "base-ended",
];

/// Points of a fresh base of a table that cannot hold what the source has now.
const DROP: [&str; 2] = ["base-before-dropped", "base-old-gone"];

/// Points of the spool while the load is held up, and behind it.
const SPOOL: [&str; 4] = [
    "spool-begun",
    "spool-before-sync 2",
    "spool-synced 2",
    "spool-file-begun 2",
];
const UNSPOOL: [&str; 2] = ["spool-removed", "spool-ended"];

/// Lets a migration begin or go on, and die at a point.
fn die_at(lab: &Lab, point: &str, more: &[(&str, &str)]) {
    let mut environment = vec![("ROWPROOF_DIE_AT", point)];
    environment.extend(more);
    let began = Instant::now();
    let mut migrating = lab.start_migrate_with(&environment);
    let code = wait_until(point, PATIENCE, || migrating.ended());
    let log = migrating.log();
    let name = point.split(' ').next().expect("a name");
    let last = log.lines().last().unwrap_or_default();
    // No exit code: a signal ended it.
    assert_eq!(
        (code, last),
        (-1, format!("dies at {name}").as_str()),
        "{log}"
    );
    eprintln!(
        "died at {point} after {:.1} s",
        began.elapsed().as_secs_f64()
    );
}

/// Waits until nothing is left to be done, and compares under live writes.
fn wait_until_equal(lab: &Lab, migrating: &mut Migrating) {
    wait_until("it catches up", PATIENCE * 2, || {
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        let status = lab.run(&["status", "--json"]).json();
        let bases = status["fresh_bases"].as_array();
        let loading = bases.is_some_and(|bases| !bases.is_empty());
        (!loading && lab.run(&["check", "--json"]).code == 0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_a_death_at_any_boundary_loses_nothing() {
    let lab = Lab::new("killpoints").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    lab.create_shop(2_000, 11);
    lab.create_feed();
    let writers = lab.start_writers(4, 200, &[]);
    for point in LOAD {
        die_at(&lab, point, &[]);
    }
    for point in FEED {
        die_at(&lab, point, &[]);
    }
    for point in LARGE {
        die_at(&lab, point, &[("ROWPROOF_LARGE_BATCH", "1")]);
    }
    lab.run(&["resync", &format!("{}.orders", lab.database)]);
    for point in BASE {
        die_at(&lab, point, &[]);
    }
    let grant = format!("GRANT DROP ON {}.* TO {USER}", lab.database);
    run(&mut target, &grant).await;
    let alter = format!("ALTER TABLE {}.coupons ADD COLUMN more INT", lab.database);
    run(&mut source, &alter).await;
    lab.run(&["resync", &format!("{}.coupons", lab.database)]);
    for point in DROP {
        die_at(&lab, point, &[]);
    }
    assert_ends_equal(&lab, writers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_a_death_right_behind_the_load_loses_nothing() {
    let lab = Lab::new("loaded").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut source, "CREATE TABLE t (id INT PRIMARY KEY, v INT)").await;
    run(&mut source, "INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)").await;
    lab.create_feed();
    die_at(&lab, LOADED, &[]);
    run(&mut source, "UPDATE t SET v = 9 WHERE id = 2").await;
    run(&mut source, "DELETE FROM t WHERE id = 3").await;
    let mut migrating = lab.start_migrate();
    wait_until_equal(&lab, &mut migrating);
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_a_death_at_any_boundary_of_the_spool_loses_nothing() {
    let lab = Lab::new("spoolpoints").await;
    lab.create_shop(200, 3);
    let (_source, mut target) = crate::spool::hold_up(&lab, "always").await;
    let writers = lab.start_writers(2, 100, &[]);
    let small = [("ROWPROOF_SPOOL_FILE", "4000")];
    for point in SPOOL {
        die_at(&lab, point, &small);
    }
    run(&mut target, "ROLLBACK").await;
    for point in UNSPOOL {
        die_at(&lab, point, &small);
    }
    assert_ends_equal(&lab, writers).await;
}

/// Asserts that a last start, after all deaths, ends equal: under the live writes, and at rest.
async fn assert_ends_equal(lab: &Lab, mut writers: Writers) {
    let mut migrating = lab.start_migrate();
    wait_until_equal(lab, &mut migrating);
    writers.end();
    lab.assert_check_equal();
    assert_same_rows(lab).await;
    lab.assert_batches_equal().await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[test]
fn no_point_is_left_out() {
    let lists: [&[&str]; 8] = [
        &LOAD,
        &[LOADED],
        &FEED,
        &LARGE,
        &BASE,
        &DROP,
        &SPOOL,
        &UNSPOOL,
    ];
    let met = lists.into_iter().flatten();
    let met: BTreeSet<&str> = met.filter_map(|point| point.split(' ').next()).collect();
    let mut text = String::new();
    for dir in ["src/driver", "src/broker/spool"] {
        for entry in std::fs::read_dir(repository().join(dir)).expect("a directory") {
            let path = entry.expect("an entry").path();
            text.push_str(&std::fs::read_to_string(path).expect("a source file"));
        }
    }
    let calls = text.split("failpoint::pass(\"").skip(1);
    let made: BTreeSet<&str> = calls.filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(met, made);
}
