//! OceanBase refuses what precheck says that it refuses, and takes what is one less.

use crate::lab::{Lab, run, try_run};
use crate::precheck::sized;
use sqlx::mysql::MySqlDatabaseError;

/// Definitions that OceanBase takes, each with one that is too large and the number of its error.
const LIMITS: [(&str, &str, u16); 5] = [
    (
        "(a INT PRIMARY KEY, COLUMNS128)",
        "(a INT PRIMARY KEY, COLUMNS129)",
        1069,
    ),
    ("(e ENUM('LABEL255'))", "(e ENUM('LABEL256'))", 3505),
    (
        "(a INT PRIMARY KEY) PARTITION BY LIST (a) (PARTITION p VALUES IN (FULL_LIST))",
        "(a INT PRIMARY KEY) PARTITION BY LIST (a) (PARTITION p VALUES IN (LIST))",
        4019,
    ),
    ("(v VECTOR(16000))", "(v VECTOR(16001))", 1235),
    ("(v VECTOR(1))", "(v VECTOR)", 1064),
];

fn filled(definition: &str) -> String {
    let mut sql = sized(definition);
    for count in [128, 129] {
        let indexed: Vec<String> = (0..count)
            .map(|of| format!("c{of} INT, KEY (c{of})"))
            .collect();
        sql = sql.replace(&format!("COLUMNS{count}"), &indexed.join(", "));
    }
    for length in [255, 256] {
        sql = sql.replace(&format!("LABEL{length}"), &"x".repeat(length));
    }
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn oceanbase_refuses_what_precheck_says() {
    let lab = Lab::new("limits").await;
    let mut target = lab.target().await;
    run(
        &mut target,
        &format!("CREATE DATABASE IF NOT EXISTS {}", lab.database),
    )
    .await;
    run(&mut target, &format!("USE {}", lab.database)).await;
    for (place, (taken, refused, number)) in LIMITS.into_iter().enumerate() {
        let create = |of: &str| format!("CREATE TABLE {of}{place} ");
        run(&mut target, &(create("taken") + &filled(taken))).await;
        let error = try_run(&mut target, &(create("refused") + &filled(refused)))
            .await
            .expect_err("OceanBase takes it");
        let found = error
            .as_database_error()
            .and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>())
            .map(MySqlDatabaseError::number);
        assert_eq!(found, Some(number), "{refused}: {error}");
    }
}
