//! What a target can suffer is found, row and column, and what only looks like it is not.
//!
//! The cases are data: fixtures/mutations, whose README says what the fields mean.

use crate::lab::{Lab, repository, run, try_run};
use serde::Deserialize;
use std::collections::BTreeSet;

/// How many corruptions and harmless differences the corpus must have at least.
const CORRUPTIONS_MIN: usize = 60;
const HARMLESS_MIN: usize = 20;

/// The settings in which sources and targets hold what a strict mode would refuse.
const SETTINGS: [&str; 2] = [
    "SET time_zone = '+00:00'",
    "SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    column: Option<String>,
    create: Option<String>,
    rows: Vec<String>,
    corrupt: Vec<String>,
    finds: Vec<String>,
}

impl Case {
    fn create(&self, table: &str) -> String {
        match (&self.create, &self.column) {
            (Some(create), None) => create.replace("{t}", table),
            (None, Some(column)) => {
                format!("CREATE TABLE {table} (id INT PRIMARY KEY, v {column})")
            }
            _ => panic!("{}: either column or create", self.name),
        }
    }

    fn insert(&self, table: &str) -> Option<String> {
        let rows = self
            .rows
            .iter()
            .enumerate()
            .map(|(place, row)| match self.create {
                Some(_) => format!("({row})"),
                None => format!("({}, {row})", place + 1),
            });
        let rows: Vec<String> = rows.collect();
        (!rows.is_empty()).then(|| format!("INSERT INTO {table} VALUES {}", rows.join(", ")))
    }
}

/// Reads all cases, each with the name of its table.
fn corpus() -> Vec<(String, Case)> {
    let dir = repository().join("fixtures/mutations");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .expect("fixtures/mutations")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a file of cases");
        let corpus: Corpus =
            toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let harmless = file.ends_with("harmless.toml");
        for case in corpus.case {
            assert_eq!(
                case.finds.is_empty(),
                harmless,
                "{}: in the wrong file",
                case.name
            );
            assert!(!case.corrupt.is_empty(), "{}: it does nothing", case.name);
            cases.push((format!("m{}", cases.len()), case));
        }
    }
    let harmless = cases
        .iter()
        .filter(|(_, case)| case.finds.is_empty())
        .count();
    assert!(harmless >= HARMLESS_MIN, "{harmless} harmless differences");
    assert!(
        cases.len() - harmless >= CORRUPTIONS_MIN,
        "{} corruptions",
        cases.len() - harmless
    );
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mutation_is_found_and_named_and_nothing_harmless_is() {
    let cases = corpus();
    let lab = Lab::new("mutations").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    run(&mut source, &format!("USE {}", lab.database)).await;
    for setting in SETTINGS {
        run(&mut source, setting).await;
    }
    for (table, case) in &cases {
        run(&mut source, &case.create(table)).await;
        if let Some(insert) = case.insert(table) {
            run(&mut source, &insert).await;
        }
    }
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();

    run(&mut target, &format!("USE {}", lab.database)).await;
    for (table, case) in &cases {
        for sql in SETTINGS
            .into_iter()
            .map(str::to_owned)
            .chain(case.corrupt.clone())
        {
            let sql = sql.replace("{t}", table);
            let touched = try_run(&mut target, &sql).await;
            let touched = touched.unwrap_or_else(|error| panic!("{}: {sql}: {error}", case.name));
            let writes = ["UPDATE", "DELETE", "INSERT"]
                .iter()
                .any(|word| sql.starts_with(word));
            assert!(
                touched > 0 || !writes,
                "{}: {sql} touches no row",
                case.name
            );
        }
    }
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 1, "{}\n{}", check.stdout, check.stderr);
    let (check, diff) = (check.json(), lab.run(&["diff", "--json"]).json());
    let mut wrong = Vec::new();
    for (table, case) in &cases {
        let wanted: BTreeSet<String> = case.finds.iter().cloned().collect();
        let word = if case.finds.is_empty() {
            "equal"
        } else {
            "different"
        };
        let (found, verdict) = (found(&lab, &diff, table), verdict(&check, table));
        if found != wanted || verdict != word {
            wrong.push(format!(
                "{}: {verdict}, {found:?} instead of {wanted:?}",
                case.name
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(migrating.stop(), 1, "it says that there are differences");
}

/// Returns what rowproof found of a table, in the words of the corpus.
fn found(lab: &Lab, diff: &serde_json::Value, table: &str) -> BTreeSet<String> {
    let name = format!("{}.{table}", lab.database);
    let rows = diff["differences"].as_array().expect("differences").iter();
    rows.filter(|row| row["table"] == name.as_str())
        .map(|row| {
            let word = |name: &str| row[name].as_str().expect("a text").to_owned();
            let columns = row["columns"].as_array().expect("columns").iter();
            let differing: Vec<&str> = columns
                .filter(|column| column["differs"] == true)
                .map(|column| column["column"].as_str().expect("a name"))
                .collect();
            match word("kind").as_str() {
                "changed" => format!("changed {}: {}", word("key"), differing.join(", ")),
                kind => format!("{kind} {}", word("key")),
            }
        })
        .collect()
}

/// Returns the verdict that a check gave a table.
fn verdict<'a>(check: &'a serde_json::Value, table: &str) -> &'a str {
    let mut tables = check["tables"].as_array().expect("tables").iter();
    let found = tables
        .find(|row| row["table"] == table)
        .expect("a verdict for each table");
    found["verdict"].as_str().expect("a word")
}
