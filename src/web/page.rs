//! The page: is it safe to cut over, what is different, what is it doing now.

use super::Site;
use super::api::is_known;
use super::parameters::{Parameters, Refusal};
use super::response::{HTML, TEXT, with_body};
use super::script::{Preview, preview};
use crate::error::Result;
use crate::journal::{BatchRow, DefinitionRow, DifferenceRow, Phase};
use crate::proof::{DifferenceKind, Verdict};
use crate::report::{
    DifferenceRows, Shown, Summary, TableLine, count, definition_sentence, duration, key_text,
    note, shown, shown_pair, utc,
};
use crate::row::Cells;
use crate::schema::{Table, TableName};
use askama::Template;
use std::sync::Arc;
use warp::http::StatusCode;
use warp::reply::Response;

/// The differing rows on the first page: few, so that what the migration does now is near.
const FIRST_ROWS: usize = 10;

/// The differing rows on a page that was asked for.
const ROWS: usize = 50;

/// The columns that are shown of a row that only one side has.
const COLUMNS: usize = 12;

/// The batches on the page.
const BATCHES: i64 = 12;

/// Answers `/`.
pub async fn page(site: &Site, query: Parameters) -> Response {
    let (table, after) = match asked_for(query) {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    match render(site, table, after).await {
        Ok(Some(html)) => with_body(StatusCode::OK, HTML, html),
        Ok(None) => {
            let text = "the journal does not know this table\n".to_owned();
            with_body(StatusCode::NOT_FOUND, TEXT, text)
        }
        Err(error) => with_body(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            format!("{}\n", error.message()),
        ),
    }
}

fn asked_for(mut query: Parameters) -> std::result::Result<(Option<TableName>, i64), Refusal> {
    let asked = (query.table()?, query.after()?);
    query.end()?;
    Ok(asked)
}

async fn render(site: &Site, table: Option<TableName>, after: i64) -> Result<Option<String>> {
    if !is_known(site, table.as_ref()).await? {
        return Ok(None);
    }
    let summary = site.summary().await?;
    let (differences, next) = differences(site, table.clone(), after).await?;
    let page = Page {
        rail: rail(summary.status.phase),
        tables: summary.tables.iter().map(TableView::new).collect(),
        next: next.map(|after| address(table.as_ref(), after)),
        is_first: after == 0,
        first: address(table.as_ref(), 0),
        repair: preview(site, table.as_ref()).await?,
        repair_address: repair_address(table.as_ref()),
        table: table.map(|name| name.to_string()),
        batches: site
            .journal
            .batches(BATCHES)
            .await?
            .into_iter()
            .map(BatchView::new)
            .collect(),
        differences,
        summary,
    };
    Ok(Some(
        page.render().expect("the template writes to a string"),
    ))
}

/// All that the page shows.
#[derive(Template)]
#[template(path = "page.html", config = "src/web/askama.toml")]
struct Page {
    summary: Arc<Summary>,
    rail: Vec<Stop>,
    tables: Vec<TableView>,
    /// The table to which the differences are narrowed.
    table: Option<String>,
    differences: Vec<DifferenceView>,
    next: Option<String>,
    is_first: bool,
    first: String,
    repair: Preview,
    repair_address: String,
    batches: Vec<BatchView>,
}

impl Page {
    fn now(&self) -> String {
        utc(self.summary.now_ms)
    }

    /// Returns how the answer looks: without differences and without proof it is no alarm.
    fn tone(&self) -> &'static str {
        match (
            self.summary.answer.safe_to_cut_over,
            self.summary.differing_rows(),
        ) {
            (true, _) => "yes",
            (false, 0) => "no unproven",
            (false, _) => "no",
        }
    }

    fn proven_age(&self) -> String {
        self.summary
            .status
            .proven
            .map(|proven| self.summary.age(proven))
            .unwrap_or_default()
    }

    /// Returns the definitions that differ, each with its differences.
    fn differing_definitions(&self) -> Vec<&DefinitionRow> {
        let differs = |row: &&DefinitionRow| !row.verdict.differences.is_empty();
        self.summary.definitions.iter().filter(differs).collect()
    }

    fn definition_sentence(&self) -> String {
        definition_sentence(&self.summary.definitions)
    }

    /// Returns the share of the load as the two numbers of a progress bar; the estimate of the
    /// source may be too low.
    fn load_bar(&self) -> Option<(u64, u64)> {
        let load = &self.summary.status.load;
        let loading = self.summary.status.phase == Phase::Load;
        (loading && load.rows_estimate > 0).then(|| (load.rows, load.rows.max(load.rows_estimate)))
    }

    fn unproven_details(&self) -> impl Iterator<Item = &TableView> {
        self.tables.iter().filter(|table| !table.detail.is_empty())
    }
}

/// A phase on the way from start to following.
struct Stop {
    name: &'static str,
    state: &'static str,
}

fn rail(now: Phase) -> Vec<Stop> {
    const WAY: [(Phase, &str); 4] = [
        (Phase::Starting, "Start"),
        (Phase::Schema, "Schema"),
        (Phase::Load, "Full load"),
        (Phase::Follow, "Follow changes"),
    ];
    let reached = WAY.iter().position(|(phase, _)| *phase == now);
    let stop = |(place, (_, name)): (usize, &(Phase, &'static str))| {
        let state = match reached {
            Some(reached) if place < reached => "done",
            Some(reached) if place == reached => "now",
            _ => "ahead",
        };
        Stop { name, state }
    };
    match reached {
        Some(_) => WAY.iter().enumerate().map(stop).collect(),
        None => Vec::new(),
    }
}

/// A table's row in the grid of verdicts.
struct TableView {
    name: String,
    address: String,
    verdict: &'static str,
    qualifier: String,
    detail: String,
    as_of: String,
    fence: String,
    source: String,
    target: String,
    missing: String,
    extra: String,
    changed: String,
    repaired: u64,
    policies: String,
}

impl TableView {
    fn new(line: &TableLine) -> TableView {
        let (qualifier, detail) = match &line.verdict {
            Verdict::Equal { how, .. } if line.is_relaxed() => {
                (format!("{how}, relaxed"), String::new())
            }
            Verdict::Equal { how, .. } => (how.to_string(), String::new()),
            Verdict::Different { rows, .. } => {
                let plural = if *rows == 1 { "" } else { "s" };
                (format!("{} row{plural}", count(*rows)), String::new())
            }
            Verdict::Unproven { reason, detail } => (reason.to_string(), detail.clone()),
        };
        let fence = line.fence();
        TableView {
            name: line.name.to_string(),
            address: address(Some(&line.name), 0),
            verdict: line.verdict.word(),
            qualifier,
            detail,
            as_of: fence.map_or_else(|| "–".to_owned(), |fence| utc(fence_ms(fence))),
            fence: fence.map_or_else(String::new, |it| format!("fence W {}, S {}", it.w, it.s)),
            source: count(line.counts.source),
            target: count(line.counts.target),
            missing: count(line.counts.missing),
            extra: count(line.counts.extra),
            changed: count(line.counts.changed),
            repaired: line.repaired,
            policies: match line.is_relaxed() {
                true => line.policies_text(),
                false => String::new(),
            },
        }
    }
}

fn fence_ms(fence: crate::fence::Fence) -> i64 {
    i64::try_from(crate::feed::physical_ms(fence.w)).unwrap_or(i64::MAX)
}

/// A row that differs.
struct DifferenceView {
    kind: &'static str,
    meaning: &'static str,
    table: String,
    key: String,
    seen: String,
    fence: String,
    repaired: bool,
    columns: Vec<ColumnView>,
    more_columns: usize,
}

/// A column of a row that differs; a side without the row has no cell.
struct ColumnView {
    name: String,
    source: Option<Shown>,
    target: Option<Shown>,
    note: Option<&'static str>,
}

async fn differences(
    site: &Site,
    table: Option<TableName>,
    after: i64,
) -> Result<(Vec<DifferenceView>, Option<i64>)> {
    let limit = match (&table, after) {
        (None, 0) => FIRST_ROWS,
        _ => ROWS,
    };
    let mut rows = DifferenceRows::new(&site.journal, table, after);
    let mut views = Vec::new();
    let mut last = after;
    while let Some((model, row)) = rows.next().await? {
        if views.len() == limit {
            return Ok((views, Some(last)));
        }
        last = row.id;
        views.push(DifferenceView::new(model, &row));
    }
    Ok((views, None))
}

impl DifferenceView {
    fn new(table: &Table, row: &DifferenceRow) -> DifferenceView {
        let difference = &row.difference;
        let (kind, meaning) = match difference.kind {
            DifferenceKind::Missing => ("missing", "only the source has this row"),
            DifferenceKind::Extra => ("extra", "only the target has this row"),
            DifferenceKind::Changed => ("changed", "the row differs in these columns"),
        };
        let columns = columns(table, row);
        let shown: usize = if kind == "changed" {
            columns.len()
        } else {
            COLUMNS
        };
        DifferenceView {
            kind,
            meaning,
            table: row.table.to_string(),
            key: key_text(table, &difference.key),
            seen: format!("found by {} at {}", row.found_by, utc(row.at_ms)),
            fence: format!("fence W {}, S {}", row.fence.w, row.fence.s),
            repaired: row.repaired,
            more_columns: columns.len().saturating_sub(shown),
            columns: columns.into_iter().take(shown).collect(),
        }
    }
}

/// Returns the columns that differ, or all but the key of a row that one side lacks.
fn columns(table: &Table, row: &DifferenceRow) -> Vec<ColumnView> {
    let difference = &row.difference;
    let cells = |row: &Option<Vec<u8>>| -> Vec<Option<Vec<u8>>> {
        let cells = Cells::of(row.as_deref().unwrap_or_default());
        cells.map(|cell| cell.map(<[u8]>::to_vec)).collect()
    };
    let (source, target) = (cells(&difference.source), cells(&difference.target));
    let changed = difference.kind == DifferenceKind::Changed;
    let mut views = Vec::new();
    for (place, column) in table.columns.iter().enumerate() {
        let wanted = match changed {
            true => difference.columns.contains(&place),
            false => place >= table.key_len,
        };
        if !wanted {
            continue;
        }
        let left = source.get(place).map(Option::as_deref);
        let right = target.get(place).map(Option::as_deref);
        let (shown_left, shown_right) = match (left, right) {
            (Some(left), Some(right)) => {
                let (left, right) = shown_pair(&column.kind, left, right);
                (Some(left), Some(right))
            }
            (left, right) => (
                left.map(|it| shown(&column.kind, it)),
                right.map(|it| shown(&column.kind, it)),
            ),
        };
        let note = left
            .zip(right)
            .and_then(|(left, right)| note(&column.kind, left, right));
        views.push(ColumnView {
            name: column.name.clone(),
            source: shown_left,
            target: shown_right,
            note,
        });
    }
    views
}

impl DifferenceView {
    /// Returns the sides in the order of the columns, and whether each has the row.
    fn sides(&self) -> [(&'static str, bool); 2] {
        [
            ("Source", self.kind != "extra"),
            ("Target", self.kind != "missing"),
        ]
    }
}

impl ColumnView {
    /// Returns the cell of the only side that has the row.
    fn either(&self) -> Option<&Shown> {
        self.source.as_ref().or(self.target.as_ref())
    }
}

/// A batch that was proven.
struct BatchView {
    w: String,
    time: String,
    span: String,
    changes: String,
    keys: String,
    differences: String,
    verdict: String,
    proven: String,
}

impl BatchView {
    fn new(batch: BatchRow) -> BatchView {
        let from = crate::fence::Fence {
            w: batch.from,
            s: 0,
        };
        let end = fence_ms(batch.fence);
        BatchView {
            w: format!("fence W {}, S {}", batch.fence.w, batch.fence.s),
            time: utc(end),
            span: duration(end - fence_ms(from)),
            changes: count(batch.changes),
            keys: count(batch.keys),
            differences: count(batch.differences),
            verdict: batch.verdict,
            proven: duration(batch.at_ms - end),
        }
    }
}

/// Returns the page's address with the differences of a table, after one of them.
fn address(table: Option<&TableName>, after: i64) -> String {
    let mut parameters = Vec::new();
    if let Some(name) = table {
        parameters.push(format!("table={}", encoded(&name.to_string())));
    }
    if after > 0 {
        parameters.push(format!("after={after}"));
    }
    format!("/?{}#differences", parameters.join("&"))
}

fn repair_address(table: Option<&TableName>) -> String {
    match table {
        Some(name) => format!("/api/v1/repair.sql?table={}", encoded(&name.to_string())),
        None => "/api/v1/repair.sql".to_owned(),
    }
}

/// Writes a value as the address of a page needs it.
fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}
