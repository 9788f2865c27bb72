//! The lab's own feed is exact: rowproof cannot be better than what it is tested with.

use crate::lab::repository;
use std::process::{Command, Stdio};

#[test]
fn replaying_the_labs_feed_gives_what_sql_reads() {
    let lab_dir = std::env::var("ROWPROOF_LAB_DIR").expect("ROWPROOF_LAB_DIR names a lab");
    let output = Command::new(repository().join("fixtures/lab/exact"))
        .args(["--dir", &lab_dir])
        .stdin(Stdio::null())
        .output()
        .expect("fixtures/lab/exact");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("seed"), "the seed is printed: {text}");
}
