//! Tables that have another name on the target, and tables of which only some rows take part.

use crate::lab::{Lab, run, texts};

/// Prepares two tables, one of them routed and filtered.
async fn prepared(name: &str) -> Lab {
    let lab = Lab::new(name).await;
    let database = &lab.database;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {database}")).await;
    for sql in [
        "CREATE TABLE plain (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE orders (id INT PRIMARY KEY, region VARCHAR(9), v INT)",
        "INSERT INTO plain VALUES (1, 1), (2, 2)",
        "INSERT INTO orders VALUES (1, 'EU', 1), (2, 'US', 2), (3, 'EU', 3), (4, NULL, 4)",
    ] {
        run(&mut source, sql).await;
    }
    let mut target = lab.target().await;
    run(&mut target, &format!("CREATE DATABASE {database}_new")).await;
    let user = crate::lab::USER;
    let grant = "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON";
    run(&mut target, &format!("{grant} {database}_new.* TO {user}")).await;
    let tables = format!(
        "include = [\"{database}.*\"]\n\
         routes = [{{ from = \"{database}.orders\", to = \"{database}_new.sales\" }}, \
                   {{ from = \"{database}.*\", to = \"{database}_new.*\" }}]\n\
         filters = [{{ table = \"{database}.orders\", rows = \"region = 'EU' OR v > 90\" }}]\n"
    );
    let include = format!("include = [\"{database}.*\"]");
    lab.write_task(&lab.task_text().replace(&include, &tables));
    lab.create_feed();
    lab
}

async fn ids(lab: &Lab, sql: &str) -> Vec<String> {
    let mut target = lab.target().await;
    let rows = texts(&mut target, sql).await;
    rows.into_iter().flatten().flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_into_a_filter_and_leave_it_and_tables_go_where_routes_say() {
    let lab = prepared("routes").await;
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    for sql in [
        "UPDATE orders SET region = 'US' WHERE id = 1",
        "UPDATE orders SET region = 'EU' WHERE id = 2",
        "UPDATE orders SET v = 91 WHERE id = 4",
        "INSERT INTO orders VALUES (5, 'EU', 5), (6, 'US', 6)",
        "UPDATE orders SET id = 7 WHERE id = 3",
        "INSERT INTO plain VALUES (3, 3)",
        "CREATE TABLE late (id INT PRIMARY KEY)",
        "INSERT INTO late VALUES (1)",
    ] {
        run(&mut source, sql).await;
    }
    lab.assert_check_equal();
    let sales = format!("SELECT id FROM {}_new.sales ORDER BY id", lab.database);
    assert_eq!(ids(&lab, &sales).await, ["2", "4", "5", "7"]);
    for (table, rows) in [("plain", 3), ("late", 1)] {
        let sql = format!("SELECT id FROM {}_new.{table}", lab.database);
        assert_eq!(ids(&lab, &sql).await.len(), rows, "{table}");
    }
    let own = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA =";
    let own = format!("{own} '{}'", lab.database);
    assert!(ids(&lab, &own).await.is_empty());

    // A row that is outside the filter on the source is an extra row on the target.
    let mut target = lab.target().await;
    let extra = format!("INSERT INTO {}_new.sales VALUES (6, 'US', 6)", lab.database);
    run(&mut target, &extra).await;
    let check = lab.run(&["check", "--json"]);
    assert_eq!(check.code, 1, "{}", check.stdout);
    assert_eq!(lab.run(&["repair", "--apply"]).code, 0);
    lab.assert_check_equal();
    assert_eq!(ids(&lab, &sales).await, ["2", "4", "5", "7"]);
    let text = lab.run(&["check"]).stdout;
    assert!(
        text.contains("only rows where region = 'EU' OR v > 90"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_merges_tables_and_a_filter_that_means_nothing_are_found_by_precheck() {
    let lab = prepared("merging").await;
    let database = &lab.database;
    let text = lab.task_text();
    let include = format!("include = [\"{database}.*\"]");
    let merged = format!(
        "{include}\nroutes = [{{ from = \"{database}.*\", to = \"{database}_new.one\" }}]\n\
         filters = [{{ table = \"{database}.plain\", rows = \"colour = 3\" }}]"
    );
    lab.write_task(&text.replace(&include, &merged));
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 2, "{}", precheck.stdout);
    assert!(
        precheck.stdout.contains("go to one table on the target"),
        "{}",
        precheck.stdout
    );
    assert!(
        precheck.stdout.contains("does not understand its filter"),
        "{}",
        precheck.stdout
    );
}
