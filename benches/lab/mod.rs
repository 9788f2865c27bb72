//! The lab's servers, and a bench's own part of them. Each bench uses some of it.

#![allow(dead_code)]

pub mod process;

use anyhow::{Context, Result, bail};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long OceanBase must have had nothing to do, and how long that is waited for.
const IDLE_FOR: Duration = Duration::from_secs(2);
const SETTLE_PATIENCE: Duration = Duration::from_secs(120);

/// A running lab and a directory for what the measurement writes.
#[derive(Debug)]
pub struct Lab {
    lab_dir: PathBuf,
    env: String,
    /// The name of the database that is measured, of the task and of the topic.
    pub name: &'static str,
    /// The task file, the state directory and the logs.
    pub dir: PathBuf,
}

impl Lab {
    /// Reads where the servers of the lab in a directory are; without one, of the lab that
    /// ROWPROOF_LAB_DIR names.
    pub fn open(lab_dir: Option<&Path>, name: &'static str) -> Result<Lab> {
        let named = std::env::var_os("ROWPROOF_LAB_DIR").map(PathBuf::from);
        let Some(lab_dir) = lab_dir.map(Path::to_owned).or(named) else {
            bail!("no lab: run `make bench`, or fixtures/lab/up and set ROWPROOF_LAB_DIR");
        };
        let path = lab_dir.join("lab.env");
        let env = std::fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read: is the lab up?", path.display()))?;
        let dir = std::env::temp_dir().join(format!("rowproof-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Lab {
            lab_dir,
            env,
            name,
            dir,
        })
    }

    fn port(&self, name: &str) -> Result<u16> {
        let value = self
            .env
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let value = value.with_context(|| format!("lab.env has no {name}"))?;
        value.parse().with_context(|| format!("{name} in lab.env"))
    }

    /// Returns the port of TiDB.
    pub fn source_port(&self) -> Result<u16> {
        self.port("TIDB_PORT")
    }

    /// Returns the port of OceanBase.
    pub fn target_port(&self) -> Result<u16> {
        self.port("OCEANBASE_PORT")
    }

    /// Connects to TiDB as administrator.
    pub async fn source(&self) -> Result<MySqlConnection> {
        connect(self.source_port()?).await
    }

    /// Connects to OceanBase as administrator.
    pub async fn target(&self) -> Result<MySqlConnection> {
        connect(self.target_port()?).await
    }

    /// Returns the text of the task file.
    pub fn task_text(&self, workers: Option<usize>) -> Result<String> {
        let load = workers.map_or(String::new(), |n| format!("[load]\nworkers = {n}\n"));
        Ok(format!(
            r#"name = "{name}"
[source]
host = "127.0.0.1"
port = {source}
user = "root"
tls = {{ mode = "disabled" }}
[target]
host = "127.0.0.1"
port = {target}
user = "root"
tls = {{ mode = "disabled" }}
[feed]
brokers = "127.0.0.1:{kafka}"
topics = ["{name}"]
[tables]
include = ["{name}.*"]
[state]
dir = "{dir}/state"
[web]
listen = "127.0.0.1:{web}"
{load}"#,
            name = self.name,
            source = self.source_port()?,
            target = self.target_port()?,
            kafka = self.port("KAFKA_PORT")?,
            dir = self.dir.display(),
            web = free_port()?,
        ))
    }

    /// Makes the feed of the measured database, in place of one that an earlier run left.
    pub fn create_feed(&self) -> Result<()> {
        let _ = self.feed(&["remove", "--topic", self.name]);
        let filter = format!("{}.*", self.name);
        self.feed(&["create", "--topic", self.name, "--filter", &filter])?;
        Ok(())
    }

    /// Runs the lab's feed command and returns what it says.
    pub fn feed(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(repository().join("fixtures/lab/feed"))
            .args(arguments)
            .arg("--dir")
            .arg(&self.lab_dir)
            .stdin(Stdio::null())
            .output()
            .context("fixtures/lab/feed")?;
        if !output.status.success() {
            bail!(
                "feed {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Forgets an earlier migration on the target: its copy and its record.
    pub async fn forget(&self) -> Result<()> {
        let mut target = self.target().await?;
        run(
            &mut target,
            &format!("DROP DATABASE IF EXISTS {}", self.name),
        )
        .await?;
        let records = "SELECT table_name FROM information_schema.columns \
                       WHERE table_schema = 'rowproof' AND column_name = 'task'";
        for table in texts(&mut target, records).await? {
            run(
                &mut target,
                &format!("DELETE FROM rowproof.{table} WHERE task = '{}'", self.name),
            )
            .await?;
        }
        Ok(())
    }

    /// Keeps TiDB from gathering statistics when many rows have changed: it takes seconds of processor time,
    /// in whichever measurement that falls.
    pub async fn gather_statistics(&self, gathers: bool) -> Result<()> {
        let set = format!(
            "SET GLOBAL tidb_enable_auto_analyze = {}",
            u8::from(gathers)
        );
        run(&mut self.source().await?, &set).await
    }

    /// Has OceanBase write to disk what it holds in memory, and the system what it holds of files, and waits
    /// until that is done. What they do about one measurement would else be counted to the next.
    pub async fn settle(&self) -> Result<()> {
        let mut target = self.target().await?;
        run(&mut target, "ALTER SYSTEM MINOR FREEZE").await?;
        let began = Instant::now();
        let mut idle_since = began;
        while idle_since.elapsed() < IDLE_FOR {
            if began.elapsed() > SETTLE_PATIENCE {
                bail!("OceanBase does not come to rest");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            let work = "SELECT dag_type FROM oceanbase.__all_virtual_dag";
            if !texts(&mut target, work).await?.is_empty() {
                idle_since = Instant::now();
            }
        }
        tokio::task::spawn_blocking(rustix::fs::sync).await?;
        Ok(())
    }

    /// Returns the seconds of processor time that OceanBase has taken since it was started.
    pub fn target_cpu_seconds(&self) -> Result<f64> {
        let path = self.lab_dir.join("run/oceanbase.pid");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let pid = text.split(' ').next().and_then(|pid| pid.parse().ok());
        Ok(process::cpu_seconds(
            pid.context("the process of OceanBase")?,
        ))
    }

    /// Takes back what the measurement made, but for the source's tables.
    pub async fn clear(&self) -> Result<()> {
        let _ = self.feed(&["remove", "--topic", self.name]);
        self.gather_statistics(true).await?;
        self.forget().await?;
        std::fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

/// Returns the root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Connects as administrator, with the settings that every session here has.
pub async fn connect(port: u16) -> Result<MySqlConnection> {
    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("root")
        // As rowproof does.
        .ssl_mode(MySqlSslMode::Preferred)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        .disable_statement_logging();
    let mut connection = options
        .connect()
        .await
        .with_context(|| format!("the server on port {port}"))?;
    run(&mut connection, "SET NAMES utf8mb4").await?;
    run(&mut connection, "SET SESSION time_zone = '+00:00'").await?;
    Ok(connection)
}

/// Runs a statement.
pub async fn run(connection: &mut MySqlConnection, sql: &str) -> Result<()> {
    let shown: String = sql.chars().take(80).collect();
    let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    query
        .execute(connection)
        .await
        .map(|_| ())
        .with_context(|| shown)
}

/// Reads the first column of a result.
pub async fn texts(connection: &mut MySqlConnection, sql: &str) -> Result<Vec<String>> {
    let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    let rows = query
        .fetch_all(connection)
        .await
        .with_context(|| sql.to_owned())?;
    rows.iter()
        .map(|row| Ok(row.try_get_unchecked::<String, usize>(0)?))
        .collect()
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}
