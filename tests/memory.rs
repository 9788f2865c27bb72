//! Memory is bounded whatever the table.

use crate::lab::{Lab, run, wait_until};
use std::process::Stdio;
use std::time::Duration;

/// The bound of the whole program, in KiB.
const RESIDENT_MAX_KIB: u64 = 300 << 10;

/// How often the table of a thousand rows of a kilobyte is doubled: 128 MB in the end.
const DOUBLINGS: u32 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn inv_8_a_large_table_is_loaded_and_checked_in_bounded_memory() {
    let lab = Lab::new("memory").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, body VARCHAR(2000))",
    )
    .await;
    let rows: Vec<String> = (0..1_000)
        .map(|id| format!("({id}, REPEAT('x', 1000))"))
        .collect();
    run(
        &mut source,
        &format!("INSERT INTO t VALUES {}", rows.join(",")),
    )
    .await;
    for doubling in 0..DOUBLINGS {
        let more = 1_000 << doubling;
        run(
            &mut source,
            &format!("INSERT INTO t SELECT id + {more}, body FROM t"),
        )
        .await;
    }
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    wait_until("it follows", Duration::from_secs(240), || {
        if let Some(code) = migrating.ended() {
            panic!("it ended with {code}:\n{}", migrating.log());
        }
        migrating.log().contains("follow").then_some(())
    });
    let peak = peak_kib(migrating.pid()).expect("the migration runs");
    assert!(peak < RESIDENT_MAX_KIB, "migrate took {peak} KiB");
    let mut check = lab
        .rowproof(&["check", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("rowproof check");
    let mut peak = 0;
    let code = wait_until("the check ends", Duration::from_secs(240), || {
        peak = peak.max(peak_kib(check.id()).unwrap_or(0));
        check
            .try_wait()
            .expect("a child")
            .map(|status| status.code())
    });
    assert_eq!(code, Some(0));
    assert!(
        (1..RESIDENT_MAX_KIB).contains(&peak),
        "check took {peak} KiB"
    );
}

/// Reads the highest resident memory that a process has had; none when it has ended.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
