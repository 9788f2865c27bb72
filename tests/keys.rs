//! Keys of every type are paired exactly, whether both servers order them alike or not.

use crate::lab::{Lab, run, texts};
use crate::plain_sql::assert_same_rows;
use rowproof::chunk::{Key, Range};
use rowproof::database::{Catalog, Select, Server, Session, source_scan, target_scan};
use rowproof::schema::{Pairing, Table, TableName};
use sqlx::mysql::MySqlConnection;
use std::time::Duration;

/// Types whose values both servers order alike, each with keys up to the extremes.
const ORDERED: &[(&str, &str)] = &[
    (
        "BIGINT",
        "-9223372036854775808, -1, 0, 1, 9223372036854775807",
    ),
    (
        "BIGINT UNSIGNED",
        "0, 1, 9223372036854775808, 18446744073709551615",
    ),
    (
        "DECIMAL(65,30)",
        "0, 1, 1.5, -1.5, 0.000000000000000000000000000001, -0.000000000000000000000000000001, \
         99999999999999999999999999999999999.999999999999999999999999999999, \
         -99999999999999999999999999999999999.999999999999999999999999999999",
    ),
    (
        "DATE",
        "'0000-00-00', '0000-01-01', '1000-01-01', '2020-00-00', '2020-01-00', '2020-01-01', '9999-12-31'",
    ),
    (
        "DATETIME(6)",
        "'0000-00-00', '1000-01-01', '2020-01-00', '2020-01-01', '2020-01-01 00:00:00.000001', \
         '9999-12-31 23:59:59.999999'",
    ),
    (
        "TIMESTAMP(6)",
        "'0000-00-00', '1970-01-01 00:00:01', '2020-01-01 00:00:00.000001', \
         '2038-01-19 03:14:07.999999'",
    ),
    (
        "TIME(6)",
        "'-838:59:59', '-01:00:00.5', '-00:00:00.000001', '00:00:00', '00:00:00.000001', '10:00:00', \
         '838:59:59'",
    ),
    ("YEAR", "0, 1901, 1969, 1970, 2001, 2069, 2155"),
    (
        "BIT(64)",
        "0, 1, 255, 256, 65535, 9223372036854775807, 9223372036854775808, 18446744073709551615",
    ),
    ("BIT(1)", "0, 1"),
    (
        "BINARY(3)",
        "x'000000', x'000001', x'610000', x'616100', x'ffffff'",
    ),
    (
        "VARBINARY(5)",
        "'', x'00', x'0000', x'61', x'6100', x'6120', x'ff', x'ffff'",
    ),
    (
        "VARCHAR(9) COLLATE utf8mb4_bin",
        "'', 'a', 'A', CONCAT('a', CHAR(1)), CONCAT('a ', CHAR(1)), 'a!', 'é', 'ß', 'ss', '😀', '�'",
    ),
    (
        "CHAR(9) COLLATE utf8mb4_bin",
        "'', 'a', 'A', CONCAT('a', CHAR(9)), 'ab', 'z', '中'",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn both_servers_find_the_same_rows_in_every_range_of_every_ordered_type() {
    let lab = Lab::new("ranges").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    for (place, (key, values)) in ORDERED.iter().enumerate() {
        for connection in [&mut source, &mut target] {
            run(connection, "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'").await;
            run(connection, &format!("USE {}", lab.database)).await;
            for (name, columns) in [
                ("one", format!("k {key} PRIMARY KEY")),
                ("two", format!("k {key}, j INT, PRIMARY KEY (k, j)")),
            ] {
                run(
                    connection,
                    &format!("CREATE TABLE {name}{place} ({columns})"),
                )
                .await;
            }
            let rows: Vec<String> = split(values)
                .iter()
                .map(|value| format!("({value})"))
                .collect();
            let insert = format!("INSERT INTO one{place} VALUES {}", rows.join(", "));
            run(connection, &insert).await;
            let insert = format!(
                "INSERT INTO two{place} SELECT k, j FROM one{place}, \
                                  (SELECT -1 AS j UNION ALL SELECT 7) AS numbers"
            );
            run(connection, &insert).await;
        }
        for name in ["one", "two"] {
            let table = model(&lab, &format!("{name}{place}")).await;
            assert_eq!(table.pairing(), Pairing::Ranges, "{key}");
            assert_ranges(&mut source, &mut target, &table).await;
        }
    }
}

/// Asserts that the ranges between all neighbours cut the table alike on both sides, and that each
/// end belongs into one range.
async fn assert_ranges(source: &mut MySqlConnection, target: &mut MySqlConnection, table: &Table) {
    let whole = Range::default();
    let keys: Vec<Key> = rows(source, &whole.source_sql(table, Some(1_000)))
        .await
        .into_iter()
        .map(Key::new)
        .collect();
    assert!(keys.len() > 1);
    for first in 0..=keys.len() {
        for last in first..=keys.len() {
            let range = Range {
                after: first.checked_sub(1).map(|place| keys[place].clone()),
                up_to: keys.get(last).cloned(),
            };
            let wanted = &keys[first..(last + 1).min(keys.len())];
            let on_source = rows(source, &range.source_sql(table, Some(1_000))).await;
            let on_source: Vec<Key> = on_source.into_iter().map(Key::new).collect();
            assert_eq!(on_source, wanted, "{} {range:?}", table.name);
            let mut on_target = rows(target, &range.target_sql(table, None)).await;
            let mut on_source: Vec<_> = wanted.iter().map(|key| key.cells().to_vec()).collect();
            on_target.sort();
            on_source.sort();
            assert_eq!(on_target, on_source, "{} {range:?}", table.name);
        }
    }
    // Each key is found by itself, as the batch proof looks it up.
    for key in &keys {
        let mut packed = rowproof::row::Rows::new();
        packed.push_row(key.cells().iter().map(|cell| Some(cell.as_slice())));
        let condition = rowproof::apply::lookup_condition(table, [packed.packed(0)]);
        let on_source = source_scan(table, Some(&condition));
        let on_target = target_scan(table, Some(&condition), None);
        assert_eq!(rows(source, &on_source).await, [key.cells().to_vec()]);
        assert_eq!(rows(target, &on_target).await, [key.cells().to_vec()]);
    }
}

/// Reads rows of columns that are never NULL.
async fn rows(connection: &mut MySqlConnection, select: &Select) -> Vec<Vec<Vec<u8>>> {
    use sqlx::{AssertSqlSafe, Row};
    let found = sqlx::raw_sql(AssertSqlSafe(select.sql.clone()))
        .fetch_all(connection)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", select.sql));
    let cell = |row: &sqlx::mysql::MySqlRow, column: usize| {
        let bytes: &[u8] = row.try_get_unchecked(column).expect("a value");
        bytes.to_vec()
    };
    found
        .iter()
        .map(|row| (0..row.len()).map(|column| cell(row, column)).collect())
        .collect()
}

/// Reads the definition of a table as rowproof does.
async fn model(lab: &Lab, name: &str) -> Table {
    let text = lab.task_text().replace(crate::lab::USER, "root");
    let text = text.replace("password_env = \"ROWPROOF_TEST_PASSWORD\"", "");
    let task = rowproof::task::Task::parse(&text).expect("a task");
    let mut source = Session::connect(&task.source, Server::TiDb)
        .await
        .expect("a session");
    let catalog = Catalog::read(&mut source, &task.scope)
        .await
        .expect("a catalog");
    let wanted = TableName::new(&lab.database, name);
    catalog.find(&wanted).expect("the table").clone()
}

/// Splits at commas outside parentheses.
fn split(values: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for character in values.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("a part").push(character);
    }
    parts
}

/// Tables whose keys the servers may order differently, each with the key of row n.
const UNORDERED: &[(&str, &str)] = &[
    (
        "ci (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)",
        "CONCAT('key-', n, IF(n % 2, CHAR(1), 'ß'))",
    ),
    (
        "ci_char (k CHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)",
        "CONCAT(IF(n % 2, 'a', 'É'), n)",
    ),
    ("floats (k DOUBLE PRIMARY KEY, v INT)", "n / 3 - 5"),
    ("narrow (k FLOAT PRIMARY KEY, v INT)", "n / 3 - 5"),
    (
        "labels (k ENUM('z','a','m') NOT NULL, s SET('y','x') NOT NULL, n INT NOT NULL, v INT, PRIMARY KEY (k, s, n))",
        "ELT(n % 3 + 1, 'z', 'a', 'm'), ELT(n % 4 + 1, '', 'x', 'y', 'y,x'), n",
    ),
];

/// More rows than a chunk has, so that chunks end among them.
const ROWS: u32 = 12_000;

#[tokio::test(flavor = "multi_thread")]
async fn keys_without_a_common_order_are_loaded_followed_proven_and_repaired() {
    let lab = Lab::new("buckets").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut source, "CREATE TABLE numbers (n INT PRIMARY KEY)").await;
    for from in (0..ROWS).step_by(4_000) {
        let rows: Vec<String> = (from..from + 4_000).map(|n| format!("({n})")).collect();
        run(
            &mut source,
            &format!("INSERT INTO numbers VALUES {}", rows.join(",")),
        )
        .await;
    }
    for (table, key) in UNORDERED {
        run(&mut source, &format!("CREATE TABLE {table}")).await;
        let name = table.split(' ').next().expect("a name");
        run(
            &mut source,
            &format!("INSERT INTO {name} SELECT {key}, n FROM numbers"),
        )
        .await;
        let model = model(&lab, name).await;
        assert_eq!(model.pairing(), Pairing::Buckets, "{name}");
    }
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    assert_verdicts(&lab, 0);
    // Changes, among them one of a key to another that the collation takes for the same.
    for (table, _) in UNORDERED {
        let name = table.split(' ').next().expect("a name");
        run(
            &mut source,
            &format!("UPDATE {name} SET v = v + 1 WHERE v % 7 = 0"),
        )
        .await;
        run(&mut source, &format!("DELETE FROM {name} WHERE v % 11 = 5")).await;
    }
    run(&mut source, "UPDATE ci SET k = UPPER(k) WHERE v % 5 = 0").await;
    run(
        &mut source,
        "UPDATE floats SET k = -k - 10000 WHERE v % 5 = 0",
    )
    .await;
    assert_verdicts(&lab, 0);
    assert_same_rows(&lab).await;
    // What somebody does to the target is found: a letter's case, a missing row, an extra one.
    run(&mut target, &format!("USE {}", lab.database)).await;
    run(&mut target, "UPDATE ci SET k = UPPER(k) WHERE v = 2").await;
    run(&mut target, "DELETE FROM floats WHERE v = 2").await;
    run(&mut target, "INSERT INTO narrow VALUES (-77.5, 1)").await;
    run(&mut target, "UPDATE labels SET v = 0 WHERE n = 13").await;
    assert_verdicts(&lab, 1);
    let kinds = differences(&lab);
    let expected = [
        ("ci", "extra"),
        ("ci", "missing"),
        ("floats", "missing"),
        ("labels", "changed"),
        ("narrow", "extra"),
    ];
    let expected: Vec<(String, String)> = expected
        .map(|(table, kind)| (table.to_owned(), kind.to_owned()))
        .to_vec();
    assert_eq!(kinds, expected);
    let repaired = lab.run(&["repair", "--apply"]);
    assert_eq!(repaired.code, 0, "{}", repaired.stderr);
    assert_verdicts(&lab, 0);
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_a_load_by_buckets_that_is_killed_goes_on_and_writes_nothing_twice() {
    let lab = Lab::new("bucketkill").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE t (k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)",
    )
    .await;
    run(&mut source, "CREATE TABLE copies (a VARCHAR(40), b INT)").await;
    for from in (0..40_000).step_by(4_000) {
        let rows: Vec<String> = (from..from + 4_000)
            .map(|n| format!("('key {n}', {})", n % 3))
            .collect();
        for table in ["t", "copies"] {
            run(
                &mut source,
                &format!("INSERT INTO {table} VALUES {}", rows.join(",")),
            )
            .await;
        }
    }
    run(&mut source, "INSERT INTO copies SELECT * FROM copies").await;
    lab.create_feed();
    for kill in 0..8 {
        let mut migrating = lab.start_migrate();
        tokio::time::sleep(Duration::from_millis(400 + 200 * kill)).await;
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        migrating.kill();
    }
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    assert_verdicts(&lab, 0);
    assert_same_rows(&lab).await;
    let mut target = lab.target().await;
    let count = format!("SELECT COUNT(*) FROM {}.copies", lab.database);
    assert_eq!(
        texts(&mut target, &count).await,
        [[Some("80000".to_owned())]]
    );
}

/// Tables whose keys are whole numbers, and their first key.
const NUMBERED: [(&str, &str, i128); 4] = [
    (
        "hashed",
        "k INT PRIMARY KEY, v INT) PARTITION BY HASH (k) PARTITIONS 4",
        -700,
    ),
    ("lowest", "k BIGINT PRIMARY KEY, v INT)", i64::MIN as i128),
    (
        "middle",
        "k BIGINT UNSIGNED PRIMARY KEY, v INT)",
        i64::MAX as i128 - 749,
    ),
    (
        "topmost",
        "k BIGINT UNSIGNED PRIMARY KEY, v INT)",
        u64::MAX as i128 - 1_498,
    ),
];

/// Runs of whole numbers are deleted as ranges, and a range that held more would take rows that the feed never
/// told of.
#[tokio::test(flavor = "multi_thread")]
async fn runs_of_numbers_that_change_or_go_leave_what_stands_between_them() {
    let lab = Lab::new("runs").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut target, &format!("USE {}", lab.database)).await;
    for (name, columns, first) in NUMBERED {
        run(&mut source, &format!("CREATE TABLE {name} ({columns}")).await;
        let rows: Vec<String> = (0..1_500)
            .filter(|n| n % 100 != 99)
            .map(|n| format!("({}, {n})", first + n))
            .collect();
        let sql = format!("INSERT INTO {name} VALUES {}", rows.join(","));
        run(&mut source, &sql).await;
    }
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    // Somebody's row stands where the source has none.
    for (name, _, first) in NUMBERED {
        for n in [199, 599] {
            let sql = format!("INSERT INTO {name} VALUES ({}, {n})", first + n);
            run(&mut target, &sql).await;
        }
    }
    for (name, _, _) in NUMBERED {
        for sql in [
            format!(
                "UPDATE {name} SET v = v + 1 WHERE v < 50 OR v >= 100 AND v < 1200 OR v >= 1450"
            ),
            format!("DELETE FROM {name} WHERE v > 300 AND v < 900"),
        ] {
            run(&mut source, &sql).await;
        }
    }
    assert_verdicts(&lab, 1);
    let left = NUMBERED.map(|(name, _, _)| vec![(name.to_owned(), "extra".to_owned()); 2]);
    assert_eq!(differences(&lab), left.concat());
    assert_eq!(lab.run(&["repair", "--apply"]).code, 0);
    assert_verdicts(&lab, 0);
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

/// Asserts that a check ends with this code.
pub fn assert_verdicts(lab: &Lab, code: i32) {
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, code, "{}\n{}", check.stdout, check.stderr);
}

/// Returns what rowproof knows to differ, as table and kind, sorted.
pub fn differences(lab: &Lab) -> Vec<(String, String)> {
    let diff = lab.run(&["diff", "--json"]).json();
    let word = |row: &serde_json::Value, name: &str| row[name].as_str().expect("a text").to_owned();
    let rows = diff["differences"].as_array().expect("differences");
    let mut kinds: Vec<_> = rows
        .iter()
        .map(|row| {
            let table = word(row, "table");
            let name = table.rsplit('.').next().unwrap_or_default().to_owned();
            (name, word(row, "kind"))
        })
        .collect();
    kinds.sort();
    kinds
}
