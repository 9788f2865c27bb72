//! Definitions: what a table can be on TiDB is made on OceanBase, filled by load and by feed, and
//! compared by plain SQL and by what the two servers say of it.

use crate::lab::{Lab, Migrating, USER, run, texts, try_run};
use crate::plain_sql::assert_same_rows;
use sqlx::mysql::MySqlConnection;

/// A table of each kind with rows for the load, and statements for the feed.
const TABLES: &[(&str, &[&str])] = &[
    (
        "CREATE TABLE keys_of_all_kinds (id INT, a VARCHAR(40), t TEXT, b INT, \
         PRIMARY KEY (id) NONCLUSTERED, UNIQUE KEY by_lower ((LOWER(a)), b) COMMENT 'it''s', \
         KEY by_prefix (t(7)), KEY hidden (b) INVISIBLE, KEY down (b DESC, a))",
        &[
            "INSERT INTO {t} VALUES (1, 'Ab', 'some text', 1), (2, NULL, NULL, 2), (3, 'ab', '', 2)",
            "UPDATE {t} SET a = 'CD', b = 5 WHERE id = 1",
            "DELETE FROM {t} WHERE id = 2",
        ],
    ),
    (
        "CREATE TABLE computed (id INT PRIMARY KEY, v VARCHAR(20), j JSON, \
         n INT AS (CHAR_LENGTH(v)) VIRTUAL, s VARCHAR(40) AS (CONCAT(v, 'a\\\\b''c')) STORED, \
         x INT AS (j->>'$.a'), c INT AS (IF(id > 2 AND v IS NOT NULL, id * 2 + 1, -id)) STORED NOT NULL, \
         d DATETIME AS (DATE_ADD('2020-01-01', INTERVAL id DAY)), KEY by_n (n), UNIQUE KEY by_s (s, id))",
        &[
            "INSERT INTO {t} (id, v, j) VALUES (1, 'abc', '{\"a\": 5}'), (2, NULL, NULL), (3, '', '{}')",
            "UPDATE {t} SET v = 'a longer one' WHERE id = 1",
            "UPDATE {t} SET id = id + 10 WHERE id = 3",
            "DELETE FROM {t} WHERE id = 2",
        ],
    ),
    (
        "CREATE TABLE computed_key (a INT, g BIGINT AS (a * 10) STORED NOT NULL, v INT, UNIQUE KEY (g))",
        &[
            "INSERT INTO {t} (a, v) VALUES (1, 1), (2, 2), (3, 3)",
            "UPDATE {t} SET a = 9 WHERE a = 1",
            "DELETE FROM {t} WHERE a = 3",
        ],
    ),
    (
        "CREATE TABLE checked (id INT PRIMARY KEY, v VARCHAR(9), \
         CONSTRAINT `odd``name` CHECK (v <> 'a''b'), CHECK (id > 0 AND id < 1000), \
         CONSTRAINT lax CHECK (id < 0) NOT ENFORCED)",
        &[
            "INSERT INTO {t} VALUES (1, 'x'), (2, NULL)",
            "UPDATE {t} SET v = 'y' WHERE id = 1",
        ],
    ),
    (
        "CREATE TABLE by_default (id INT PRIMARY KEY, u VARCHAR(40) DEFAULT (UUID()), \
         day DATE DEFAULT (CURRENT_DATE), r DOUBLE DEFAULT (RAND()), \
         f VARCHAR(20) DEFAULT (DATE_FORMAT(NOW(), '%Y-%m')), \
         at DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), \
         ts TIMESTAMP(6) NULL DEFAULT '2020-01-01 00:00:00.5', b BIT(9) DEFAULT b'101', \
         bin BINARY(4) DEFAULT 'a\\0b', s VARCHAR(30) DEFAULT 'q\\'u\\\\o\"te\\n', \
         e ENUM('it''s', 'b\\\\c') DEFAULT 'b\\\\c', es SET('a','b') DEFAULT 'a,b', \
         y YEAR DEFAULT 2020, t TIME(2) DEFAULT '10:00:00.12', cu VARCHAR(20) DEFAULT 'CURRENT_TIMESTAMP', \
         d DECIMAL(9,3) NOT NULL DEFAULT 1.5, n INT DEFAULT NULL)",
        &[
            "INSERT INTO {t} (id) VALUES (1), (2), (3)",
            "INSERT INTO {t} (id, at) VALUES (4, '2000-01-01 00:00:00')",
            "UPDATE {t} SET n = 7 WHERE id = 1",
            "UPDATE {t} SET n = 7, at = '2001-01-01 00:00:00' WHERE id = 2",
        ],
    ),
    (
        "CREATE TABLE `o``dd 'n\"ame` (`a b` INT NOT NULL COMMENT 'it''s \\\\ a \"key\"', `\u{4e2d}` INT, \
         `select` INT AS (`a b` + 1), PRIMARY KEY (`a b`), KEY `k``ey` (`\u{4e2d}`) COMMENT '\u{1f600}') \
         COMMENT 'a \"table\" of ''mine'''",
        &[
            "INSERT INTO {t} (`a b`) VALUES (1), (2)",
            "UPDATE {t} SET `\u{4e2d}` = 5",
        ],
    ),
    (
        "CREATE TABLE by_range (a INT PRIMARY KEY, b INT) PARTITION BY RANGE (ABS(a)) \
         (PARTITION p0 VALUES LESS THAN (10) COMMENT 'x''y', PARTITION `p``1` VALUES LESS THAN MAXVALUE)",
        &[
            "INSERT INTO {t} VALUES (1, 1), (-20, 2)",
            "UPDATE {t} SET a = 30 WHERE a = 1",
        ],
    ),
    (
        "CREATE TABLE by_range_columns (a INT, s VARCHAR(20), PRIMARY KEY (a, s)) PARTITION BY RANGE COLUMNS (a, s) \
         (PARTITION p0 VALUES LESS THAN (10, 'a''b'), PARTITION p1 VALUES LESS THAN (MAXVALUE, MAXVALUE))",
        &[
            "INSERT INTO {t} VALUES (1, 'x'), (10, 'b')",
            "UPDATE {t} SET a = 20 WHERE a = 1",
        ],
    ),
    (
        "CREATE TABLE by_list (a INT PRIMARY KEY) PARTITION BY LIST (a) \
         (PARTITION p0 VALUES IN (1, 2), PARTITION p1 VALUES IN (3), PARTITION p2 DEFAULT)",
        &[
            "INSERT INTO {t} VALUES (1), (3), (99)",
            "UPDATE {t} SET a = 2 WHERE a = 99",
        ],
    ),
    (
        "CREATE TABLE by_list_columns (a INT, s VARCHAR(20), PRIMARY KEY (a, s)) PARTITION BY LIST COLUMNS (s, a) \
         (PARTITION p0 VALUES IN (('a', 1), ('b', 2)), PARTITION p1 VALUES IN (('c', 3)))",
        &[
            "INSERT INTO {t} VALUES (1, 'a'), (2, 'b')",
            "UPDATE {t} SET a = 3, s = 'c' WHERE a = 1",
        ],
    ),
    (
        "CREATE TABLE by_hash (a INT PRIMARY KEY, b INT, UNIQUE KEY whole (b) GLOBAL) PARTITION BY HASH (a) PARTITIONS 3",
        &[
            "INSERT INTO {t} VALUES (1, 1), (2, 2), (3, 3)",
            "UPDATE {t} SET b = 9, a = 7 WHERE a = 1",
        ],
    ),
    (
        "CREATE TABLE by_key (a VARBINARY(9) PRIMARY KEY, b INT) PARTITION BY KEY () PARTITIONS 3",
        &[
            "INSERT INTO {t} VALUES ('a', 1), ('b', 2)",
            "DELETE FROM {t} WHERE a = 'a'",
        ],
    ),
    (
        "CREATE TABLE expiring (id INT PRIMARY KEY, d DATETIME) TTL = `d` + INTERVAL 100 YEAR",
        &[
            "INSERT INTO {t} VALUES (1, '2020-01-01')",
            "DELETE FROM {t} WHERE id = 1",
        ],
    ),
    (
        "CREATE TABLE old_charsets (id INT PRIMARY KEY, l VARCHAR(9) CHARSET latin1, a VARCHAR(9) CHARSET ascii, \
         u VARCHAR(9) CHARSET utf8, k VARCHAR(9) COLLATE utf8mb4_0900_ai_ci)",
        &[
            "INSERT INTO {t} VALUES (1, 'a', 'b', '\u{4e2d}', 'A')",
            "UPDATE {t} SET k = '\u{1f600}'",
        ],
    ),
];

/// Prepares the source's tables and a task that chooses a collation.
pub async fn prepare(lab: &Lab, source: &mut MySqlConnection) {
    run(source, "SET GLOBAL tidb_enable_check_constraint = ON").await;
    run(source, "SET SESSION tidb_enable_global_index = ON").await;
    run(source, "SET SESSION sql_mode = ''").await;
    run(source, &format!("USE {}", lab.database)).await;
    choose(
        lab,
        "collations = { utf8mb4_0900_ai_ci = \"utf8mb4_general_ci\" }",
    );
}

/// Writes the task file with choices under `[schema]`.
pub fn choose(lab: &Lab, choices: &str) {
    lab.write_task(&format!("{}\n[schema]\n{choices}\n", lab.task_text()));
}

/// Returns the name of the table that a statement makes, quoted.
fn name_of(create: &str) -> String {
    let rest = create.strip_prefix("CREATE TABLE ").expect("a table");
    if rest.starts_with('`') {
        "`o``dd 'n\"ame`".to_owned()
    } else {
        rest.split(' ').next().expect("a name").to_owned()
    }
}

pub fn follow(lab: &Lab) -> Migrating {
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    migrating
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_every_kind_are_made_filled_and_followed() {
    let lab = Lab::new("kinds").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    for (create, statements) in TABLES {
        run(&mut source, create).await;
        run(&mut source, &statements[0].replace("{t}", &name_of(create))).await;
    }
    lab.create_feed();
    let mut migrating = follow(&lab);
    for (create, statements) in TABLES {
        for statement in &statements[1..] {
            run(&mut source, &statement.replace("{t}", &name_of(create))).await;
        }
    }
    // A table that the feed creates is as whole as one that was loaded.
    for statement in [
        "CREATE TABLE late (a INT PRIMARY KEY, g INT AS (IF(a > 1, a, 0)) VIRTUAL, CHECK (a BETWEEN 0 AND 99), \
         v DATE DEFAULT (CURRENT_DATE)) PARTITION BY HASH (a) PARTITIONS 2",
        "INSERT INTO late (a) VALUES (1), (2)",
        "UPDATE late SET a = 3 WHERE a = 1",
    ] {
        run(&mut source, statement).await;
    }
    assert_definitions_equal(&lab);
    assert_same_rows(&lab).await;
    assert_same_columns(&lab, &mut source, &mut target).await;
    assert_same_indexes(&lab, &mut source, &mut target).await;
    assert_constraints_hold(&lab, &mut target).await;
    assert_partitions(&lab, &mut source, &mut target).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

/// Asserts that a check finds rows and definitions equal, and nothing lesser to say.
pub fn assert_definitions_equal(lab: &Lab) {
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 0, "{}\n{}", check.stdout, check.stderr);
    for table in check.json()["tables"].as_array().expect("tables") {
        assert_eq!(table["definition"]["verdict"], "equal", "{table:#}");
        let differences = table["definition"]["differences"].as_array();
        assert_eq!(differences.map(Vec::len), Some(0), "{table:#}");
    }
}

/// Asserts that both sides list the same, in any order, and names only what does not agree.
pub fn assert_same(mut left: Vec<Vec<Option<String>>>, mut right: Vec<Vec<Option<String>>>) {
    left.sort();
    right.sort();
    let lacks = |rows: &[Vec<Option<String>>], row: &Vec<Option<String>>| !rows.contains(row);
    let missing: Vec<_> = left.iter().filter(|row| lacks(&right, row)).collect();
    let extra: Vec<_> = right.iter().filter(|row| lacks(&left, row)).collect();
    assert!(
        missing.is_empty() && extra.is_empty() && left.len() == right.len() && !left.is_empty(),
        "only on the source: {missing:#?}, only on the target: {extra:#?}"
    );
}

/// Compares what both servers say of the columns, as far as they print it alike.
async fn assert_same_columns(
    lab: &Lab,
    source: &mut MySqlConnection,
    target: &mut MySqlConnection,
) {
    // OceanBase prints the display width, lists CURRENT_TIMESTAMP(3) without its precision, rewrites
    // expressions, and pads decimals.
    let sql = format!(
        "SELECT TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, IS_NULLABLE, DATA_TYPE, COLUMN_COMMENT, \
         IF(EXTRA LIKE '%GENERATED' AND EXTRA NOT LIKE 'DEFAULT%', SUBSTR(EXTRA, 1, 7), \
            LOWER(REPLACE(EXTRA, 'DEFAULT_GENERATED', ''))), \
         IF(DATA_TYPE IN ('decimal', 'double', 'date', 'timestamp', 'binary') OR COLUMN_NAME IN ('u', 'f', 'at') \
            OR EXTRA LIKE '%GENERATED', 'elsewhere', COLUMN_DEFAULT) \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '{}' ORDER BY 1, 3",
        lab.database
    );
    let (mut left, mut right) = (texts(source, &sql).await, texts(target, &sql).await);
    for row in left.iter_mut().chain(&mut right) {
        row[6] = row[6].as_ref().map(|extra| extra.trim().to_owned());
    }
    assert_same(left, right);
    let create = show_create(target, &lab.database, "by_default").await;
    for wanted in [
        "`u` varchar(40) COLLATE utf8mb4_bin DEFAULT (uuid())",
        "`r` double DEFAULT (rand())",
        "`day` date DEFAULT (curdate())",
        "DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)",
        "DEFAULT '2020-01-01 00:00:00.500000'",
        "`b` bit(9) DEFAULT b'101'",
        "`bin` binary(4) DEFAULT 'a\\0b",
        "`cu` varchar(20) COLLATE utf8mb4_bin DEFAULT 'CURRENT_TIMESTAMP'",
        "`d` decimal(9,3) NOT NULL DEFAULT '1.500'",
    ] {
        assert!(create.contains(wanted), "{wanted} in {create}");
    }
}

pub async fn show_create(connection: &mut MySqlConnection, database: &str, table: &str) -> String {
    let rows = texts(connection, &format!("SHOW CREATE TABLE {database}.{table}")).await;
    rows[0][1].clone().expect("a statement")
}

pub async fn assert_same_indexes_of(
    lab: &Lab,
    source: &mut MySqlConnection,
    target: &mut MySqlConnection,
) {
    // OceanBase shows the table's comment as that of the primary key.
    let sql = format!(
        "SELECT TABLE_NAME, INDEX_NAME, NON_UNIQUE, SEQ_IN_INDEX, IF(EXPRESSION IS NULL, COLUMN_NAME, NULL), \
         SUB_PART, EXPRESSION, IS_VISIBLE, IF(INDEX_NAME = 'PRIMARY', '', INDEX_COMMENT) \
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = '{}'",
        lab.database
    );
    let (left, right) = (texts(source, &sql).await, texts(target, &sql).await);
    assert_same(left, right);
}

async fn assert_same_indexes(
    lab: &Lab,
    source: &mut MySqlConnection,
    target: &mut MySqlConnection,
) {
    assert_same_indexes_of(lab, source, target).await;
    let create = show_create(target, &lab.database, "by_hash").await;
    assert!(
        create.contains("UNIQUE KEY `whole` (`b`) BLOCK_SIZE 16384 GLOBAL"),
        "{create}"
    );
}

/// The CHECK constraints hold on the target; the one that holds nobody does not.
async fn assert_constraints_hold(lab: &Lab, target: &mut MySqlConnection) {
    let table = format!("{}.checked", lab.database);
    for refused in ["(5, 'a''b')", "(1000, 'x')", "(0, 'x')"] {
        let done = try_run(target, &format!("INSERT INTO {table} VALUES {refused}")).await;
        assert!(done.is_err(), "{refused}");
    }
    run(target, &format!("INSERT INTO {table} VALUES (6, 'x')")).await;
    run(target, &format!("DELETE FROM {table} WHERE id = 6")).await;
}

async fn assert_partitions(lab: &Lab, source: &mut MySqlConnection, target: &mut MySqlConnection) {
    let sql = format!(
        "SELECT TABLE_NAME, PARTITION_ORDINAL_POSITION, PARTITION_NAME, PARTITION_METHOD, \
         LOWER(REPLACE(PARTITION_EXPRESSION, '`', '')) \
         FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = '{}' AND PARTITION_NAME IS NOT NULL \
         ORDER BY 1, 2",
        lab.database
    );
    assert_same(texts(source, &sql).await, texts(target, &sql).await);
    let rows = format!(
        "SELECT a FROM {}.by_list PARTITION (p0) ORDER BY a",
        lab.database
    );
    assert_eq!(texts(source, &rows).await, texts(target, &rows).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_the_target_counts_come_after_all_of_the_source() {
    let lab = Lab::new("counters").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    for sql in [
        "CREATE TABLE counted (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, v INT)",
        "CREATE TABLE small (id TINYINT AUTO_INCREMENT PRIMARY KEY, v INT)",
        "CREATE TABLE random (id BIGINT AUTO_RANDOM(5) PRIMARY KEY, v INT)",
        "CREATE TABLE random_unsigned (id BIGINT UNSIGNED AUTO_RANDOM(3, 54) PRIMARY KEY, v INT)",
        "CREATE TABLE one_by_one (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_ID_CACHE 1",
        "CREATE TABLE gaps (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_ID_CACHE 100",
        "CREATE TABLE cut (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS 3",
        "CREATE TABLE raised (id INT AUTO_INCREMENT PRIMARY KEY, v INT)",
        "CREATE TABLE moved (id INT AUTO_INCREMENT PRIMARY KEY, v INT)",
        "CREATE TABLE random_raised (id BIGINT AUTO_RANDOM(5) PRIMARY KEY, v INT)",
    ] {
        run(&mut source, sql).await;
    }
    let tables = [
        "counted",
        "small",
        "random",
        "random_unsigned",
        "one_by_one",
        "gaps",
        "cut",
        "raised",
        "moved",
        "random_raised",
    ];
    for table in tables {
        run(
            &mut source,
            &format!("INSERT INTO {table} (v) VALUES (1), (2), (3)"),
        )
        .await;
    }
    // Handed out and gone again before the load.
    run(&mut source, "DELETE FROM counted WHERE id = 3").await;
    lab.create_feed();
    let mut migrating = follow(&lab);
    for table in tables {
        run(
            &mut source,
            &format!("INSERT INTO {table} (v) SELECT v + 10 FROM {table}"),
        )
        .await;
    }
    // Far above what the counters were when the tables were made: the feed must raise the target's.
    for sql in [
        "SET allow_auto_random_explicit_insert = ON",
        "INSERT INTO raised VALUES (40000000, 1)",
        "UPDATE moved SET id = 50000000 WHERE id = 1",
        "INSERT INTO cut VALUES (60000000, 1), (60000002, 1)",
        "INSERT INTO random_raised VALUES ((31 << 58) + 70000000, 1)",
    ] {
        run(&mut source, sql).await;
    }
    lab.assert_check_equal();
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    for table in tables {
        let highest = format!("SELECT MAX(id) FROM {}.{table}", lab.database);
        let number = |rows: Vec<Vec<Option<String>>>| -> u64 {
            let cell = rows[0][0].clone().expect("a number");
            cell.parse().expect("a number")
        };
        let before = number(texts(&mut source, &highest).await);
        run(
            &mut target,
            &format!("INSERT INTO {}.{table} (v) VALUES (99)", lab.database),
        )
        .await;
        let given = number(texts(&mut target, &highest).await);
        assert!(given > before, "{table}: {given} after {before}");
        let limit = if table.starts_with("random") && table != "random_unsigned" {
            i64::MAX as u64
        } else {
            1 << 60
        };
        assert!(given < limit, "{table}: {given} leaves no room");
    }
}

/// Allows what foreign keys and views need beside the usual grants.
pub async fn grant(lab: &Lab, target: &mut MySqlConnection, what: &str) {
    run(
        target,
        &format!("GRANT {what} ON {}.* TO {USER}", lab.database),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_10_foreign_keys_are_made_after_the_load_and_never_fire_on_what_is_applied() {
    let lab = Lab::new("foreign").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    prepare(&lab, &mut source).await;
    for sql in [
        "CREATE TABLE parent (a INT PRIMARY KEY, b INT, UNIQUE KEY ub (b))",
        "CREATE TABLE child (a INT PRIMARY KEY, b INT, c INT, \
         CONSTRAINT `f``k` FOREIGN KEY (b) REFERENCES parent (b) ON DELETE CASCADE ON UPDATE SET NULL, \
         FOREIGN KEY (c) REFERENCES child (a))",
        "CREATE TABLE another (a INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (a))",
        "CREATE TABLE third (a INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (a))",
        "INSERT INTO parent VALUES (1, 10), (2, 20), (3, 30), (4, 40)",
        "INSERT INTO child VALUES (1, 10, NULL), (2, 20, 4), (3, 30, 4), (4, 40, NULL)",
        "INSERT INTO third VALUES (1, 4)",
    ] {
        run(&mut source, sql).await;
    }
    lab.create_feed();
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 0, "{}", precheck.stdout);
    assert!(
        precheck.stdout.contains("shows no REFERENCES on"),
        "{}",
        precheck.stdout
    );
    grant(&lab, &mut target, "ALTER, REFERENCES").await;
    let precheck = lab.run(&["precheck"]);
    assert!(!precheck.stdout.contains("shows no"), "{}", precheck.stdout);
    let mut migrating = follow(&lab);
    // The child that the source keeps under a key of its parent's former value is moved by the
    // source in the same transaction as the parent: the target must not do it a second time.
    for sql in [
        "DELETE FROM parent WHERE a = 2",
        "UPDATE parent SET b = 31 WHERE a = 3",
        "BEGIN",
        "DELETE FROM parent WHERE a = 1",
        "INSERT INTO parent VALUES (1, 10)",
        "INSERT INTO child VALUES (9, 10, NULL)",
        "COMMIT",
        "UPDATE parent SET a = a WHERE a = 4",
        "UPDATE third SET p = NULL",
        "UPDATE parent SET a = 40 WHERE a = 4",
    ] {
        run(&mut source, sql).await;
    }
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    let rules = "SELECT k.TABLE_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, \
                 REPLACE(r.UPDATE_RULE, 'NO ACTION', 'RESTRICT'), REPLACE(r.DELETE_RULE, 'NO ACTION', 'RESTRICT') \
                 FROM information_schema.KEY_COLUMN_USAGE k JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
                 ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.TABLE_NAME = k.TABLE_NAME \
                 AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME \
                 WHERE k.REFERENCED_TABLE_NAME IS NOT NULL AND k.TABLE_SCHEMA = '{}' ORDER BY 1, 2";
    let rules = rules.replace("{}", &lab.database);
    let keys = texts(&mut target, &rules).await;
    assert_eq!(texts(&mut source, &rules).await, keys);
    assert_eq!(keys.len(), 4);
    // They do hold others.
    let orphan = format!("INSERT INTO {}.another VALUES (1, 77)", lab.database);
    assert!(try_run(&mut target, &orphan).await.is_err());
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
