//! Several topics of one changefeed: tables sent to topics of their own, topics that come later, and
//! topics that fall silent because their last table is gone.

use crate::lab::{Lab, run, wait_until};
use crate::plain_sql::assert_same_rows;
use std::time::Duration;

/// Creates a feed that sends each of the tables `b` and `c` to a topic of its own.
fn create_feed(lab: &Lab) {
    let database = &lab.database;
    let to = |table: &str| format!("{database}.{table}={database}-{table}");
    lab.create_feed_with(&["--table-topic", &to("b"), "--table-topic", &to("c")]);
}

fn task(lab: &Lab, topics: &[&str]) -> String {
    let names: Vec<String> = topics
        .iter()
        .map(|suffix| format!("\"{}{suffix}\"", lab.database))
        .collect();
    lab.task_text().replace(
        &format!("topics = [\"{}\"]", lab.database),
        &format!("topics = [{}]", names.join(", ")),
    )
}

async fn create_table(lab: &Lab, table: &str) {
    let sql = format!(
        "CREATE TABLE {}.{table} (id INT PRIMARY KEY, n INT)",
        lab.database
    );
    run(&mut lab.source().await, &sql).await;
}

async fn change(lab: &Lab, table: &str, from: u32) {
    let mut source = lab.source().await;
    let table = format!("{}.{table}", lab.database);
    for id in from..from + 20 {
        let sql = format!("INSERT INTO {table} VALUES ({id}, 0)");
        run(&mut source, &sql).await;
    }
    run(&mut source, &format!("UPDATE {table} SET n = n + 1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_topics_carry_a_migration_through_a_kill_to_its_end() {
    let lab = Lab::new("topics").await;
    for table in ["a", "b"] {
        create_table(&lab, table).await;
        change(&lab, table, 0).await;
    }
    create_feed(&lab);
    lab.write_task(&task(&lab, &["", "-b"]));
    // The feed makes the topics of its dispatchers a moment after its own.
    let precheck = wait_until("both topics are there", Duration::from_secs(90), || {
        let precheck = lab.run(&["precheck"]);
        (precheck.code == 0).then_some(precheck)
    });
    let both = format!(
        "topic {0} with 4 partitions, topic {0}-b with",
        lab.database
    );
    assert!(precheck.stdout.contains(&both), "{}", precheck.stdout);
    let mut migrating = lab.start_migrate();
    wait_until("it follows", Duration::from_secs(90), || {
        migrating.log().contains("follow").then_some(())
    });
    for table in ["a", "b"] {
        change(&lab, table, 100).await;
    }
    create_table(&lab, "d").await;
    change(&lab, "d", 0).await;
    migrating.kill();
    for table in ["a", "b", "d"] {
        change(&lab, table, 200).await;
    }
    let mut migrating = lab.start_migrate();
    wait_for_equal(&lab, &mut migrating, &[]);
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());

    // What was read so far cannot be forgotten.
    lab.write_task(&task(&lab, &[""]));
    let migrate = lab.run(&["migrate"]);
    assert_eq!(migrate.code, 64, "{}", migrate.stderr);
    assert!(migrate.stderr.contains("-b"), "{}", migrate.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_come_later_are_read_and_silent_ones_do_not_hold_the_others() {
    let lab = Lab::new("later").await;
    for table in ["a", "b"] {
        create_table(&lab, table).await;
        change(&lab, table, 0).await;
    }
    create_feed(&lab);
    lab.write_task(&task(&lab, &["", "-*"]));
    let mut migrating = lab.start_migrate();
    wait_until("it follows", Duration::from_secs(90), || {
        migrating.log().contains("follow").then_some(())
    });
    // The first table of a topic that does not exist yet.
    create_table(&lab, "c").await;
    for table in ["a", "b", "c"] {
        change(&lab, table, 100).await;
    }
    wait_for_equal(&lab, &mut migrating, &[]);
    assert_same_rows(&lab).await;
    // Its id is kept too, by which it is known again.
    let known = lab
        .journal("SELECT topic FROM feed_topic ORDER BY topic")
        .await;
    let topics = ["", "-b", "-c"].map(|suffix| format!("{}{suffix}", lab.database));
    assert_eq!(known, topics);

    // The topic of `b` gets nothing any more, not even watermarks; before and after a restart.
    run(
        &mut lab.source().await,
        &format!("DROP TABLE {}.b", lab.database),
    )
    .await;
    let names: Vec<String> = ["a", "c"]
        .map(|table| format!("{}.{table}", lab.database))
        .into();
    for from in [200, 300] {
        for table in ["a", "c"] {
            change(&lab, table, from).await;
        }
        wait_for_equal(&lab, &mut migrating, &names);
        if from == 200 {
            migrating.kill();
            migrating = lab.start_migrate();
        }
    }
    // Not 0: the table that was dropped is unproven.
    assert_eq!(migrating.stop(), 2, "{}", migrating.log());
}

/// Waits until a check of some tables, or of all, says that they are equal.
fn wait_for_equal(lab: &Lab, migrating: &mut crate::lab::Migrating, tables: &[String]) {
    let mut arguments = vec!["check", "--json"];
    arguments.extend(tables.iter().map(String::as_str));
    wait_until("it is equal", Duration::from_secs(120), || {
        if let Some(code) = migrating.ended() {
            panic!("it ended with {code}:\n{}", migrating.log());
        }
        (lab.run(&arguments).code == 0).then_some(())
    });
}
