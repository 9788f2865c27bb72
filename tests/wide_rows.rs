//! Rows of any size, and any number of them where none was expected, in bounded memory.

use crate::lab::{Lab, peak_kib, run};
use crate::memory::RESIDENT_MAX_KIB;
use crate::plain_sql::assert_same_rows;

/// The bytes of the largest row.
const LARGE: u32 = 20 << 20;

/// The bound of the program while rows of 20 MiB are on their way, in KiB: of such a row there are
/// at the worst its message, its image, its packet and its literal, which is twice as long.
const WIDE_MAX_KIB: u64 = 800 << 10;

/// How often a thousand rows of a kilobyte that only the target has are doubled: 128 MB in the end.
const DOUBLINGS: u32 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn inv_8_rows_of_twenty_mebibytes_are_loaded_followed_and_checked() {
    let lab = Lab::new("wide").await;
    let mut source = lab.source().await;
    allow_large_packets(&lab).await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE wide (body LONGBLOB, text LONGTEXT, id INT PRIMARY KEY)",
    )
    .await;
    let row = |id: u32| format!("(REPEAT(x'00ff27', {}), 'é', {id})", LARGE / 3);
    run(&mut source, &format!("INSERT INTO wide VALUES {}", row(1))).await;
    run(
        &mut source,
        &format!(
            "INSERT INTO wide VALUES (NULL, REPEAT('é', {}), 2)",
            LARGE / 2
        ),
    )
    .await;
    // Narrow rows in the same table do not mislead about those behind them.
    let narrow: Vec<String> = (3..2_000).map(|id| format!("('', '', {id})")).collect();
    run(
        &mut source,
        &format!("INSERT INTO wide VALUES {}", narrow.join(",")),
    )
    .await;
    for id in 2_000..2_005 {
        run(&mut source, &format!("INSERT INTO wide VALUES {}", row(id))).await;
    }
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    run(
        &mut source,
        &format!("INSERT INTO wide VALUES {}", row(3_000)),
    )
    .await;
    run(&mut source, "UPDATE wide SET text = 'short' WHERE id = 1").await;
    run(&mut source, "DELETE FROM wide WHERE id = 2000").await;
    lab.assert_check_equal();
    let peak = peak_kib(migrating.pid()).expect("the migration runs");
    assert!(peak < WIDE_MAX_KIB, "migrate took {peak} KiB");
    assert_same_rows(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_8_rows_that_are_suddenly_large_cut_their_chunk_short() {
    let lab = Lab::new("sudden").await;
    let mut source = lab.source().await;
    allow_large_packets(&lab).await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, body LONGTEXT)",
    )
    .await;
    // A skewed key: a crowd at one end, and a handful far away.
    let narrow: Vec<String> = (0..5_000).map(|id| format!("({id}, 'x')")).collect();
    run(
        &mut source,
        &format!("INSERT INTO t VALUES {}", narrow.join(",")),
    )
    .await;
    for id in 5_000..5_200 {
        run(
            &mut source,
            &format!("INSERT INTO t VALUES ({id}, REPEAT('y', 1 << 20))"),
        )
        .await;
    }
    run(
        &mut source,
        "INSERT INTO t VALUES (9223372036854775807, 'far'), (-9223372036854775808, 'away')",
    )
    .await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    let peak = peak_kib(migrating.pid()).expect("the migration runs");
    assert!(peak < RESIDENT_MAX_KIB, "migrate took {peak} KiB");
    let (code, peak) = lab.check_measured();
    assert_eq!(code, Some(0));
    assert!(peak < RESIDENT_MAX_KIB, "check took {peak} KiB");
    assert_same_rows(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_8_a_crowd_of_rows_that_only_the_target_has_is_counted_in_bounded_memory() {
    let lab = Lab::new("crowd").await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    run(&mut source, &format!("USE {}", lab.database)).await;
    for (name, key) in [
        ("numbers", "BIGINT"),
        ("texts", "VARCHAR(40) COLLATE utf8mb4_bin"),
    ] {
        run(
            &mut source,
            &format!("CREATE TABLE {name} (k {key} PRIMARY KEY, body VARCHAR(2000))"),
        )
        .await;
        run(
            &mut source,
            &format!("INSERT INTO {name} VALUES (1, 'a'), (900000000, 'z')"),
        )
        .await;
    }
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    run(&mut target, &format!("USE {}", lab.database)).await;
    for key in ["1000000", "CONCAT('1', CHAR(1), 1000000"] {
        let (name, close) = match key {
            "1000000" => ("numbers", ""),
            _ => ("texts", ")"),
        };
        let rows: Vec<String> = (0..1_000)
            .map(|id| format!("({key} + {id}{close}, REPEAT('x', 1000))"))
            .collect();
        let insert = format!("INSERT INTO {name} VALUES {}", rows.join(","));
        run(&mut target, &insert).await;
    }
    for doubling in 0..DOUBLINGS {
        let more = 1_000 << doubling;
        for sql in [
            format!(
                "INSERT INTO numbers SELECT k + {more}, body FROM numbers WHERE k BETWEEN 1000000 AND 2000000"
            ),
            format!(
                "INSERT INTO texts SELECT CONCAT('1', CHAR(1), SUBSTRING(k, 3) + {more}), body \
                 FROM texts WHERE LENGTH(k) = 9 AND k <> '900000000'"
            ),
        ] {
            run(&mut target, &sql).await;
        }
    }
    let (code, peak) = lab.check_measured();
    assert_eq!(code, Some(1));
    assert!(peak < RESIDENT_MAX_KIB, "check took {peak} KiB");
    let status = lab.run(&["status", "--json"]);
    let tables = status.json()["tables"].clone();
    let extra: Vec<_> = tables
        .as_array()
        .expect("tables")
        .iter()
        .map(|table| table["counts"]["extra"].as_u64())
        .collect();
    assert_eq!(extra, [Some(1_000 << DOUBLINGS); 2], "{tables:#?}");
}

/// Lets the target take statements of rows of 20 MiB; who connects later gets it.
async fn allow_large_packets(lab: &Lab) {
    let mut target = lab.target().await;
    run(&mut target, "SET GLOBAL max_allowed_packet = 134217728").await;
}
