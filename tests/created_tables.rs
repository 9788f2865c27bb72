//! DDL in the stream: a created table is carried, one that appears otherwise gets a base of its own,
//! and everything else stops its table and says so.

use crate::lab::{Lab, run, texts, wait_until};
use crate::plain_sql::assert_same_rows;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_created_table_is_followed_and_an_altered_one_is_unproven() {
    let lab = Lab::new("ddl").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE steady (id INT PRIMARY KEY, v INT)",
    )
    .await;
    run(
        &mut source,
        "CREATE TABLE altered (id INT PRIMARY KEY, v INT)",
    )
    .await;
    run(&mut source, "INSERT INTO altered VALUES (1, 1)").await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    run(&mut source, "INSERT INTO altered VALUES (2, 2)").await;
    run(
        &mut source,
        "CREATE TABLE created (id INT PRIMARY KEY, name VARCHAR(20) UNIQUE)",
    )
    .await;
    run(&mut source, "INSERT INTO created VALUES (1, 'a'), (2, 'b')").await;
    run(&mut source, "UPDATE created SET name = 'c' WHERE id = 2").await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;

    run(&mut source, "INSERT INTO altered VALUES (3, 3)").await;
    run(
        &mut source,
        "ALTER TABLE altered ADD COLUMN w INT DEFAULT 9",
    )
    .await;
    run(&mut source, "INSERT INTO altered VALUES (4, 4, 4)").await;
    run(&mut source, "INSERT INTO steady VALUES (5, 5)").await;
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 2, "{}", check.stdout);
    let tables = check.json()["tables"].clone();
    let verdict = |name: &str| {
        let tables = tables.as_array().expect("tables");
        let table = tables
            .iter()
            .find(|table| table["table"] == name)
            .expect("the table");
        (
            table["verdict"].clone(),
            table["detail"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(verdict("steady").0, "equal");
    assert_eq!(verdict("created").0, "equal");
    let (word, detail) = verdict("altered");
    assert_eq!(word, "unproven");
    assert!(detail.contains("ADD COLUMN"), "{detail}");
    // What came before the DDL is there, what came after it is not.
    let rows = texts(
        &mut target,
        &format!("SELECT id FROM {}.altered ORDER BY id", lab.database),
    )
    .await;
    assert_eq!(rows.len(), 3);
    // A restart remembers it.
    migrating.kill();
    let mut again = lab.start_migrate();
    assert_eq!(lab.run(&["check", "--json"]).code, 2);
    assert_eq!(again.stop(), 2, "{}", again.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_appears_by_renaming_gets_a_base_of_its_own() {
    let lab = Lab::new("rename").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut source, "CREATE TABLE first (id INT PRIMARY KEY)").await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    run(&mut source, "INSERT INTO first VALUES (1)").await;
    run(&mut source, "RENAME TABLE first TO second").await;
    run(&mut source, "INSERT INTO second VALUES (2)").await;
    let second = format!("{}.second", lab.database);
    wait_until(
        "it has a base and is equal",
        Duration::from_secs(120),
        || {
            let status = lab.run(&["status", "--json"]).json();
            let tables = status["tables"].as_array()?.iter();
            let mut second = tables.filter(|of| of["table"] == second.as_str());
            (second.next()?["verdict"] == "equal").then_some(())
        },
    );
    run(&mut source, "INSERT INTO second VALUES (3)").await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
}
