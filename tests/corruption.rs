//! What somebody changes behind rowproof's back is found, and nothing else is.

use crate::lab::Lab;
use std::collections::BTreeSet;

/// How often each kind of corruption is made and must be found.
const ROUNDS: u32 = 50;

/// The writers leave alone every row whose number is divisible by this.
const KEEP: &str = "10";

#[tokio::test(flavor = "multi_thread")]
async fn every_corruption_is_found_and_nothing_else_fifty_times_under_live_writes() {
    let lab = Lab::new("corrupt").await;
    lab.create_shop(5_000, 11);
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    let mut writers = lab.start_writers(2, 150, &["--keep-modulus", KEEP]);
    migrating.wait_until_it_follows();
    for round in 0..ROUNDS {
        let seed = round.to_string();
        let made = made(&lab.corrupt("value,delete,extra,swap", KEEP, &seed));
        assert!(made.len() >= 4, "round {round}: {made:?}");
        let check = lab.run(&["check", "--json"]);
        assert_eq!(check.code, 1, "round {round}: {}", check.stdout);
        assert_eq!(found(&lab), made, "round {round}");
        let repaired = lab.run(&["repair", "--apply"]);
        assert_eq!(repaired.code, 0, "round {round}: {}", repaired.stderr);
    }
    lab.assert_check_equal();
    writers.end();
    lab.assert_check_equal();
    crate::plain_sql::assert_same_rows(&lab).await;
}

/// The rows that were made to differ, as table, key and kind.
type Rows = BTreeSet<(String, String, String)>;

/// Reads what `shop corrupt` says that it did: one document for each row.
fn made(text: &str) -> Rows {
    let word = |row: &serde_json::Value, name: &str| row[name].as_str().expect("a text").to_owned();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .map(|row: serde_json::Value| {
            (
                word(&row, "table"),
                word(&row, "key"),
                word(&row, "difference"),
            )
        })
        .collect()
}

/// Reads what rowproof knows to differ.
fn found(lab: &Lab) -> Rows {
    let diff = lab.run(&["diff", "--json"]).json();
    let word = |row: &serde_json::Value, name: &str| row[name].as_str().expect("a text").to_owned();
    let rows = diff["differences"].as_array().expect("differences");
    rows.iter()
        .map(|row| (word(row, "table"), word(row, "key"), word(row, "kind")))
        .collect()
}
