//! Measures how long 2,000 tables of 10 rows take to migrate, proven, on the real servers of a lab.
//!
//! `ROWPROOF_LAB_DIR=DIR cargo bench --bench many_tables` with the directory of a running lab. Exit
//! codes: 0 the bound holds, 1 it is missed, 2 it could not be measured.

use anyhow::{Context, Result, ensure};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const TABLES: u32 = 2_000;

const ROWS: u32 = 10;

/// The bound that is promised.
const BOUND: Duration = Duration::from_secs(180);

/// The database, the task and the topic.
const NAME: &str = "bench_many";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(measure()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("many_tables: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn measure() -> Result<bool> {
    let lab_dir = std::env::var_os("ROWPROOF_LAB_DIR")
        .map(PathBuf::from)
        .context("no lab: run `make bench`, or fixtures/lab/up and set ROWPROOF_LAB_DIR")?;
    let env = std::fs::read_to_string(lab_dir.join("lab.env")).context("is the lab up?")?;
    let dir = std::env::temp_dir().join(format!("rowproof-bench-many-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let mut target = connect(port(&env, "OCEANBASE_PORT")?).await?;
    run(&mut target, &format!("DROP DATABASE IF EXISTS {NAME}")).await?;
    for table in [
        "task",
        "lease",
        "slot",
        "fence",
        "followed_table",
        "load_chunk",
    ] {
        // What an earlier run left; before the first one there is nothing.
        let _ = run(
            &mut target,
            &format!("DELETE FROM rowproof.{table} WHERE task = '{NAME}'"),
        )
        .await;
    }
    eprintln!("many_tables: making {TABLES} tables of {ROWS} rows");
    fill(&mut connect(port(&env, "TIDB_PORT")?).await?).await?;
    let _ = feed(&lab_dir, &["remove"]);
    feed(&lab_dir, &["create", "--filter", &format!("{NAME}.*")])?;
    std::fs::write(dir.join("task.toml"), task_text(&env, &dir)?)?;
    let mut whole = Duration::ZERO;
    for until in ["schema", "load", "caught-up"] {
        let began = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_rowproof"))
            .args(["migrate", "--json", "--until", until, "-c"])
            .arg(dir.join("task.toml"))
            .stdin(Stdio::null())
            .output()?;
        let took = began.elapsed();
        whole += took;
        println!("{until:>10}  {:6.1} s", took.as_secs_f64());
        ensure!(
            output.status.success() || until == "schema",
            "migrate --until {until} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    std::fs::remove_dir_all(&dir)?;
    println!(
        "{TABLES} tables of {ROWS} rows, proven: {:.1} s; the bound is {} s",
        whole.as_secs_f64(),
        BOUND.as_secs()
    );
    Ok(whole < BOUND)
}

async fn fill(source: &mut MySqlConnection) -> Result<()> {
    run(source, &format!("DROP DATABASE IF EXISTS {NAME}")).await?;
    run(source, &format!("CREATE DATABASE {NAME}")).await?;
    for table in 0..TABLES {
        let name = format!("{NAME}.t{table:04}");
        let columns = "id BIGINT PRIMARY KEY, name VARCHAR(40), at DATETIME, amount DECIMAL(12,2), \
                       KEY (name)";
        run(source, &format!("CREATE TABLE {name} ({columns})")).await?;
        let rows: Vec<String> = (0..ROWS)
            .map(|row| format!("({row}, 'name {row}', '2024-01-01 00:00:{row:02}', {row}.5)"))
            .collect();
        run(
            source,
            &format!("INSERT INTO {name} VALUES {}", rows.join(", ")),
        )
        .await?;
    }
    Ok(())
}

fn task_text(env: &str, dir: &Path) -> Result<String> {
    let web = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let endpoint = |port: u16| {
        format!(
            "host = \"127.0.0.1\"\nport = {port}\nuser = \"root\"\ntls = {{ mode = \"disabled\" }}\n"
        )
    };
    Ok(format!(
        "name = \"{NAME}\"\n[source]\n{}[target]\n{}[feed]\nbrokers = \"127.0.0.1:{}\"\n\
         topics = [\"{NAME}\"]\n[tables]\ninclude = [\"{NAME}.*\"]\n[state]\ndir = \"{}/state\"\n\
         [web]\nlisten = \"{web}\"\n",
        endpoint(port(env, "TIDB_PORT")?),
        endpoint(port(env, "OCEANBASE_PORT")?),
        port(env, "KAFKA_PORT")?,
        dir.display()
    ))
}

fn feed(lab_dir: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/lab/feed"))
        .args(arguments)
        .args(["--topic", NAME, "--dir"])
        .arg(lab_dir)
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "feed {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn port(env: &str, name: &str) -> Result<u16> {
    let value = env
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = value.with_context(|| format!("lab.env has no {name}"))?;
    value.parse().with_context(|| format!("{name} in lab.env"))
}

async fn connect(port: u16) -> Result<MySqlConnection> {
    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("root")
        .ssl_mode(MySqlSslMode::Disabled)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        .disable_statement_logging();
    Ok(options.connect().await?)
}

async fn run(connection: &mut MySqlConnection, sql: &str) -> Result<()> {
    let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    statement
        .execute(connection)
        .await
        .with_context(|| sql.to_owned())?;
    Ok(())
}
