//! sync_diff_inspector, built from the Go module proxy and made to run against OceanBase.

use crate::DATABASE;
use crate::lab::process::{Cost, Process};
use crate::lab::{Lab, repository, run, texts};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The user as whom it reads: `init_connect` is not run for root.
const USER: &str = "rowproof_bench";

/// Without it, sync_diff_inspector stops at the clauses of OceanBase's own in `SHOW CREATE TABLE`.
const INIT_CONNECT: &str = "set _show_ddl_in_compat_mode=1";

/// The threads that compare.
const THREADS: usize = 4;

/// sync_diff_inspector, ready to run.
#[derive(Debug)]
pub struct Peer {
    program: PathBuf,
    config: PathBuf,
}

impl Peer {
    /// Builds it and prepares both servers for it; none, with the reason told, if it cannot be built.
    pub async fn prepare(lab: &Lab) -> Result<Option<Peer>> {
        let build = Command::new(repository().join("benches/peers/build"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("benches/peers/build")?;
        if !build.status.success() {
            eprintln!("sync_diff_inspector is left out: it could not be built");
            return Ok(None);
        }
        let home = String::from_utf8_lossy(&build.stdout).trim().to_owned();
        let program = Path::new(&home).join("sync_diff_inspector");
        let (mut source, mut target) = (lab.source().await?, lab.target().await?);
        for server in [&mut source, &mut target] {
            run(server, &format!("CREATE USER IF NOT EXISTS {USER}")).await?;
        }
        run(&mut source, &format!("GRANT SELECT ON *.* TO {USER}")).await?;
        run(&mut target, &format!("GRANT ALL ON {DATABASE}.* TO {USER}")).await?;
        let found = texts(&mut target, "SELECT @@GLOBAL.init_connect").await?;
        match found.first().map(String::as_str) {
            Some("" | INIT_CONNECT) => {}
            _ => bail!("OceanBase has an init_connect of its own, which stays: use another lab"),
        }
        run(
            &mut target,
            &format!("SET GLOBAL init_connect = '{INIT_CONNECT}'"),
        )
        .await?;
        let config = lab.dir.join("sync_diff.toml");
        std::fs::write(&config, config_text(lab)?)?;
        Ok(Some(Peer { program, config }))
    }

    /// Runs it once.
    ///
    /// # Errors
    /// Also when it does not find the tables equal: then its time says nothing.
    pub async fn run(&self, lab: &Lab) -> Result<Cost> {
        let output = lab.dir.join("sync_diff");
        // It goes on from the checkpoint that it finds there.
        let _ = std::fs::remove_dir_all(&output);
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.config)
            .current_dir(&lab.dir);
        let cost = Process::start("sync_diff", &mut command, &lab.dir)?
            .finish()
            .await?;
        let summary = std::fs::read_to_string(output.join("summary.txt")).unwrap_or_default();
        let words = std::fs::read_to_string(lab.dir.join("sync_diff.out")).unwrap_or_default();
        if !words.contains("equivalent") {
            bail!("sync_diff_inspector does not find the tables equal: {words} {summary}");
        }
        Ok(cost)
    }
}

/// Takes back what was set for it on the servers, if anything was.
pub async fn restore(lab: &Lab) -> Result<()> {
    let (mut source, mut target) = (lab.source().await?, lab.target().await?);
    if texts(&mut target, "SELECT @@GLOBAL.init_connect").await? == [INIT_CONNECT] {
        run(&mut target, "SET GLOBAL init_connect = ''").await?;
    }
    for server in [&mut source, &mut target] {
        run(server, &format!("DROP USER IF EXISTS {USER}")).await?;
    }
    Ok(())
}

fn config_text(lab: &Lab) -> Result<String> {
    Ok(format!(
        r#"check-thread-count = {THREADS}
export-fix-sql = false
check-struct-only = false

[data-sources.source]
host = "127.0.0.1"
port = {source}
user = "{USER}"
password = ""

[data-sources.target]
host = "127.0.0.1"
port = {target}
user = "{USER}"
password = ""

[task]
output-dir = "{dir}/sync_diff"
source-instances = ["source"]
target-instance = "target"
target-check-tables = ["{DATABASE}.*"]
"#,
        source = lab.source_port()?,
        target = lab.target_port()?,
        dir = lab.dir.display(),
    ))
}
