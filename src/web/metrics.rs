//! The metrics. They have few series whatever the migration, and no name or value from its tables.

use super::Site;
use super::response::{unreadable, with_body};
use crate::journal::Phase;
use crate::proof::{Reason, Verdict};
use crate::report::Summary;
use crate::throttle::{LimitName, SideStatus};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use warp::http::StatusCode;
use warp::reply::Response;

/// The text format of these metrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels with names and values from this file only, so that their number is bounded.
type Labels = [(&'static str, &'static str); 1];

/// The phases, each of which is a series that is 1 or 0.
const PHASES: [Phase; 7] = [
    Phase::Idle,
    Phase::Starting,
    Phase::Schema,
    Phase::Load,
    Phase::Follow,
    Phase::Stopped,
    Phase::Failed,
];

/// Answers `/metrics`.
pub async fn metrics(site: &Site) -> Response {
    match site.summary().await {
        Ok(summary) => with_body(StatusCode::OK, OPEN_METRICS, text(&summary)),
        Err(error) => unreadable(&error),
    }
}

/// Returns all metrics as text.
fn text(summary: &Summary) -> String {
    let mut metrics = Metrics(Registry::with_prefix("rowproof"));
    verdicts(summary, &mut metrics);
    progress(summary, &mut metrics);
    process(summary, &mut metrics);
    sides(summary, &mut metrics);
    let mut text = String::new();
    encode(&mut text, &metrics.0).expect("writing to a string succeeds");
    text
}

fn verdicts(summary: &Summary, metrics: &mut Metrics) {
    metrics.gauge(
        "safe_to_cut_over",
        "1 if every table is equal and a live migration has proven a fence lately",
        u64::from(summary.answer.safe_to_cut_over),
    );
    let [equal, different, unproven] = summary.verdicts();
    metrics.family(
        "tables",
        "Tables by verdict",
        "verdict",
        [
            ("equal", equal),
            ("different", different),
            ("unproven", unproven),
        ],
    );
    let is_held = |table: &&crate::report::TableLine| {
        let reason = Reason::Held;
        matches!(&table.verdict, Verdict::Unproven { reason: why, .. } if *why == reason)
    };
    metrics.gauge(
        "held_tables",
        "Tables that are held because of a change that can never be applied",
        summary.tables.iter().filter(is_held).count() as u64,
    );
    let sum = |of: fn(&crate::report::TableLine) -> u64| summary.tables.iter().map(of).sum();
    metrics.family(
        "differing_rows",
        "Rows that are known to differ, by kind",
        "kind",
        [
            ("missing", sum(|table| table.counts.missing)),
            ("extra", sum(|table| table.counts.extra)),
            ("changed", sum(|table| table.counts.changed)),
        ],
    );
    metrics.gauge(
        "repaired_rows",
        "Rows that were repaired and not read again since",
        sum(|table| table.repaired),
    );
}

fn progress(summary: &Summary, metrics: &mut Metrics) {
    let status = &summary.status;
    let load = &status.load;
    metrics.gauge(
        "load_tables",
        "Tables in scope of the full load",
        load.tables,
    );
    metrics.gauge(
        "load_tables_done",
        "Tables loaded and proven whole",
        load.tables_done,
    );
    metrics.gauge("load_rows", "Rows loaded and proven", load.rows);
    metrics.gauge(
        "load_rows_estimate",
        "Estimate of all rows",
        load.rows_estimate,
    );
    metrics.gauge("load_chunks", "Chunks loaded and proven", load.chunks);
    metrics.counter(
        "changes_applied",
        "Changes applied since the process began",
        status.changes,
    );
    metrics.counter(
        "batches_applied",
        "Batches applied since the process began",
        status.batches,
    );
    metrics.gauge(
        "unproven_batches",
        "Batches that are applied and not proven yet",
        status.to_prove.batches,
    );
    metrics.gauge(
        "unproven_keys",
        "Keys of batches that are applied and not proven yet",
        status.to_prove.keys,
    );
    if let [(_, Some(lag)), ..] = summary.lags() {
        metrics.seconds("watermark_age_seconds", "Age of the feed's watermark", lag);
    }
    if let Some(fence) = status.fence {
        let age = summary.age_ms(fence);
        metrics.seconds("fence_age_seconds", "Age of the newest fence", age);
    }
    if let Some(proven) = status.proven {
        let age = summary.age_ms(proven);
        metrics.seconds("proven_age_seconds", "Age of the newest proven fence", age);
    }
}

/// A figure that each side has: its name, what it is, and how it is read.
type SideFigure = (&'static str, &'static str, fn(&SideStatus) -> u64);

/// What passes to and from both sides, and what holds it back.
fn sides(summary: &Summary, metrics: &mut Metrics) {
    let sides = [
        ("source", summary.status.source),
        ("target", summary.status.target),
    ];
    let each = |of: fn(&SideStatus) -> u64| sides.map(|(name, side)| (name, of(&side)));
    let figures: [SideFigure; 7] = [
        (
            "rows_read_per_second",
            "Rows read in a second, over the last seconds",
            |side| side.rows_read_per_second,
        ),
        (
            "bytes_read_per_second",
            "Bytes of rows read in a second, over the last seconds",
            |side| side.bytes_read_per_second,
        ),
        (
            "rows_written_per_second",
            "Rows written in a second, over the last seconds",
            |side| side.rows_written_per_second,
        ),
        (
            "bytes_written_per_second",
            "Bytes of statements that wrote rows in a second, over the last seconds",
            |side| side.bytes_written_per_second,
        ),
        (
            "connections_at_work",
            "The most connections at work at once in the last second",
            |side| side.connections,
        ),
        (
            "held_by_limit",
            "1 if a limit held something back in the last second",
            |side| {
                u64::from(
                    LimitName::ALL
                        .into_iter()
                        .any(|limit| side.is_held_by(limit)),
                )
            },
        ),
        (
            "slowed_down",
            "How many times slower the side answers than it did, while less is asked of it; else 0",
            |side| side.slow.map_or(0, |slow| slow.times.max(1)),
        ),
    ];
    for (name, help, of) in figures {
        metrics.family(name, help, "side", each(of));
    }
}

fn process(summary: &Summary, metrics: &mut Metrics) {
    let status = &summary.status;
    metrics.gauge("live", "1 if a migration runs", u64::from(summary.live));
    let phases = PHASES.map(|phase| (phase.as_str(), u64::from(phase == status.phase)));
    metrics.family("phase", "1 for the phase of the migration", "phase", phases);
    metrics.gauge(
        "waiting_bytes",
        "Bytes of changes that wait for the watermark",
        status.waiting_bytes,
    );
    metrics.gauge(
        "spool_bytes",
        "Bytes of the feed that are kept on disk because Kafka may drop them",
        status.spool_bytes,
    );
    metrics.gauge(
        "resident_bytes",
        "Resident memory of the migration",
        status.resident_bytes,
    );
}

/// A registry that is filled from one reading of the journal.
struct Metrics(Registry);

impl Metrics {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    fn seconds(&mut self, name: &str, help: &str, milliseconds: i64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(milliseconds as f64 / 1_000.0);
        self.0.register(name, help, gauge);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn family<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: [(&'static str, u64); N],
    ) {
        let family = Family::<Labels, Gauge<u64, AtomicU64>>::default();
        for (of, value) in values {
            family.get_or_create(&[(label, of)]).set(value);
        }
        self.0.register(name, help, family);
    }
}
