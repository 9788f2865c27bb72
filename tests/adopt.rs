//! Tables that the target has already, with rows: refused, or adopted by choice.

use crate::lab::{Lab, USER, run, texts};
use crate::plain_sql::assert_same_rows;
use std::time::Duration;

/// How often the rows of the large table are doubled: 65,536 in the end, enough for stripes.
const DOUBLINGS: u32 = 16;

/// A row that is equal on both sides, far from all that differ.
const UNTOUCHED: &str = "SELECT ora_rowscn FROM wide WHERE id = 40001";

/// Fills both sides with the same rows, and then corrupts the target's.
async fn prepared(name: &str) -> Lab {
    let lab = Lab::new(name).await;
    let (mut source, mut target) = (lab.source().await, lab.target().await);
    for side in [&mut source, &mut target] {
        run(side, &format!("USE {}", lab.database)).await;
        for sql in [
            "CREATE TABLE wide (id BIGINT PRIMARY KEY, u VARCHAR(40) COLLATE utf8mb4_bin UNIQUE, v INT)",
            "INSERT INTO wide VALUES (1, 'u1', 0)",
            "CREATE TABLE names (k VARCHAR(40) COLLATE utf8mb4_general_ci PRIMARY KEY, u INT UNIQUE)",
            "INSERT INTO names VALUES ('a', 1), ('b', 2), ('C', 3), ('d', 4), ('e ', 5)",
        ] {
            run(side, sql).await;
        }
        for doubling in 0..DOUBLINGS {
            let more = 1_u32 << doubling;
            let sql = format!(
                "INSERT INTO wide SELECT id + {more}, CONCAT('u', id + {more}), v FROM wide"
            );
            run(side, &sql).await;
        }
    }
    for sql in [
        // Unique values that trade places across stripes, and that rows hold which must go.
        "UPDATE wide SET u = 'x' WHERE id = 2",
        "UPDATE wide SET u = 'u2' WHERE id = 60000",
        "UPDATE wide SET u = 'u60000' WHERE id = 2",
        "DELETE FROM wide WHERE id BETWEEN 101 AND 120",
        "INSERT INTO wide VALUES (-5, 'u101', 1), (900000, 'u102', 1), (900001, NULL, NULL)",
        "UPDATE wide SET v = 7 WHERE id IN (30000, 65000)",
        "UPDATE names SET u = 9 WHERE k = 'a'",
        "UPDATE names SET u = 1 WHERE k = 'b'",
        "UPDATE names SET u = 2 WHERE k = 'a'",
        "DELETE FROM names WHERE k = 'd'",
        "UPDATE names SET k = 'c' WHERE k = 'C'",
        "INSERT INTO names VALUES ('zz', 4)",
    ] {
        run(&mut target, sql).await;
    }
    run(&mut source, "CREATE TABLE fresh (id INT PRIMARY KEY)").await;
    run(&mut source, "INSERT INTO fresh VALUES (1)").await;
    let grant = format!("GRANT TRIGGER ON {}.* TO {USER}", lab.database);
    run(&mut target, &grant).await;
    lab.create_feed();
    lab
}

fn adopt(lab: &Lab) {
    let include = format!("include = [\"{}.*\"]", lab.database);
    let adopt = format!("{include}\nadopt = [\"{}.*\"]", lab.database);
    lab.write_task(&lab.task_text().replace(&include, &adopt));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_table_keeps_what_is_equal_and_gets_what_differs() {
    let lab = prepared("adopt").await;
    let refused = lab.run(&["precheck"]);
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    let named = format!(
        "table {}.wide on the target holds rows that rowproof did not write",
        lab.database
    );
    assert!(refused.stdout.contains(&named), "{}", refused.stdout);
    let migrate = lab.run(&["migrate", "--until", "load"]);
    assert_eq!(migrate.code, 2, "{}", migrate.stderr);
    adopt(&lab);
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 0, "{}", precheck.stdout);
    assert!(
        precheck.stdout.contains("holds rows, and is adopted"),
        "{}",
        precheck.stdout
    );
    let mut target = lab.target().await;
    run(&mut target, &format!("USE {}", lab.database)).await;
    let before = texts(&mut target, UNTOUCHED).await;
    let migrate = lab.run(&["migrate", "--until", "caught-up"]);
    assert_eq!(migrate.code, 0, "{}", migrate.stderr);
    assert!(
        migrate.stderr.contains("7 rows that differed were cleared"),
        "{}",
        migrate.stderr
    );
    assert_eq!(
        texts(&mut target, UNTOUCHED).await,
        before,
        "an equal row is not written"
    );
    assert_same_rows(&lab).await;
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_an_adoption_that_is_killed_goes_on_and_ends_equal() {
    let lab = prepared("adoptkill").await;
    adopt(&lab);
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..6 {
        let mut migrating = lab.start_migrate();
        tokio::time::sleep(Duration::from_millis(random.u64(300..2_500))).await;
        migrating.kill();
    }
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_rows_cannot_be_told_apart_is_not_adopted() {
    let lab = Lab::new("adoptnot").await;
    for side in [&mut lab.source().await, &mut lab.target().await] {
        run(side, &format!("USE {}", lab.database)).await;
        run(side, "CREATE TABLE copies (a INT)").await;
        run(side, "INSERT INTO copies VALUES (1)").await;
    }
    let mut target = lab.target().await;
    run(&mut target, &format!("USE {}", lab.database)).await;
    run(
        &mut target,
        "CREATE TABLE other (id INT PRIMARY KEY, v BIGINT)",
    )
    .await;
    run(&mut target, "INSERT INTO other VALUES (1, 1)").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(
        &mut source,
        "CREATE TABLE other (id INT PRIMARY KEY, v DECIMAL(4, 1))",
    )
    .await;
    lab.create_feed();
    adopt(&lab);
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 2, "{}", precheck.stdout);
    for what in [
        "copies cannot be adopted: it has no key by which its rows could be told apart",
        "other cannot be adopted: ",
    ] {
        assert!(precheck.stdout.contains(what), "{}", precheck.stdout);
    }
    assert_eq!(lab.run(&["migrate", "--until", "load"]).code, 2);
    assert_eq!(texts(&mut target, "SELECT * FROM other").await.len(), 1);
}
