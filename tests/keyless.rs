//! Tables without a key are loaded, followed, proven and repaired as multisets.

use crate::keys::{assert_verdicts, differences};
use crate::lab::{Lab, run, texts};
use crate::plain_sql::assert_same_rows;
use std::time::Duration;

const TABLES: [&str; 3] = [
    "CREATE TABLE log (at DATETIME(3), who VARCHAR(20), what TEXT, amount DECIMAL(9,2), f FLOAT, \
     d DOUBLE, j JSON, e ENUM('x','y'), b BLOB)",
    "CREATE TABLE nullable (a INT, b VARCHAR(20), UNIQUE KEY (a))",
    "CREATE TABLE text_only (body LONGTEXT)",
];

const CHANGES: [&str; 12] = [
    "INSERT INTO log SELECT * FROM log WHERE amount < 30",
    "INSERT INTO log (who) VALUES (NULL), (NULL), ('new'), ('new'), ('new')",
    "UPDATE log SET who = 'WHO' WHERE amount BETWEEN 40 AND 60",
    "UPDATE log SET f = f + 1, d = -d, j = JSON_SET(j, '$.b', 1.0) WHERE amount BETWEEN 70 AND 80",
    "DELETE FROM log WHERE amount BETWEEN 10 AND 12 LIMIT 3",
    "INSERT INTO nullable VALUES (NULL, 'n'), (NULL, 'n'), (900, 'new')",
    "UPDATE nullable SET a = a + 1000 WHERE a BETWEEN 100 AND 150",
    "UPDATE nullable SET a = NULL WHERE a BETWEEN 160 AND 165",
    "DELETE FROM nullable WHERE a IS NULL LIMIT 2",
    "INSERT INTO text_only VALUES ('same'), ('same'), ('Same'), ('same '), (NULL), ('')",
    "DELETE FROM text_only WHERE body = 'same' LIMIT 1",
    "UPDATE text_only SET body = CONCAT(body, '!') WHERE body LIKE 'row 1%'",
];

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_loaded_followed_proven_and_repaired_by_their_number() {
    let lab = Lab::new("keyless").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    fill(&lab).await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    create_feed(&lab);
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    assert_verdicts(&lab, 0);
    for change in CHANGES {
        run(&mut source, change).await;
    }
    assert_verdicts(&lab, 0);
    assert_same_rows(&lab).await;
    let status = lab.run(&["status", "--json"]).json();
    assert_eq!(status["differing_rows"], 0, "{status}");

    // One copy too many, one too few, one that is another.
    run(&mut target, &format!("USE {}", lab.database)).await;
    run(
        &mut target,
        "INSERT INTO text_only VALUES ('same'), ('same')",
    )
    .await;
    run(&mut target, "DELETE FROM log WHERE who = 'new' LIMIT 1").await;
    run(&mut target, "UPDATE nullable SET b = 'N' WHERE a = 900").await;
    assert_verdicts(&lab, 1);
    let expected = [
        ("log", "missing"),
        ("nullable", "extra"),
        ("nullable", "missing"),
        ("text_only", "extra"),
        ("text_only", "extra"),
    ];
    let expected: Vec<(String, String)> = expected
        .map(|(table, kind)| (table.to_owned(), kind.to_owned()))
        .to_vec();
    assert_eq!(differences(&lab), expected);
    // The printed script mends what holds no JSON, and run twice it does no more.
    let script = lab.run(&["repair", "--table", &format!("{}.text_only", lab.database)]);
    let statements: Vec<&str> = script
        .stdout
        .lines()
        .filter(|line| line.starts_with("DELETE") || line.starts_with("INSERT"))
        .collect();
    assert_eq!(statements.len(), 2, "{}\n{}", script.stdout, script.stderr);
    for statement in statements.iter().chain(&statements) {
        run(&mut target, statement).await;
    }
    assert_verdicts(&lab, 1);
    assert_eq!(differences(&lab), expected[..3]);
    let repaired = lab.run(&["repair", "--apply"]);
    assert_eq!(repaired.code, 0, "{}", repaired.stderr);
    assert_verdicts(&lab, 0);
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_changes_of_copies_survive_kills_without_a_copy_too_many() {
    let lab = Lab::new("keylesskill").await;
    fill(&lab).await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    create_feed(&lab);
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    for round in 0..6_u64 {
        for change in &CHANGES[..6] {
            run(&mut source, change).await;
            run(&mut source, "DELETE FROM nullable WHERE a = 900").await;
        }
        tokio::time::sleep(Duration::from_millis(70 * round)).await;
        assert_eq!(migrating.ended(), None, "{}", migrating.log());
        migrating.kill();
        migrating = lab.start_migrate();
    }
    assert_verdicts(&lab, 0);
    assert_same_rows(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_2_without_force_replicate_nothing_is_said_that_the_feed_cannot_show() {
    let lab = Lab::new("notforced").await;
    fill(&lab).await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut source, "CREATE TABLE keyed (a INT PRIMARY KEY)").await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    run(&mut source, "INSERT INTO text_only VALUES ('lost')").await;
    run(&mut source, "INSERT INTO keyed VALUES (1)").await;
    // The change is missing, and whole reads say so; until then, no table is carried on.
    crate::lab::wait_until("the verdict is withdrawn", Duration::from_secs(60), || {
        let status = lab.run(&["status", "--json"]).json();
        let tables = status["tables"].as_array().cloned().unwrap_or_default();
        let verdict = |name: &str| {
            let name = format!("{}.{name}", lab.database);
            let table = tables.iter().find(|table| table["table"] == name);
            table.map(|table| table["verdict"].as_str().unwrap_or_default().to_owned())
        };
        let carried = verdict("keyed").as_deref() == Some("equal");
        let withdrawn = verdict("text_only").as_deref() == Some("unproven");
        (carried && withdrawn).then_some(())
    });
    assert_verdicts(&lab, 1);
    assert_eq!(
        differences(&lab),
        [("text_only".to_owned(), "missing".to_owned())]
    );
}

/// Makes the tables with copies of all kinds in them.
async fn fill(lab: &Lab) {
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    for table in TABLES {
        run(&mut source, table).await;
    }
    let log: Vec<String> = (0..300)
        .map(|n| {
            format!(
                "('2024-01-01 00:00:00.{:03}', 'who{}', REPEAT('text', {}), {}, 1.1, {n} / 3, \
                 '{{\"a\": {n}, \"bb\": [1, \"x\"]}}', 'y', x'00ff{:02x}')",
                n % 7,
                n % 5,
                n * 3,
                n % 100,
                n % 100
            )
        })
        .collect();
    let nullable: Vec<String> = (0..500).map(|n| format!("({n}, 'row {n}')")).collect();
    let texts_only: Vec<String> = (0..200).map(|n| format!("('row {}')", n % 20)).collect();
    for (table, rows) in [
        ("log", log),
        ("nullable", nullable),
        ("text_only", texts_only),
    ] {
        let insert = format!("INSERT INTO {table} VALUES {}", rows.join(", "));
        run(&mut source, &insert).await;
    }
    let count = texts(&mut source, "SELECT COUNT(*) FROM log").await;
    assert_eq!(count, [[Some("300".to_owned())]]);
}

/// Creates a feed that carries tables without a key.
fn create_feed(lab: &Lab) {
    lab.create_feed_with(&["--option", "force-replicate=true"]);
}
