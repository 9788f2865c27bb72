//! Precheck explains what would stop or spoil a migration, and migrate refuses the same.

use crate::lab::{Lab, run};

/// Each definition that cannot be carried, and a word of the finding that says so.
const OBSTACLES: &[(&str, &str)] = &[
    (
        "CREATE TABLE foreign_collation (a INT PRIMARY KEY, b VARCHAR(9) COLLATE utf8mb4_unicode_ci)",
        "utf8mb4_unicode_ci",
    ),
    (
        "CREATE TABLE latin (a INT PRIMARY KEY, b VARCHAR(9) CHARSET latin1)",
        "latin1_bin",
    ),
    (
        "CREATE TABLE computed (a INT PRIMARY KEY, b INT AS (a + 1))",
        "is generated",
    ),
    (
        "CREATE TABLE cut (a INT PRIMARY KEY) PARTITION BY HASH (a) PARTITIONS 2",
        "partitioned",
    ),
    (
        "CREATE TABLE random_key (a BIGINT PRIMARY KEY AUTO_RANDOM)",
        "AUTO_RANDOM",
    ),
    (
        "CREATE TABLE empty_label (a INT PRIMARY KEY, e ENUM('', 'x'))",
        "empty label",
    ),
    (
        "CREATE TABLE expression_default (a INT PRIMARY KEY, b VARCHAR(40) DEFAULT (UUID()))",
        "expression",
    ),
    (
        "CREATE TABLE child (a INT PRIMARY KEY, FOREIGN KEY (a) REFERENCES parent (a))",
        "foreign key",
    ),
    (
        "CREATE TABLE on_expression (a INT PRIMARY KEY, KEY ((a + 1)))",
        "index on an expression",
    ),
    ("CREATE VIEW seen AS SELECT 1", "view"),
    ("CREATE SEQUENCE counter", "sequence"),
];

/// Definitions that are carried; of those without a key, precheck says what TiCDC's limits mean.
const CARRIED: &[&str] = &[
    "CREATE TABLE whole (a INT PRIMARY KEY)",
    "CREATE TABLE ci_key (a VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY)",
    "CREATE TABLE decimal_key (a DECIMAL(9,2) PRIMARY KEY)",
    "CREATE TABLE without_key (a INT)",
    "CREATE TABLE without_key_nullable (a INT, UNIQUE KEY (a))",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_obstacle_is_an_error_with_a_fix() {
    let lab = Lab::new("precheck").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut source, "CREATE TABLE parent (a INT PRIMARY KEY)").await;
    for (create, _) in OBSTACLES {
        run(&mut source, create).await;
    }
    for create in CARRIED {
        run(&mut source, create).await;
    }
    lab.create_feed();
    let precheck = lab.run(&["precheck", "--json"]);
    assert_eq!(precheck.code, 2, "{}", precheck.stderr);
    let findings = precheck.json();
    let findings = findings.as_array().expect("findings");
    for (create, word) in OBSTACLES {
        let name = create.split_whitespace().nth(2).expect("a name");
        let found = findings.iter().any(|finding| {
            let what = finding["what"].as_str().unwrap_or_default();
            let fix = finding["fix"].as_str().unwrap_or_default();
            finding["level"] == "error"
                && what.contains(&format!("{}.{name}:", lab.database))
                && what.contains(word)
                && !fix.is_empty()
        });
        assert!(found, "{name} ({word}) in {findings:#?}");
    }
    for create in CARRIED {
        let name = create.split_whitespace().nth(2).expect("a name");
        let prefix = format!("table {}.{name}:", lab.database);
        let of_table = findings.iter().filter(|finding| {
            let what = finding["what"].as_str().unwrap_or_default();
            what.starts_with(&prefix)
        });
        let levels: Vec<_> = of_table.map(|finding| &finding["level"]).collect();
        if name.starts_with("without_key") {
            assert_eq!(levels, ["warning"], "{name}");
        } else {
            assert!(
                levels.is_empty(),
                "what can be carried is no finding: {name}"
            );
        }
    }
    let migrate = lab.run(&["migrate"]);
    assert_eq!(migrate.code, 2, "{}", migrate.stderr);
    assert!(
        migrate.stderr.contains("precheck found"),
        "{}",
        migrate.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_a_foreign_protocol_and_a_late_feed_are_told_apart() {
    let lab = Lab::new("nofeed").await;
    let mut source = lab.source().await;
    run(
        &mut source,
        &format!("CREATE TABLE {}.t (a INT PRIMARY KEY)", lab.database),
    )
    .await;
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 2);
    assert!(
        precheck.stdout.contains("has no topic"),
        "{}",
        precheck.stdout
    );
    assert!(
        precheck.stdout.contains("cdc cli changefeed create"),
        "{}",
        precheck.stdout
    );

    let filter = format!("{}.*", lab.database);
    let foreign = format!("{}_json", lab.database);
    lab.feed(&[
        "create",
        "--topic",
        &foreign,
        "--filter",
        &filter,
        "--protocol",
        "canal-json",
        "--option",
        "enable-tidb-extension=true",
    ]);
    let topic = format!("topics = [\"{}\"]", lab.database);
    lab.write_task(
        &lab.task_text()
            .replace(&topic, &format!("topics = [\"{foreign}\"]")),
    );
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 2);
    assert!(
        precheck.stdout.contains("Open Protocol"),
        "{}",
        precheck.stdout
    );
    lab.feed(&["remove", "--topic", &foreign]);

    // A feed that was removed before the load sends no watermark any more.
    lab.create_feed();
    lab.write_task(&lab.task_text());
    assert_eq!(lab.run(&["precheck"]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_already_are_not_overwritten() {
    let lab = Lab::new("occupied").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    for connection in [&mut source, &mut target] {
        run(
            connection,
            &format!("CREATE TABLE {}.t (a INT PRIMARY KEY)", lab.database),
        )
        .await;
    }
    run(
        &mut target,
        &format!("INSERT INTO {}.t VALUES (1)", lab.database),
    )
    .await;
    lab.create_feed();
    let migrate = lab.run(&["migrate", "--until", "load"]);
    assert_eq!(migrate.code, 2, "{}", migrate.stderr);
    assert!(
        migrate
            .stderr
            .contains("holds rows that rowproof did not write"),
        "{}",
        migrate.stderr
    );
    run(&mut target, &format!("DELETE FROM {}.t", lab.database)).await;
    let migrate = lab.run(&["migrate", "--until", "load"]);
    assert_eq!(migrate.code, 0, "{}", migrate.stderr);
}
