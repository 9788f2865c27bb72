//! The JSON documents.

use super::Site;
use super::parameters::{Parameters, Refusal};
use super::response::{json, json_error, unreadable};
use crate::error::Result;
use crate::report::{
    DefinitionDocument, DifferenceDocument, DifferenceRows, LimitsDocument, TableDocument,
    difference_document,
};
use crate::schema::TableName;
use serde::Serialize;
use warp::http::StatusCode;
use warp::reply::Response;

/// The rows of a page of differences, unless the request says how many.
const ROWS: usize = 50;

/// The most rows of a page.
const ROWS_MAX: usize = 200;

/// The bytes after which a page ends, whatever it was asked for (INV-8).
const PAGE_BYTES: usize = 4 << 20;

/// Answers `/api/v1/status`.
pub async fn status(site: &Site, query: Parameters) -> Response {
    if let Err(refusal) = query.end() {
        return *refusal;
    }
    match site.summary().await {
        Ok(summary) => json(&summary.document()),
        Err(error) => unreadable(&error),
    }
}

/// The document of `/api/v1/tables`.
#[derive(Serialize)]
struct TablesDocument {
    tables: Vec<TableDocument>,
}

/// Answers `/api/v1/tables`.
pub async fn tables(site: &Site, query: Parameters) -> Response {
    if let Err(refusal) = query.end() {
        return *refusal;
    }
    match site.summary().await {
        Ok(summary) => json(&TablesDocument {
            tables: summary.tables.iter().map(Into::into).collect(),
        }),
        Err(error) => unreadable(&error),
    }
}

/// The document of `/api/v1/definitions`.
#[derive(Serialize)]
struct DefinitionsDocument {
    definitions: Vec<DefinitionDocument>,
}

/// Answers `/api/v1/definitions`.
pub async fn definitions(site: &Site, query: Parameters) -> Response {
    if let Err(refusal) = query.end() {
        return *refusal;
    }
    match site.summary().await {
        Ok(summary) => json(&DefinitionsDocument {
            definitions: summary.definitions.iter().map(Into::into).collect(),
        }),
        Err(error) => unreadable(&error),
    }
}

/// The document of `/api/v1/diffs`.
#[derive(Serialize)]
struct DifferencesDocument {
    differences: Vec<DifferenceDocument>,
    /// Ask for more with this number as `after`; none at the end.
    next: Option<i64>,
}

/// Answers `/api/v1/diffs`.
pub async fn differences(site: &Site, query: Parameters) -> Response {
    match page_asked_for(query) {
        Ok((table, after, limit)) => {
            let document = differences_document(site, table, after, limit).await;
            match document {
                Ok(Some(document)) => json(&document),
                Ok(None) => unknown_table(),
                Err(error) => unreadable(&error),
            }
        }
        Err(refusal) => *refusal,
    }
}

fn page_asked_for(
    mut query: Parameters,
) -> std::result::Result<(Option<TableName>, i64, usize), Refusal> {
    let asked = (query.table()?, query.after()?, query.limit(ROWS, ROWS_MAX)?);
    query.end()?;
    Ok(asked)
}

/// Says that the journal knows no such table.
pub fn unknown_table() -> Response {
    json_error(
        StatusCode::NOT_FOUND,
        "unknown-table",
        "the journal does not know this table",
    )
}

/// The document of `/api/v1/resync`.
#[derive(Serialize)]
struct ResyncDocument {
    requested: Vec<String>,
}

/// Asks for a table to be loaded anew, or all that are held or stopped; the migration that runs takes
/// it up, or the next one.
pub async fn resync(site: &Site, mut query: Parameters) -> Response {
    let asked = query.table().and_then(|table| query.end().map(|()| table));
    let table = match asked {
        Ok(table) => table,
        Err(refusal) => return *refusal,
    };
    let request = async {
        if !is_known(site, table.as_ref()).await? {
            return Ok(None);
        }
        let names: Vec<TableName> = table.into_iter().collect();
        site.journal.request_bases(&names).await.map(Some)
    };
    match request.await {
        Ok(Some(names)) => json(&ResyncDocument {
            requested: names.iter().map(ToString::to_string).collect(),
        }),
        Ok(None) => unknown_table(),
        Err(error) => unreadable(&error),
    }
}

/// Answers `/api/v1/limits`.
pub async fn limits(site: &Site, query: Parameters) -> Response {
    if let Err(refusal) = query.end() {
        return *refusal;
    }
    match LimitsDocument::read(&site.journal, &site.limits).await {
        Ok(document) => json(&document),
        Err(error) => unreadable(&error),
    }
}

/// Changes limits of a side, and answers with those that count now.
pub async fn change_limits(site: &Site, mut query: Parameters) -> Response {
    let asked = query.limits().and_then(|asked| {
        query.end()?;
        Ok(asked)
    });
    let (side, wanted) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    for (name, request) in wanted {
        if let Err(error) = request.keep(&site.journal, side, name).await {
            return unreadable(&error);
        }
    }
    limits(site, Parameters::new(Vec::new())).await
}

async fn differences_document(
    site: &Site,
    table: Option<TableName>,
    after: i64,
    limit: usize,
) -> Result<Option<DifferencesDocument>> {
    if !is_known(site, table.as_ref()).await? {
        return Ok(None);
    }
    let mut rows = DifferenceRows::new(&site.journal, table, after);
    let mut differences = Vec::new();
    let mut bytes = 0;
    while differences.len() < limit && bytes < PAGE_BYTES {
        let Some((model, row)) = rows.next().await? else {
            return Ok(Some(DifferencesDocument {
                differences,
                next: None,
            }));
        };
        let document = difference_document(model, &row);
        bytes += document.byte_len();
        differences.push(document);
    }
    let next = differences.last().map(|last| last.id);
    Ok(Some(DifferencesDocument { differences, next }))
}

/// Tells whether the journal knows a table, if one is named.
pub async fn is_known(site: &Site, table: Option<&TableName>) -> Result<bool> {
    match table {
        Some(name) => Ok(site.journal.table_model(name).await?.is_some()),
        None => Ok(true),
    }
}
