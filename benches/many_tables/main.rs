//! Measures how long 2,000 tables of 10 rows take to migrate, proven, on the real servers of a lab.
//!
//! `ROWPROOF_LAB_DIR=DIR cargo bench --bench many_tables` with the directory of a running lab. Exit
//! codes: 0 the bound holds, 1 it is missed, 2 it could not be measured.

#[path = "../lab/mod.rs"]
mod lab;

use anyhow::{Result, ensure};
use lab::{Lab, run};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const TABLES: u32 = 2_000;

const ROWS: u32 = 10;

/// The bound that is promised.
const BOUND: Duration = Duration::from_secs(180);

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
    let lab = Lab::open(None, "bench_many")?;
    lab.forget().await?;
    eprintln!("many_tables: making {TABLES} tables of {ROWS} rows");
    fill(&lab).await?;
    lab.create_feed()?;
    let task = lab.dir.join("task.toml");
    std::fs::write(&task, lab.task_text(None)?)?;
    let mut whole = Duration::ZERO;
    for until in ["schema", "load", "caught-up"] {
        let began = Instant::now();
        let output = Command::new(env!("CARGO_BIN_EXE_rowproof"))
            .args(["migrate", "--json", "--until", until, "-c"])
            .arg(&task)
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
    lab.clear().await?;
    println!(
        "{TABLES} tables of {ROWS} rows, proven: {:.1} s; the bound is {} s",
        whole.as_secs_f64(),
        BOUND.as_secs()
    );
    Ok(whole < BOUND)
}

async fn fill(lab: &Lab) -> Result<()> {
    let (source, name) = (&mut lab.source().await?, lab.name);
    run(source, &format!("DROP DATABASE IF EXISTS {name}")).await?;
    run(source, &format!("CREATE DATABASE {name}")).await?;
    for table in 0..TABLES {
        let table = format!("{name}.t{table:04}");
        let columns = "id BIGINT PRIMARY KEY, name VARCHAR(40), at DATETIME, amount DECIMAL(12,2), \
                       KEY (name)";
        run(source, &format!("CREATE TABLE {table} ({columns})")).await?;
        let rows: Vec<String> = (0..ROWS)
            .map(|row| format!("({row}, 'name {row}', '2024-01-01 00:00:{row:02}', {row}.5)"))
            .collect();
        run(
            source,
            &format!("INSERT INTO {table} VALUES {}", rows.join(", ")),
        )
        .await?;
    }
    Ok(())
}
