//! Definitions that differ, that are left out, that wait: what check, precheck and the choices of the
//! task file make of them.

use crate::lab::{Lab, run, texts};
use crate::plain_sql::assert_same_rows;
use crate::schema::{
    assert_definitions_equal, assert_same, assert_same_indexes_of, choose, follow, grant, prepare,
    show_create,
};

/// What somebody may do to a table on the target, a word of what is then said, and whether rows can
/// still be read alike.
const CHANGES: &[(&str, &str)] = &[
    (
        "ALTER TABLE {t} MODIFY COLUMN v VARCHAR(30) COLLATE utf8mb4_general_ci DEFAULT 'b' COMMENT 'c'",
        "its default is 'b'",
    ),
    ("ALTER TABLE {t} DROP INDEX by_w", "index by_w is missing"),
    (
        "ALTER TABLE {t} ADD INDEX more (v, w)",
        "index more exists on the target only",
    ),
    (
        "ALTER TABLE {t} ALTER INDEX by_v INVISIBLE",
        "index by_v is not visible",
    ),
    (
        "ALTER TABLE {t} MODIFY COLUMN y BIGINT",
        "its type is bigint(20), not int",
    ),
    (
        "ALTER TABLE {t} MODIFY COLUMN v VARCHAR(30) COLLATE utf8mb4_general_ci NULL DEFAULT 'a' COMMENT 'd'",
        "its comment is another",
    ),
    (
        "ALTER TABLE {t} DROP CONSTRAINT positive",
        "CHECK positive is missing",
    ),
    (
        "ALTER TABLE {t} COMMENT 'something else'",
        "its comment is another",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_differ_are_found_and_mended_by_what_check_prints() {
    let lab = Lab::new("mend").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    let create = "(id INT PRIMARY KEY, v VARCHAR(30) COLLATE utf8mb4_general_ci DEFAULT 'a' COMMENT 'c', w INT, x VARCHAR(9), y INT, \
                  KEY by_v (x(5), w), KEY by_w (w), CONSTRAINT positive{n} CHECK (w > 0)) COMMENT 'a table'";
    for place in 0..CHANGES.len() {
        let name = if place == 6 {
            String::new()
        } else {
            place.to_string()
        };
        run(
            &mut source,
            &format!("CREATE TABLE t{place} {}", create.replace("{n}", &name)),
        )
        .await;
        run(
            &mut source,
            &format!("INSERT INTO t{place} VALUES (1, 'x', 1, 'y', 2)"),
        )
        .await;
    }
    lab.create_feed();
    let mut migrating = follow(&lab);
    assert_definitions_equal(&lab);
    for (place, (change, _)) in CHANGES.iter().enumerate() {
        let table = format!("{}.t{place}", lab.database);
        run(&mut target, &change.replace("{t}", &table)).await;
    }
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 1, "{}\n{}", check.stdout, check.stderr);
    let mut mend = Vec::new();
    for (table, (change, said)) in check.json()["tables"]
        .as_array()
        .expect("tables")
        .iter()
        .zip(CHANGES)
    {
        assert_eq!(
            table["verdict"], "equal",
            "rows are as they were: {table:#}"
        );
        let found = table["definition"]["differences"]
            .as_array()
            .expect("differences");
        assert_eq!(found.len(), 1, "{change}: {table:#}");
        let what = found[0]["what"].as_str().expect("words");
        assert!(what.contains(said), "{change}: {what}");
        let lesser = said.contains("comment");
        assert_eq!(found[0]["weight"] == "lesser", lesser, "{change}");
        assert_eq!(
            table["definition"]["verdict"] == "equal",
            lesser,
            "{change}"
        );
        mend.extend(found[0]["mend"].as_array().expect("statements").clone());
    }
    let status = lab.run(&["status", "--json"]);
    assert!(
        status.stdout.contains("the definition of"),
        "{}",
        status.stdout
    );
    for statement in mend {
        run(&mut target, statement.as_str().expect("a statement")).await;
    }
    assert_definitions_equal(&lab);
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_there_is_taken_if_it_holds_everything() {
    let lab = Lab::new("there").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    run(&mut target, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20), KEY by_v (v))",
    )
    .await;
    run(&mut source, "INSERT INTO t VALUES (1, 'a'), (2, NULL)").await;
    lab.create_feed();
    let smaller = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(10) COLLATE utf8mb4_bin NOT NULL, UNIQUE KEY u (v))";
    run(&mut target, smaller).await;
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 2, "{}", precheck.stdout);
    for said in [
        "its type is varchar(10)",
        "index by_v is missing",
        "MODIFY COLUMN `v` varchar(20)",
    ] {
        assert!(
            precheck.stdout.contains(said),
            "{said} in {}",
            precheck.stdout
        );
    }
    let refused = lab.run(&["migrate", "--until", "load"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for said in [
        "its type is varchar(10)",
        "may not be NULL",
        "index u exists on the target only",
    ] {
        assert!(
            refused.stderr.contains(said),
            "{said} in {}",
            refused.stderr
        );
    }
    run(&mut target, "DROP TABLE t").await;
    run(
        &mut target,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR(50) COLLATE utf8mb4_bin)",
    )
    .await;
    let migrated = lab.run(&["migrate", "--until", "load"]);
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
    assert!(
        migrated
            .stderr
            .contains("kept as it is: index by_v is missing"),
        "{}",
        migrated.stderr
    );
    assert_same_rows(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_by_choice_is_said_and_not_made() {
    let lab = Lab::new("left").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    for sql in [
        "CREATE TABLE parent (a INT PRIMARY KEY)",
        "CREATE TABLE child (a INT PRIMARY KEY, j JSON DEFAULT (JSON_OBJECT()), \
         FOREIGN KEY (a) REFERENCES parent (a), CHECK (a < 100), KEY by_next ((a + 1)))",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO child (a) VALUES (1)",
    ] {
        run(&mut source, sql).await;
    }
    lab.create_feed();
    let refused = lab.run(&["precheck"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.stdout.contains("expression-defaults"),
        "{}",
        refused.stdout
    );
    choose(
        &lab,
        "leave_out = [\"foreign-keys\", \"checks\", \"expression-indexes\", \"expression-defaults\"]",
    );
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 0, "{}", precheck.stdout);
    for said in [
        "foreign key fk_1 is left out",
        "CHECK child_chk_1 is left out",
        "index by_next is left out",
    ] {
        assert!(
            precheck.stdout.contains(said),
            "{said} in {}",
            precheck.stdout
        );
    }
    let migrated = lab.run(&["migrate", "--until", "load"]);
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
    assert_same_rows(&lab).await;
    let create = show_create(&mut target, &lab.database, "child").await;
    assert!(
        !create.contains("FOREIGN") && !create.contains("CHECK") && !create.contains("by_next"),
        "{create}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_made_in_the_order_in_which_they_read_each_other_and_compared() {
    let lab = Lab::new("views").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    for sql in [
        "CREATE TABLE t (a INT PRIMARY KEY, b VARCHAR(9))",
        "INSERT INTO t VALUES (1, 'x'), (2, 'y''z')",
        "CREATE VIEW z_first AS SELECT a, b AS `b ``b` FROM t WHERE a > 1 AND b <> 'x\\\\'",
        "CREATE VIEW a_second (q, r) AS SELECT z.a, COUNT(*) FROM z_first z JOIN t ON t.a = z.a GROUP BY z.a",
        "CREATE SEQUENCE counter START WITH 5 INCREMENT BY 3",
    ] {
        run(&mut source, sql).await;
    }
    lab.create_feed();
    let refused = lab.run(&["precheck"]);
    assert_eq!(refused.code, 2);
    for said in [
        "it is a sequence",
        "CREATE SEQUENCE",
        "START WITH 5 INCREMENT BY 3",
        "leave_out = [\"sequences\"]",
    ] {
        assert!(
            refused.stdout.contains(said),
            "{said} in {}",
            refused.stdout
        );
    }
    choose(&lab, "leave_out = [\"sequences\"]");
    let refused = lab.run(&["migrate", "--until", "schema"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("GRANT CREATE VIEW"),
        "{}",
        refused.stderr
    );
    grant(&lab, &mut target, "CREATE VIEW").await;
    let mut migrating = follow(&lab);
    lab.assert_check_equal();
    for view in ["z_first", "a_second"] {
        let rows = format!("SELECT * FROM {}.{view}", lab.database);
        let (left, right) = (
            texts(&mut source, &rows).await,
            texts(&mut target, &rows).await,
        );
        assert_same(left, right);
    }
    run(
        &mut target,
        &format!(
            "CREATE OR REPLACE VIEW {0}.z_first AS SELECT a, b AS `b ``b` FROM {0}.t",
            lab.database
        ),
    )
    .await;
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 1, "{}\n{}", check.stdout, check.stderr);
    let views = check.json()["views"].clone();
    assert_eq!(views[0]["definition"]["verdict"], "equal", "{views:#}");
    assert_eq!(views[1]["definition"]["verdict"], "different", "{views:#}");
    for statement in views[1]["definition"]["differences"][0]["mend"]
        .as_array()
        .expect("statements")
    {
        run(&mut target, statement.as_str().expect("a statement")).await;
    }
    lab.assert_check_equal();
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_indexes_can_wait_for_the_rows() {
    let lab = Lab::new("later").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    choose(&lab, "indexes_after_load = true");
    run(
        &mut source,
        "CREATE TABLE t (id INT PRIMARY KEY, a INT, b TEXT, c VARCHAR(9), UNIQUE KEY by_a (a), KEY by_b (b(5)), \
         KEY pair (a, id), KEY hidden (id, a) INVISIBLE, KEY computed ((LOWER(c))))",
    )
    .await;
    run(
        &mut source,
        "INSERT INTO t (id, a, b) VALUES (1, 1, 'x'), (2, 2, NULL)",
    )
    .await;
    lab.create_feed();
    grant(&lab, &mut target, "ALTER, INDEX").await;
    let made = lab.run(&["migrate", "--until", "schema"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let create = show_create(&mut target, &lab.database, "t").await;
    assert!(
        create.contains("`by_a`") && create.contains("`computed`"),
        "{create}"
    );
    assert!(
        !create.contains("`by_b`") && !create.contains("`pair`"),
        "{create}"
    );
    let mut migrating = follow(&lab);
    run(
        &mut source,
        "CREATE TABLE late (id INT PRIMARY KEY, a INT, KEY by_a (a))",
    )
    .await;
    run(&mut source, "INSERT INTO late VALUES (1, 1)").await;
    assert_definitions_equal(&lab);
    assert_same_indexes_of(&lab, &mut source, &mut target).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
