//! What came out, as a table for people and as JSON for programs.

use crate::lab::process::Cost;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use std::fmt;

/// The most that a check may take, in bare reads.
const CHECK_MOST: f64 = 1.25;

/// The most resident memory of rowproof.
const MEMORY_MOST: u64 = 300 << 20;

/// The part of sync_diff_inspector's time that is aimed at.
const SYNC_DIFF_AIM: f64 = 0.5;

/// One round of what is compared.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Round {
    /// `rowproof check`.
    pub check: Cost,
    /// The bare reads.
    pub bare: Cost,
    /// sync_diff_inspector, if it is there.
    pub sync_diff: Option<Cost>,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "check {:.2} s, bare reads {:.2} s",
            self.check.seconds, self.bare.seconds
        )?;
        match &self.sync_diff {
            Some(cost) => write!(f, ", sync_diff_inspector {:.2} s", cost.seconds),
            None => Ok(()),
        }
    }
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The rows of the table.
    pub rows: u64,
    /// Their bytes as text.
    pub text_bytes: u64,
    /// The connections to each side.
    pub workers: usize,
    /// The chunks of a check.
    pub chunks: usize,
    /// Whether the machine had little else to do when the rounds began.
    pub quiet: bool,
    /// The load with its proof.
    pub load: Cost,
    /// The migration that follows while checks run.
    pub follow: Cost,
    /// The rounds.
    pub rounds: Vec<Round>,
}

/// A promise, and whether it is kept.
#[derive(Clone, Debug, Serialize)]
struct Bound {
    what: &'static str,
    found: f64,
    most: f64,
    holds: bool,
}

/// The middle and the ends of what several rounds gave.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first(), values.last()) else {
            return Spread::default();
        };
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Spread {
            median: (low + high) / 2.0,
            least: *least,
            most: *most,
        }
    }
}

impl Measured {
    fn spread(&self, value: impl Fn(&Round) -> Option<f64>) -> Spread {
        Spread::of(self.rounds.iter().filter_map(value))
    }

    fn check(&self) -> Spread {
        self.spread(|round| Some(round.check.seconds))
    }

    fn bare(&self) -> Spread {
        self.spread(|round| Some(round.bare.seconds))
    }

    fn sync_diff(&self) -> Option<Spread> {
        let any = self.rounds.iter().any(|round| round.sync_diff.is_some());
        any.then(|| self.spread(|round| Some(round.sync_diff.as_ref()?.seconds)))
    }

    /// Returns the peaks of memory of the load, of following, and of the checks.
    fn peaks(&self) -> [u64; 3] {
        let check = self
            .rounds
            .iter()
            .map(|round| round.check.peak_bytes)
            .max()
            .unwrap_or(0);
        [self.load.peak_bytes, self.follow.peak_bytes, check]
    }

    fn bounds(&self) -> Vec<Bound> {
        let bound = |what, found, most| Bound {
            what,
            found,
            most,
            holds: found <= most,
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let [load, follow, check] = self.peaks();
        vec![
            bound(
                "check / bare reads",
                self.check().median / self.bare().median,
                CHECK_MOST,
            ),
            bound("MiB of the load", mib(load), mib(MEMORY_MOST)),
            bound("MiB while following", mib(follow), mib(MEMORY_MOST)),
            bound("MiB of a check", mib(check), mib(MEMORY_MOST)),
        ]
    }

    /// Returns the part of sync_diff_inspector's time that a check took.
    fn part_of_sync_diff(&self) -> Option<f64> {
        Some(self.check().median / self.sync_diff()?.median)
    }

    /// Tells whether every bound holds. What is only aimed at does not count.
    pub fn all_bounds_hold(&self) -> bool {
        self.bounds().iter().all(|bound| bound.holds)
    }
}

impl Serialize for Measured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_struct("Measured", 14)?;
        all.serialize_field("rows", &self.rows)?;
        all.serialize_field("text_bytes", &self.text_bytes)?;
        all.serialize_field("workers", &self.workers)?;
        all.serialize_field("chunks", &self.chunks)?;
        all.serialize_field("quiet", &self.quiet)?;
        all.serialize_field("load", &self.load)?;
        all.serialize_field("follow", &self.follow)?;
        all.serialize_field("check_seconds", &self.check())?;
        all.serialize_field("bare_seconds", &self.bare())?;
        all.serialize_field("sync_diff_seconds", &self.sync_diff())?;
        all.serialize_field("part_of_sync_diff", &self.part_of_sync_diff())?;
        all.serialize_field("bounds", &self.bounds())?;
        all.serialize_field("all_bounds_hold", &self.all_bounds_hold())?;
        all.serialize_field("rounds", &self.rounds)?;
        all.end()
    }
}

/// Returns everything as a plain table.
pub fn table(measured: &Measured) -> String {
    let mut lines = vec![
        format!(
            "{} rows of 10 columns, {:.0} MB as text, {} connections to each side, {} chunks, \
             {} rounds{}",
            measured.rows,
            measured.text_bytes as f64 / 1e6,
            measured.workers,
            measured.chunks,
            measured.rounds.len(),
            if measured.quiet {
                ""
            } else {
                "; the machine was busy with other work"
            },
        ),
        format!(
            "{:<36}{:>9}{:>9}{:>9}{:>9}{:>11}{:>9}",
            "", "median s", "least", "most", "CPU s", "rows/s", "MiB"
        ),
    ];
    let one = Spread::of([measured.load.seconds].into_iter());
    lines.push(line("load and proof", one, measured.load, measured.rows));
    let checks: Vec<Cost> = measured.rounds.iter().map(|round| round.check).collect();
    lines.push(line(
        "rowproof check",
        measured.check(),
        middle(&checks),
        measured.rows,
    ));
    let bare: Vec<Cost> = measured.rounds.iter().map(|round| round.bare).collect();
    lines.push(line(
        "bare reads of the same SQL",
        measured.bare(),
        middle(&bare),
        measured.rows,
    ));
    if let Some(spread) = measured.sync_diff() {
        let peer: Vec<Cost> = measured
            .rounds
            .iter()
            .filter_map(|round| round.sync_diff)
            .collect();
        lines.push(line(
            "sync_diff_inspector, 4 threads",
            spread,
            middle(&peer),
            measured.rows,
        ));
    }
    lines.push(String::new());
    for bound in measured.bounds() {
        let holds = if bound.holds { "holds" } else { "MISSED" };
        lines.push(format!(
            "{:<36}{:>9.2}  bound {:>7.2}  {holds}",
            bound.what, bound.found, bound.most
        ));
    }
    match measured.part_of_sync_diff() {
        Some(part) => {
            let reached = if part <= SYNC_DIFF_AIM {
                "reached"
            } else {
                "not reached"
            };
            lines.push(format!(
                "{:<36}{part:>9.2}  aim   {SYNC_DIFF_AIM:>7.2}  {reached}",
                "check / sync_diff_inspector"
            ));
        }
        None => lines.push("sync_diff_inspector was not measured".to_owned()),
    }
    lines.join("\n")
}

/// Returns the middle of the processor times and the greatest of the peaks.
fn middle(costs: &[Cost]) -> Cost {
    Cost {
        seconds: Spread::of(costs.iter().map(|cost| cost.seconds)).median,
        cpu_seconds: Spread::of(costs.iter().map(|cost| cost.cpu_seconds)).median,
        peak_bytes: costs.iter().map(|cost| cost.peak_bytes).max().unwrap_or(0),
    }
}

fn line(what: &str, seconds: Spread, cost: Cost, rows: u64) -> String {
    format!(
        "{what:<36}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>11.0}{:>9.0}",
        seconds.median,
        seconds.least,
        seconds.most,
        cost.cpu_seconds,
        rows as f64 / seconds.median,
        cost.peak_bytes as f64 / f64::from(1 << 20),
    )
}
