//! Precheck explains what would stop or spoil a migration, and migrate refuses the same.

use crate::lab::{Lab, USER, run};

/// Each definition that cannot be carried, and a word of the finding that says so.
const OBSTACLES: &[(&str, &str)] = &[
    ("CREATE SEQUENCE counter", "sequence"),
    (
        "CREATE TABLE no_key_computed (a INT, b INT AS (a + 1))",
        "it has no key, but a virtual column",
    ),
    (
        "CREATE TABLE no_key_cut (a INT) PARTITION BY HASH (a) PARTITIONS 2",
        "it has no key, but partitions",
    ),
    (
        "CREATE TABLE foreign_collation (a INT PRIMARY KEY, b VARCHAR(9) COLLATE utf8mb4_unicode_ci)",
        "utf8mb4_unicode_ci",
    ),
    (
        "CREATE TABLE global_key (a INT, b INT, PRIMARY KEY (a) NONCLUSTERED GLOBAL) PARTITION BY HASH (b) PARTITIONS 2",
        "primary key is global",
    ),
    (
        "CREATE TABLE by_difference (a INT, d DATE, PRIMARY KEY (a, d)) PARTITION BY HASH (DATEDIFF(d, '2000-01-01')) PARTITIONS 2",
        "datediff",
    ),
    (
        "CREATE TABLE computed_twice (a INT PRIMARY KEY, b INT AS (a + 1), c INT AS (b + 1))",
        "reads generated column b",
    ),
    (
        "CREATE TABLE computed_key (a INT, b INT AS (a + 1) STORED, PRIMARY KEY (b))",
        "belongs to the primary key",
    ),
    (
        "CREATE TABLE on_computed (a INT PRIMARY KEY, b INT AS (a + 1), KEY on_b ((b + 1)))",
        "expression of generated column b",
    ),
    (
        "CREATE TABLE foreign_function (a INT PRIMARY KEY, b VARCHAR(99) AS (TIDB_SHARD(a)))",
        "does not understand generated column b",
    ),
    (
        "CREATE TABLE default_text (a INT PRIMARY KEY, b TEXT DEFAULT (UUID()))",
        "column b, a text, has a default",
    ),
    (
        "CREATE TABLE default_bytes (a INT PRIMARY KEY, b VARBINARY(9) DEFAULT x'ff00')",
        "not UTF-8",
    ),
    (
        "CREATE TABLE from_sequence (a INT PRIMARY KEY, b INT DEFAULT (NEXT VALUE FOR counter))",
        "sequence",
    ),
    (
        "CREATE TABLE empty_member (a INT PRIMARY KEY, s SET('', MEMBERS))",
        "members with an empty label",
    ),
    (
        "CREATE TABLE set_key (s SET(MEMBERS) PRIMARY KEY)",
        "a SET of more than 53 members",
    ),
    (
        "CREATE TABLE any_vector (a INT PRIMARY KEY, v VECTOR)",
        "VECTOR of any dimension",
    ),
    (
        "CREATE TABLE long_vector (a INT PRIMARY KEY, v VECTOR(16001))",
        "16001 dimensions",
    ),
    (
        "CREATE TABLE computed_vector (a INT PRIMARY KEY, v VECTOR(2), w VECTOR(2) AS (v) STORED)",
        "generated column w is a VECTOR",
    ),
    (
        "CREATE TABLE default_vector (a INT PRIMARY KEY, v VECTOR(2) DEFAULT (VEC_FROM_TEXT('[1,2]')))",
        "column v, a vector(2), has a default",
    ),
    (
        "CREATE TABLE long_list (a INT PRIMARY KEY) PARTITION BY LIST (a) (PARTITION p VALUES IN (LIST))",
        "more values than OceanBase keeps",
    ),
    (
        "CREATE TABLE too_wide (a INT PRIMARY KEY, TEXTS)",
        "bytes together",
    ),
    (
        "CREATE TABLE child (a INT PRIMARY KEY, FOREIGN KEY (a) REFERENCES elsewhere.parent (a))",
        "refers to elsewhere.parent",
    ),
];

/// Definitions that are carried; of those without a key, precheck says what TiCDC's limits mean.
const CARRIED: &[&str] = &[
    "CREATE TABLE whole (a INT PRIMARY KEY)",
    "CREATE TABLE ci_key (a VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY)",
    "CREATE TABLE decimal_key (a DECIMAL(9,2) PRIMARY KEY)",
    "CREATE TABLE empty_label (a INT PRIMARY KEY, e ENUM('', 'x'), s SET('', 'x'))",
    "CREATE TABLE vectors (a INT PRIMARY KEY, v VECTOR(16000))",
    "CREATE TABLE list (a INT PRIMARY KEY) PARTITION BY LIST (a) (PARTITION p VALUES IN (FULL_LIST))",
    "CREATE TABLE without_key (a INT)",
    "CREATE TABLE without_key_nullable (a INT, UNIQUE KEY (a))",
];

/// Puts long lists into a statement.
pub fn sized(sql: &str) -> String {
    let list = |count: usize, item: fn(usize) -> String| {
        let items: Vec<String> = (0..count).map(item).collect();
        items.join(", ")
    };
    sql.replace("MEMBERS", &list(54, |of| format!("'m{of}'")))
        .replace("FULL_LIST", &list(527, |of| of.to_string()))
        .replace("LIST))", &format!("{}))", list(528, |of| of.to_string())))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_obstacle_is_an_error_with_a_fix() {
    let lab = Lab::new("precheck").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut source, "SET SESSION tidb_enable_global_index = ON").await;
    run(&mut source, "SET SESSION foreign_key_checks = OFF").await;
    run(&mut source, "CREATE TABLE parent (a INT PRIMARY KEY)").await;
    let texts: Vec<String> = (0..25).map(|of| format!("t{of} VARCHAR(16000)")).collect();
    for (create, _) in OBSTACLES {
        let create = create.replace("TEXTS", &texts.join(", "));
        run(&mut source, &sized(&create)).await;
    }
    for create in CARRIED {
        run(&mut source, &sized(create)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_on_the_target_is_an_error() {
    let lab = Lab::new("trigger").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    for connection in [&mut source, &mut target] {
        run(
            connection,
            &format!("CREATE TABLE {}.t (a INT PRIMARY KEY, b INT)", lab.database),
        )
        .await;
    }
    lab.create_feed();
    run(&mut target, &format!("USE {}", lab.database)).await;
    run(
        &mut target,
        "CREATE TRIGGER IF NOT EXISTS fires BEFORE INSERT ON t FOR EACH ROW SET NEW.b = 5",
    )
    .await;
    // OceanBase hides triggers from who may make none.
    let precheck = lab.run(&["precheck"]);
    assert!(
        precheck.stdout.contains("shows no TRIGGER on"),
        "{}",
        precheck.stdout
    );
    run(
        &mut target,
        &format!("GRANT TRIGGER ON {}.* TO {USER}", lab.database),
    )
    .await;
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 2, "{}", precheck.stdout);
    assert!(
        precheck.stdout.contains("has a trigger"),
        "{}",
        precheck.stdout
    );
}
