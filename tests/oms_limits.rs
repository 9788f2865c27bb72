//! What OceanBase's own migration service documents as a limit of this road: rowproof lifts it, and a
//! test shows that, or precheck explains it before anything starts.

use crate::kafka::keep_for;
use crate::lab::{Lab, repository, run};

/// What becomes of a limit.
enum Answer {
    /// It is none here; a test of this name shows it.
    Lifted(&'static str),
    /// A finding of precheck with these words.
    Explained(&'static str),
}

use Answer::{Explained, Lifted};

/// The limits, in the order of OMS's pages.
const LIMITS: &[(&str, Answer)] = &[
    ("only some versions of TiDB", Explained("source: ")),
    (
        "no DDL during the load, none in the stream",
        Explained("a DDL on the source stops the table that it changes"),
    ),
    (
        "no triggers on the target",
        Explained("has a trigger on the target"),
    ),
    (
        "no tables without a primary key",
        Explained("it has no primary key and no unique key of NOT NULL columns"),
    ),
    (
        "no values with spaces at their ends",
        Lifted("every_plain_type_survives_load_and_feed"),
    ),
    (
        "only ASCII names without special characters",
        Lifted("tables_of_every_kind_are_made_filled_and_followed"),
    ),
    (
        "no protocol but Open Protocol",
        Lifted("a_missing_topic_a_foreign_protocol_and_a_late_feed_are_told_apart"),
    ),
    (
        "old values must be on",
        Lifted("columns_that_the_feed_leaves_out_do_not_matter"),
    ),
    (
        "no data of one's own in the topic",
        Lifted("a_damaged_message_holds_its_table_and_no_other"),
    ),
    (
        "the target's charset must cover the source's",
        Explained("has collation utf8mb4_unicode_ci"),
    ),
    (
        "shorter columns on the target truncate silently",
        Explained("cannot hold every row that the source may have"),
    ),
    (
        "a unique index of the target must not change",
        Explained("a table whose rows the target refuses is held"),
    ),
    (
        "an update of the partition key may lose rows",
        Lifted("tables_of_every_kind_are_made_filled_and_followed"),
    ),
    (
        "clocks that differ make the delay wrong",
        Lifted("a_batch_reaches_to_one_below_the_watermark"),
    ),
    (
        "logs must be kept for 48 hours and more",
        Explained("Kafka keeps records for 1 hours"),
    ),
    (
        "other collations lose rows, and tables with a text key verify as different",
        Lifted("keys_without_a_common_order_are_loaded_followed_proven_and_repaired"),
    ),
    (
        "TIMESTAMP, DECIMAL, FLOAT and DOUBLE may verify as different",
        Lifted("random_tables_arrive_as_they_are"),
    ),
    (
        "little memory makes the task fail",
        Lifted("inv_8_a_large_table_is_loaded_and_checked_in_bounded_memory"),
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_limit_that_oms_documents_is_lifted_or_explained() {
    let lab = prepared().await;
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 2, "{}", precheck.stdout);
    let mut tests = String::new();
    for dir in ["tests", "src/engine/follow"] {
        for entry in std::fs::read_dir(repository().join(dir)).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                tests.push_str(&std::fs::read_to_string(path).expect("a source file"));
            }
        }
    }
    for (limit, answer) in LIMITS {
        match answer {
            Lifted(name) => {
                assert!(
                    tests.contains(&format!("fn {name}()")),
                    "{limit}: no test {name}"
                );
            }
            Explained(words) => {
                assert!(
                    precheck.stdout.contains(words),
                    "{limit}: {}",
                    precheck.stdout
                );
            }
        }
    }
    let without = lab.task_text();
    let (before, rest) = without.split_once("[feed]").expect("a feed");
    let (_, after) = rest.split_once("[tables]").expect("tables");
    lab.write_task(&format!("{before}[tables]{after}"));
    let precheck = lab.run(&["precheck"]);
    let explained = "the task file has no [feed]";
    assert!(precheck.stdout.contains(explained), "{}", precheck.stdout);
}

/// Makes everything that OMS could not take.
async fn prepared() -> Lab {
    let lab = Lab::new("oms").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut target, &format!("USE {}", lab.database)).await;
    for sql in [
        "CREATE TABLE without_key (a INT)",
        "CREATE TABLE other (a INT PRIMARY KEY, b VARCHAR(9) COLLATE utf8mb4_unicode_ci)",
        "CREATE TABLE short (a INT PRIMARY KEY, b VARCHAR(20))",
        "CREATE TABLE fired (a INT PRIMARY KEY, b INT)",
    ] {
        run(&mut source, sql).await;
    }
    for sql in [
        "CREATE TABLE short (a INT PRIMARY KEY, b VARCHAR(10))",
        "CREATE TABLE fired (a INT PRIMARY KEY, b INT)",
        "CREATE TRIGGER IF NOT EXISTS fires BEFORE INSERT ON fired FOR EACH ROW SET NEW.b = 5",
    ] {
        run(&mut target, sql).await;
    }
    let grant = format!(
        "GRANT TRIGGER ON {}.* TO {}",
        lab.database,
        crate::lab::USER
    );
    run(&mut target, &grant).await;
    lab.create_feed();
    keep_for(&lab, "3600000").await;
    lab
}
