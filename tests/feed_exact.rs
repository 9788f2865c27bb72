//! The lab's own feed is exact: rowproof cannot be better than what it is tested with.

use crate::lab::{finish, repository};
use std::process::Command;

#[test]
fn replaying_the_labs_feed_gives_what_sql_reads() {
    let lab_dir = std::env::var("ROWPROOF_LAB_DIR").expect("ROWPROOF_LAB_DIR names a lab");
    let mut exact = Command::new(repository().join("fixtures/lab/exact"));
    let output = finish(exact.args(["--dir", &lab_dir]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("seed"), "the seed is printed: {text}");
}
