//! Child processes whose time, processor time and peak memory are measured.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a child is looked at: the precision of a measured time.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The longest that anything measured here may take.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// The ticks in which Linux counts processor time, per second.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Cost {
    /// The time from start to end.
    pub seconds: f64,
    /// The processor time in user and kernel mode.
    pub cpu_seconds: f64,
    /// The peak of its resident memory.
    pub peak_bytes: u64,
}

/// A child that is ended when it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    began: Instant,
    cost: Cost,
    log: PathBuf,
}

impl Process {
    /// Starts a command. Its output goes to `NAME.out` and `NAME.err` in `dir`.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Process> {
        let log = dir.join(format!("{name}.err"));
        command
            .stdin(Stdio::null())
            .stdout(File::create(dir.join(format!("{name}.out")))?)
            .stderr(File::create(&log)?);
        let began = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            began,
            cost: Cost::default(),
            log,
        })
    }

    /// Waits for the end and returns what the process took.
    ///
    /// # Errors
    /// If it fails or takes too long.
    pub async fn finish(mut self) -> Result<Cost> {
        loop {
            self.look();
            if let Some(status) = self.child.try_wait()? {
                self.cost.seconds = self.began.elapsed().as_secs_f64();
                if !status.success() {
                    bail!("{} ended with {status}: {}", self.name, self.last_words());
                }
                return Ok(self.cost);
            }
            if self.began.elapsed() > PATIENCE {
                bail!(
                    "{} has not ended within {} s",
                    self.name,
                    PATIENCE.as_secs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Fails if the process has ended, and returns what it has taken so far.
    pub fn running(&mut self) -> Result<Cost> {
        self.look();
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}: {}", self.name, self.last_words());
        }
        Ok(self.cost)
    }

    /// Asks the process to end in order, as Ctrl-C does, and waits until it has.
    pub async fn stop(mut self) -> Result<Cost> {
        self.look();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(30) {
            if self.child.try_wait()?.is_some() {
                return Ok(self.cost);
            }
            self.look();
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("{} does not stop", self.name)
    }

    /// Takes the counters of the kernel, which are gone when the process has ended.
    fn look(&mut self) {
        let proc = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        self.cost.peak_bytes = self.cost.peak_bytes.max(kib.unwrap_or(0) * 1_024);
        self.cost.cpu_seconds = self.cost.cpu_seconds.max(cpu_seconds(self.child.id()));
        self.cost.seconds = self.began.elapsed().as_secs_f64();
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the processor time that a process has taken so far, in seconds; 0 if there is none.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything, user and kernel time are the 12th and 13th field.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let times = fields.split(' ').skip(11).take(2);
    let ticks: u32 = times.filter_map(|ticks| ticks.parse::<u32>().ok()).sum();
    f64::from(ticks) / TICKS_PER_SECOND
}
