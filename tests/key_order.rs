//! Keys that the two databases order differently are paired all the same.

use crate::lab::{Lab, run};
use crate::plain_sql::assert_same_rows;

/// More rows than a chunk has, so that chunks end among them.
const ROWS: u32 = 30_000;

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_at_the_ends_of_chunks_make_no_false_difference() {
    let lab = Lab::new("order").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE k (k VARCHAR(40) COLLATE utf8mb4_bin PRIMARY KEY, v INT)",
    )
    .await;
    run(
        &mut source,
        "CREATE TABLE two (a VARCHAR(20) COLLATE utf8mb4_bin, b VARBINARY(20), v INT, \
         PRIMARY KEY (a, b))",
    )
    .await;
    // Every third key is the one before it with a control character, a space or a tab behind.
    for from in (0..ROWS).step_by(1_000) {
        let keys = (from..from + 1_000).map(|number| {
            let tail = match number % 3 {
                0 => String::new(),
                1 => ", CHAR(1)".to_owned(),
                _ => ", ' ', CHAR(9), 'x'".to_owned(),
            };
            format!("CONCAT('key-{:06}'{tail})", number / 3)
        });
        let keys: Vec<String> = keys.collect();
        let rows: Vec<String> = keys.iter().map(|key| format!("({key}, 1)")).collect();
        run(
            &mut source,
            &format!("INSERT INTO k VALUES {}", rows.join(",")),
        )
        .await;
        let rows: Vec<String> = keys.iter().map(|key| format!("('a', {key}, 1)")).collect();
        run(
            &mut source,
            &format!("INSERT INTO two VALUES {}", rows.join(",")),
        )
        .await;
    }
    lab.create_feed();
    let _migrating = lab.start_migrate();
    crate::lab::wait_until("the load ends", std::time::Duration::from_secs(120), || {
        lab.run(&["check", "--json"])
            .stdout
            .contains("\"read\"")
            .then_some(())
    });
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
}
