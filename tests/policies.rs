//! Policies: what they accept is equal and says so, what they do not is found, and none is misspelt
//! unseen.

use crate::lab::{Lab, run, wait_until};
use std::time::Duration;

/// One policy of each sort, by column and by type.
const POLICIES: &str = r#"
    [[policies]]
    columns = ["DB.prices.note"]
    ignore_trailing_spaces = true
    [[policies]]
    columns = ["DB.*.seen"]
    ignore = true
    [[policies]]
    types = ["double"]
    float_ulps = 1
    [[policies]]
    types = ["float"]
    float_relative = 1e-5
    [[policies]]
    types = ["json"]
    json_numbers_by_value = true
"#;

fn follow(migrating: &mut crate::lab::Migrating) {
    migrating.wait_until_it_follows();
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_2_what_a_policy_accepts_is_equal_and_every_result_says_so() {
    let lab = Lab::new("policies").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE prices (id INT PRIMARY KEY, d DOUBLE, f FLOAT, note VARCHAR(20), \
         j JSON, seen DATETIME, exact INT)",
    )
    .await;
    run(
        &mut source,
        "CREATE TABLE strict (id INT PRIMARY KEY, v INT)",
    )
    .await;
    run(
        &mut source,
        "INSERT INTO prices VALUES (1, 0.3, 0.1, 'a', '{\"n\": 1}', '2024-01-01', 5), \
         (2, 1, 1, 'b', '[2]', NULL, 6)",
    )
    .await;
    run(&mut source, "INSERT INTO strict VALUES (1, 1)").await;
    lab.create_feed();
    let policies = POLICIES.replace("DB", &lab.database);
    lab.write_task(&format!("{}{policies}", lab.task_text()));
    let mut migrating = lab.start_migrate();
    follow(&mut migrating);

    let mut target = lab.target().await;
    run(&mut target, &format!("USE {}", lab.database)).await;
    run(
        &mut target,
        "UPDATE prices SET d = 0.30000000000000004e0, f = 0.1000001e0, note = 'a  ', \
         j = '{\"n\": 1.0}', seen = NULL WHERE id = 1",
    )
    .await;
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 0, "{}{}", check.stdout, check.stderr);
    let tables = check.json()["tables"].clone();
    let of = |name: &str| {
        let mut rows = tables.as_array().expect("tables").iter();
        rows.find(|row| row["table"] == name)
            .expect("a table")
            .clone()
    };
    assert_eq!(of("prices")["policies"].as_array().map(Vec::len), Some(5));
    assert_eq!(of("prices")["counts"]["relaxed"], 1);
    assert!(of("strict").get("policies").is_none());
    for command in ["check", "status"] {
        let text = lab.run(&[command]).stdout;
        assert!(text.contains(", relaxed)"), "{command}: {text}");
        assert!(
            text.contains("note: trailing spaces ignored"),
            "{command}: {text}"
        );
    }
    let status = lab.run(&["status", "--json"]).stdout;
    assert!(status.contains("seen: not compared"), "{status}");

    // What no policy accepts is found, and only its columns are named.
    run(
        &mut target,
        "UPDATE prices SET exact = 7, d = 0.30001 WHERE id = 1",
    )
    .await;
    assert_eq!(lab.run(&["check"]).code, 1);
    let diff = lab.run(&["diff", "--json"]).json();
    let columns = diff["differences"][0]["columns"]
        .as_array()
        .expect("columns")
        .clone();
    let differing: Vec<_> = columns
        .iter()
        .filter(|column| column["differs"] == true)
        .map(|column| column["column"].as_str().expect("a name"))
        .collect();
    assert_eq!(differing, ["d", "exact"]);
    run(
        &mut target,
        "UPDATE prices SET exact = 5, d = 0.3 WHERE id = 1",
    )
    .await;
    assert_eq!(lab.run(&["check"]).code, 0);

    // A verdict does not mix the policies of the running migration with others.
    lab.write_task(&lab.task_text());
    let other = lab.run(&["check", "--json"]);
    assert_eq!(other.code, 2, "{}", other.stdout);
    assert!(other.stdout.contains("other policies"), "{}", other.stdout);
    assert_eq!(
        migrating.stop(),
        2,
        "the table is unproven: {}",
        migrating.log()
    );
    let mut migrating = lab.start_migrate();
    follow_again(&mut migrating, &lab);
    let strict = lab.run(&["check", "--json"]);
    assert_eq!(
        strict.code, 1,
        "without policies it differs: {}",
        strict.stdout
    );
    assert!(!strict.stdout.contains("\"policies\""), "{}", strict.stdout);
}

/// Waits until the restarted migration has taken up the table with the policies of the task file.
fn follow_again(migrating: &mut crate::lab::Migrating, lab: &Lab) {
    wait_until("it follows again", Duration::from_secs(60), || {
        if let Some(code) = migrating.ended() {
            panic!("it ended with {code}:\n{}", migrating.log());
        }
        let check = lab.run(&["check", "--json"]);
        (!check.stdout.contains("other policies")).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_for_no_column_is_named_before_anything_starts() {
    let lab = Lab::new("policy_names").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE t (id INT PRIMARY KEY, price DOUBLE)",
    )
    .await;
    for column in ["pirce", "id"] {
        let policy = format!(
            "\n[[policies]]\ncolumns = [\"{}.t.{column}\"]\nfloat_ulps = 1\n",
            lab.database
        );
        lab.write_task(&format!("{}{policy}", lab.task_text()));
        let named = format!("column {}.t.{column}", lab.database);
        let precheck = lab.run(&["precheck"]);
        assert!(
            precheck.code != 0 && precheck.stdout.contains(&named),
            "{}",
            precheck.stdout
        );
        let migrate = lab.run(&["migrate", "--until", "schema"]);
        assert!(
            migrate.code != 0 && migrate.stderr.contains(&named),
            "{}",
            migrate.stderr
        );
    }
}
