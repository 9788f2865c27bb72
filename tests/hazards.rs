//! Hazards of the two servers that no other test meets: what only TiDB knows, indexes of rarer kinds,
//! SETs whose numbers are large. `fixtures/hazards.md` lists all hazards with their tests.

use crate::lab::{Lab, run, texts};
use crate::plain_sql::assert_same_rows;
use crate::schema::{assert_definitions_equal, follow, prepare};

/// What only TiDB knows of a table, and the words of precheck's warning.
const ONLY_TIDB: [(&str, &str); 7] = [
    (
        "CREATE TABLE expiring (id INT PRIMARY KEY, d DATETIME) TTL = `d` + INTERVAL 100 YEAR",
        "TTL is dropped on purpose",
    ),
    (
        "CREATE TABLE placed (id INT PRIMARY KEY) PLACEMENT POLICY = rowproof_hazards",
        "a placement policy is dropped on purpose",
    ),
    (
        "CREATE TABLE cached (id INT PRIMARY KEY)",
        "CACHE is dropped on purpose",
    ),
    (
        "CREATE TABLE sharded (id INT PRIMARY KEY NONCLUSTERED) SHARD_ROW_ID_BITS = 4",
        "SHARD_ROW_ID_BITS is dropped on purpose",
    ),
    (
        "CREATE TABLE split (id INT PRIMARY KEY NONCLUSTERED) SHARD_ROW_ID_BITS = 4 PRE_SPLIT_REGIONS = 2",
        "PRE_SPLIT_REGIONS is dropped on purpose",
    ),
    (
        "CREATE TABLE taking_ids (id INT PRIMARY KEY AUTO_INCREMENT) AUTO_ID_CACHE 100",
        "AUTO_ID_CACHE is dropped on purpose",
    ),
    (
        "CREATE TABLE random_ids (id BIGINT PRIMARY KEY AUTO_RANDOM(5))",
        "its AUTO_RANDOM key becomes AUTO_INCREMENT",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_only_tidb_knows_is_said_and_its_tables_are_carried() {
    let lab = Lab::new("onlytidb").await;
    let mut source = lab.source().await;
    prepare(&lab, &mut source).await;
    run(
        &mut source,
        "CREATE PLACEMENT POLICY IF NOT EXISTS rowproof_hazards FOLLOWERS = 2",
    )
    .await;
    for (create, _) in ONLY_TIDB {
        run(&mut source, create).await;
        let name = create.split(' ').nth(2).expect("a name");
        let values = if name == "expiring" {
            "(1, NOW())"
        } else {
            "(1)"
        };
        if name != "random_ids" {
            run(&mut source, &format!("INSERT INTO {name} VALUES {values}")).await;
        }
    }
    run(&mut source, "ALTER TABLE cached CACHE").await;
    lab.create_feed();
    let precheck = lab.run(&["precheck", "--json"]);
    assert_eq!(precheck.code, 0, "{}", precheck.stdout);
    let findings = precheck.json();
    let findings = findings.as_array().expect("findings");
    for (create, words) in ONLY_TIDB {
        let name = create.split(' ').nth(2).expect("a name");
        let what = format!("table {}.{name}: {words}", lab.database);
        let found = findings
            .iter()
            .any(|finding| finding["what"] == what.as_str() && finding["level"] == "warning");
        assert!(found, "{what} in {findings:#?}");
    }
    let migrated = lab.run(&["migrate", "--until", "load"]);
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
    assert_same_rows(&lab).await;
    // The server's own cleaning belongs to all who share it.
    run(&mut source, "ALTER TABLE cached NOCACHE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_table_is_an_error_of_precheck() {
    let lab = Lab::new("temporary").await;
    let mut source = lab.source().await;
    prepare(&lab, &mut source).await;
    run(
        &mut source,
        "CREATE GLOBAL TEMPORARY TABLE passing (id INT PRIMARY KEY) ON COMMIT DELETE ROWS",
    )
    .await;
    lab.create_feed();
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 2, "{}", precheck.stdout);
    let words = format!("table {}.passing: it is temporary", lab.database);
    assert!(precheck.stdout.contains(&words), "{}", precheck.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_on_elements_of_arrays_and_descending_ones_arrive() {
    let lab = Lab::new("arrays").await;
    let mut source = lab.source().await;
    prepare(&lab, &mut source).await;
    for sql in [
        "CREATE TABLE zips (id INT PRIMARY KEY, j JSON, v INT, KEY by_v (v DESC, id), \
         KEY by_zip ((CAST(j->'$.z' AS UNSIGNED ARRAY))))",
        "INSERT INTO zips VALUES (1, '{\"z\": [1, 2]}', 5), (2, NULL, NULL), (3, '{\"z\": []}', 4)",
    ] {
        run(&mut source, sql).await;
    }
    lab.create_feed();
    let mut migrating = follow(&lab);
    run(
        &mut source,
        "UPDATE zips SET j = '{\"z\": [7, 8, 9]}' WHERE id = 2",
    )
    .await;
    assert_definitions_equal(&lab);
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_carried_to_the_last_depth_of_the_source() {
    let lab = Lab::new("depth").await;
    let mut source = lab.source().await;
    prepare(&lab, &mut source).await;
    run(
        &mut source,
        "CREATE TABLE deep (id INT PRIMARY KEY, j JSON)",
    )
    .await;
    let document = |depth: usize| format!("'{}1{}'", "[".repeat(depth), "]".repeat(depth));
    for depth in [1, 99, 100] {
        run(
            &mut source,
            &format!("INSERT INTO deep VALUES ({depth}, {})", document(depth)),
        )
        .await;
    }
    lab.create_feed();
    let mut migrating = follow(&lab);
    run(
        &mut source,
        "INSERT INTO deep SELECT id + 1000, j FROM deep",
    )
    .await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_labels_in_keys_find_one_row_each() {
    let lab = Lab::new("labelkeys").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    let members: Vec<String> = (0..53).map(|of| format!("'m{of}'")).collect();
    for sql in [
        // The highest member beside each of the lowest: a double of less digits would take them for one.
        &format!(
            "CREATE TABLE wide (s SET({}) PRIMARY KEY, v INT)",
            members.join(", ")
        ),
        "INSERT INTO wide VALUES (4503599627370496, 1), (4503599627370497, 2), (4503599627370498, 3)",
        "CREATE TABLE bare (e ENUM('a', '', 'b'), s SET('', 'x'), v INT, PRIMARY KEY (e, s))",
        "INSERT INTO bare VALUES (0, 0, 1), (2, 0, 2), (2, 1, 3), (3, 3, 4), (1, 2, 5)",
    ] {
        run(&mut source, sql).await;
    }
    lab.create_feed();
    let mut migrating = follow(&lab);
    for sql in [
        "DELETE FROM wide WHERE v = 2",
        "UPDATE wide SET v = 30 WHERE v = 3",
        "DELETE FROM bare WHERE v = 2",
        "UPDATE bare SET v = 10 WHERE v = 1",
        "UPDATE bare SET s = 0 WHERE v = 5",
    ] {
        run(&mut source, sql).await;
    }
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    // A row that only the target has is found beside those that read alike, and repaired.
    run(
        &mut target,
        &format!("INSERT INTO {}.bare VALUES (2, 0, 99)", lab.database),
    )
    .await;
    assert_eq!(lab.run(&["check"]).code, 1);
    let repaired = lab.run(&["repair", "--apply"]);
    assert_eq!(repaired.code, 0, "{}", repaired.stderr);
    lab.assert_check_equal();
    let count = format!("SELECT COUNT(*) FROM {}.bare", lab.database);
    assert_eq!(texts(&mut target, &count).await, [[Some("4".to_owned())]]);
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
