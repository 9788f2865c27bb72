//! Every plain column type, by both roads: as loaded, and as followed.

use crate::lab::{Lab, run, texts};
use crate::plain_sql::assert_same_rows;

/// Each type with values that a careless road would change.
const TYPES: &[(&str, &[&str])] = &[
    ("TINYINT", &["-128", "127", "0"]),
    ("TINYINT(1)", &["0", "1", "7"]),
    ("SMALLINT UNSIGNED", &["0", "65535"]),
    ("MEDIUMINT", &["-8388608", "8388607"]),
    ("INT(5) ZEROFILL", &["42", "4294967295"]),
    ("BIGINT", &["-9223372036854775808", "9007199254740993"]),
    ("BIGINT UNSIGNED", &["18446744073709551615"]),
    (
        "DECIMAL(65,30)",
        &[
            "-0.000000000000000000000000000001",
            "12345678901234567890123456789012345",
        ],
    ),
    ("DECIMAL(5,2)", &["0.10", "-0.00", "999.99"]),
    (
        "FLOAT",
        &["0.1", "-0e0", "16777216", "3.4028234663852886e38", "1e-45"],
    ),
    (
        "DOUBLE",
        &[
            "0.1",
            "-0e0",
            "1.7976931348623157e308",
            "5e-324",
            "9007199254740993",
        ],
    ),
    ("CHAR(5)", &["'ab'", "''", "'\u{1f600}'"]),
    (
        "VARCHAR(40)",
        &[
            "'a '",
            "''",
            "'it''s \\\\ \\n \\r \\t \\0 \\Z \"'",
            "'<&>\u{2028}\u{e9}'",
        ],
    ),
    ("VARCHAR(40) COLLATE utf8mb4_general_ci", &["'A'", "'a'"]),
    ("TEXT", &["'text with ''quotes'' and \u{4e2d}'", "''"]),
    ("LONGTEXT", &["REPEAT('long ', 5000)"]),
    ("BINARY(4)", &["'a'", "x'00ff5c27'", "x'00000000'"]),
    (
        "VARBINARY(30)",
        &[
            "x'00ff5c270a'",
            "''",
            "x'c2a0e4b8ad'",
            "x'09080b0c0d071b7f80'",
        ],
    ),
    ("BLOB", &["x'00ff'", "''"]),
    ("LONGBLOB", &["REPEAT(x'00ff27', 5000)"]),
    (
        "DATE",
        &[
            "'2024-02-29'",
            "'0000-00-00'",
            "'1000-01-01'",
            "'9999-12-31'",
        ],
    ),
    (
        "TIME(3)",
        &["'-838:59:59.000'", "'838:59:59'", "'00:00:00.001'"],
    ),
    (
        "DATETIME(6)",
        &["'2024-02-29 23:59:59.999999'", "'0000-00-00 00:00:00'"],
    ),
    (
        "TIMESTAMP(3) NULL",
        &["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'"],
    ),
    ("YEAR", &["1901", "2155", "0"]),
    ("BIT(1)", &["b'1'", "b'0'"]),
    ("BIT(64)", &["18446744073709551615", "1"]),
    ("ENUM('red','it''s','x,y')", &["'red'", "'it''s'", "'x,y'"]),
    ("SET('a','b','c')", &["''", "'a,c'"]),
    // By number: 0 is the error value or nothing, and reads as the empty label does.
    ("ENUM('','a')", &["0", "1", "2"]),
    ("SET('a','','b')", &["0", "1", "2", "3", "6", "7"]),
    (
        "VECTOR(3)",
        &[
            "'[0.1,-0,16777217]'",
            "'[3.4028234663852886e38,1.1754943508222875e-38,1e-45]'",
            "'[0,-0.30000001192092896,123456.789]'",
        ],
    ),
    (
        "JSON",
        &[
            "'{\"b\": 1, \"aa\": [1, 2.50, null, true, \"\\\\u00e9\"], \"a\": {}}'",
            "'9007199254740993'",
            "'18446744073709551615'",
            "'1.0'",
            "'\"text\"'",
            "'[]'",
            "'1e100'",
        ],
    ),
];

fn tables() -> Vec<(String, String, Vec<String>)> {
    let table = |(place, (kind, values)): (usize, &(&str, &[&str]))| {
        let name = format!("t{place}");
        let create = format!("CREATE TABLE {name} (id INT PRIMARY KEY, v {kind}, w INT DEFAULT 5)");
        let values = values.iter().copied().chain(["NULL"]).enumerate();
        let rows = values
            .map(|(id, value)| format!("({id}, {value}, 1)"))
            .collect();
        (name, create, rows)
    };
    TYPES.iter().enumerate().map(table).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plain_type_survives_load_and_feed() {
    let lab = Lab::new("types").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut source, "SET sql_mode = ''").await;
    for (name, create, rows) in tables() {
        run(&mut source, &create).await;
        run(
            &mut source,
            &format!("INSERT INTO {name} VALUES {}", rows.join(", ")),
        )
        .await;
    }
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    // Every row once more through the feed: inserted under a new key, updated, and deleted.
    for (name, _, _) in tables() {
        for sql in [
            format!("INSERT INTO {name} SELECT id + 100, v, w FROM {name}"),
            format!("UPDATE {name} SET w = 2 WHERE id >= 100"),
            format!("UPDATE {name} SET id = id + 1000 WHERE id = 101"),
            format!("DELETE FROM {name} WHERE id = 1"),
        ] {
            run(&mut source, &sql).await;
        }
    }
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    batches_are_equal(&lab).await;
}

/// Asserts that no batch was found different or unproven on the way.
async fn batches_are_equal(lab: &Lab) {
    let status = lab.run(&["status", "--json"]).stdout;
    assert!(
        !status.contains("\"different\"") && !status.contains("\"unproven\""),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_arrive_whole() {
    let lab = Lab::new("schema").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE `o``dd name` (`a b` INT NOT NULL DEFAULT 5 COMMENT 'it''s \\\\ a key', \
         name VARCHAR(30) NOT NULL DEFAULT 'x''y', b BIT(3) DEFAULT b'101', \
         e ENUM('p','q') NOT NULL DEFAULT 'q', at DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3), \
         d DECIMAL(9,3) DEFAULT '1.500', t TEXT, PRIMARY KEY (`a b`), \
         UNIQUE KEY by_name (name), KEY by_text (t(10), d)) COMMENT 'a \"table\"'",
    )
    .await;
    run(
        &mut source,
        "INSERT INTO `o``dd name` (`a b`, name) VALUES (1, 'n')",
    )
    .await;
    lab.create_feed();
    let migrated = lab.run(&["migrate", "--until", "load"]);
    assert_eq!(migrated.code, 0, "{}", migrated.stderr);
    let mut target = lab.target().await;
    // OceanBase keeps the precision of CURRENT_TIMESTAMP(3) and does not list it.
    let columns = format!(
        "SELECT COLUMN_NAME, REPLACE(COLUMN_DEFAULT, 'CURRENT_TIMESTAMP(3)', 'CURRENT_TIMESTAMP'), IS_NULLABLE, COLUMN_COMMENT \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '{}' ORDER BY ORDINAL_POSITION",
        lab.database
    );
    let (left, right) = (
        texts(&mut source, &columns).await,
        texts(&mut target, &columns).await,
    );
    assert_eq!(left, right);
    let indexes = format!(
        "SELECT INDEX_NAME, NON_UNIQUE, SEQ_IN_INDEX, COLUMN_NAME, SUB_PART \
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = '{}' ORDER BY 1, 3",
        lab.database
    );
    let (mut left, mut right) = (
        texts(&mut source, &indexes).await,
        texts(&mut target, &indexes).await,
    );
    left.sort();
    right.sort();
    assert_eq!(left, right);
    assert_same_rows(&lab).await;
}

/// The keys that signed arithmetic or doubles would lose.
const HIGH: [u64; 5] = [0, 1, (1 << 63) - 1, 1 << 63, u64::MAX];

/// BIT(64) and BIGINT UNSIGNED with bit 63, as values and as keys, and the 64th member of a SET.
#[tokio::test(flavor = "multi_thread")]
async fn the_highest_bit_survives_load_feed_check_and_repair() {
    let lab = Lab::new("highest").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    run(&mut source, &format!("USE {}", lab.database)).await;
    let members: Vec<String> = (0..64).map(|of| format!("'m{of}'")).collect();
    let members = members.join(", ");
    for create in [
        format!("CREATE TABLE number (k BIGINT UNSIGNED PRIMARY KEY, b BIT(64), s SET({members}))"),
        "CREATE TABLE bits (k BIT(64) PRIMARY KEY, b BIGINT UNSIGNED, s INT)".to_owned(),
    ] {
        run(&mut source, &create).await;
    }
    // Half of the keys come by the load, all of them change in the feed, and some go.
    let insert = async |source: &mut sqlx::mysql::MySqlConnection, keys: &[u64]| {
        for key in keys {
            let row = format!("INSERT INTO number VALUES ({key}, {key}, 'm63')");
            run(source, &row).await;
            let row = format!("INSERT INTO bits VALUES ({key}, {key}, 1)");
            run(source, &row).await;
        }
    };
    insert(&mut source, &HIGH[2..]).await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    insert(&mut source, &HIGH[..2]).await;
    for sql in [
        "UPDATE number SET b = 9223372036854775808, s = 'm0,m63' WHERE k = 18446744073709551615",
        "UPDATE bits SET b = 18446744073709551614, s = 2 WHERE k = 18446744073709551615",
        "UPDATE number SET k = 18446744073709551614 WHERE k = 9223372036854775808",
        "UPDATE bits SET k = 18446744073709551614 WHERE k = 9223372036854775808",
        "DELETE FROM number WHERE k = 9223372036854775807",
        "DELETE FROM bits WHERE k = 9223372036854775807",
    ] {
        run(&mut source, sql).await;
    }
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    lab.assert_batches_equal().await;

    // A lost bit is seen, named by its key, and mended.
    run(&mut target, &format!("USE {}", lab.database)).await;
    for sql in [
        "UPDATE number SET b = b - 9223372036854775808 WHERE k = 18446744073709551615",
        "UPDATE number SET s = '' WHERE k = 18446744073709551614",
        "UPDATE bits SET b = 9223372036854775806 WHERE k = 18446744073709551615",
    ] {
        run(&mut target, sql).await;
    }
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 1, "{}", check.stdout);
    let diff = lab.run(&["diff"]).stdout;
    for key in [u64::MAX, u64::MAX - 1] {
        assert!(diff.contains(&format!("k = {key}")), "{diff}");
    }
    let repair = lab.run(&["repair", "--apply"]);
    assert_eq!(repair.code, 0, "{}{}", repair.stdout, repair.stderr);
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
