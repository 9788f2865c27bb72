//! What may import what.

use crate::lab::repository;
use std::path::{Path, PathBuf};

/// The modules that know no socket, and those that do.
const PURE: [&str; 9] = [
    "row", "schema", "chunk", "feed", "apply", "fence", "proof", "repair", "engine",
];
const OUTSIDE: [&str; 8] = [
    "database", "broker", "journal", "driver", "web", "report", "task", "throttle",
];

/// The lines above which a file is more than one idea.
const LINES_MAX: usize = 700;

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn the_core_imports_nothing_that_knows_a_socket() {
    for module in PURE {
        for file in sources(&repository().join("src").join(module)) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            for line in text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                for outside in OUTSIDE {
                    assert!(
                        !line.contains(&format!("crate::{outside}")),
                        "{} imports {outside}: {line}",
                        file.display()
                    );
                }
                for library in ["tokio", "sqlx", "rdkafka", "warp"] {
                    assert!(
                        !line.contains(&format!("{library}::")),
                        "{} uses {library}: {line}",
                        file.display()
                    );
                }
            }
        }
    }
}

#[test]
fn every_file_is_one_idea_long() {
    for dir in ["src", "tests", "benches", "fixtures/shop"] {
        for file in sources(&repository().join(dir)) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines", file.display());
            for word in ["todo!(", "unimplemented!(", "dbg!("] {
                let found = text.contains(word) && !file.ends_with("tests/layers.rs");
                assert!(!found, "{} holds {word}", file.display());
            }
        }
    }
}

#[test]
fn every_hazard_has_a_test_that_exists() {
    let mut tests = String::new();
    for dir in ["src", "tests"] {
        for file in sources(&repository().join(dir)) {
            tests.push_str(&std::fs::read_to_string(&file).expect("a source file"));
        }
    }
    let list = repository().join("fixtures/hazards.md");
    let list = std::fs::read_to_string(list).expect("fixtures/hazards.md");
    let rows: Vec<Vec<&str>> = list
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .map(|line| line.split(" | ").collect())
        .filter(|cells: &Vec<&str>| cells[0].parse::<u32>().is_ok())
        .collect();
    let numbers: Vec<u32> = rows
        .iter()
        .filter_map(|cells| cells[0].parse().ok())
        .collect();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    for cells in rows {
        let names: Vec<&str> = cells[3].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "hazard {} has no test", cells[0]);
        for name in names {
            let name = name.rsplit("::").next().expect("a name");
            assert!(
                tests.contains(&format!("fn {name}(")),
                "hazard {}: there is no test {name}",
                cells[0]
            );
        }
    }
}

#[test]
fn every_invariant_is_pinned_by_a_test_of_its_name() {
    let mut text = String::new();
    for dir in ["src", "tests"] {
        for file in sources(&repository().join(dir)) {
            text.push_str(&std::fs::read_to_string(&file).expect("a source file"));
        }
    }
    for number in 1..=10 {
        assert!(
            text.contains(&format!("fn inv_{number}_")),
            "INV-{number} has no test"
        );
        assert!(
            text.contains(&format!("INV-{number}")),
            "INV-{number} is stated nowhere"
        );
    }
}
