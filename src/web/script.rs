//! The repair script over HTTP.

use super::Site;
use super::api::{is_known, unknown_table};
use super::parameters::{Parameters, Refusal};
use super::response::{TEXT, json_error, unreadable};
use crate::error::Result;
use crate::report::RepairScript;
use crate::schema::TableName;
use futures_util::stream::poll_fn;
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::sync::CancellationToken;
use warp::Reply;
use warp::http::StatusCode;
use warp::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};
use warp::reply::Response;

/// The bytes of a piece of the body.
const PIECE_BYTES: usize = 64 << 10;

/// How many pieces wait for a slow reader.
const PIECES: usize = 4;

/// How long a reader may take no piece before the script ends: it holds a connection of the
/// journal, which the migration needs.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// A piece of the body, or nothing at the end of the script. Whoever sees the channel close without
/// that end cuts the connection, so that no reader takes a part for the whole.
type Piece = Option<String>;

/// Answers `/api/v1/repair.sql`.
pub async fn download(site: &Site, query: Parameters) -> Response {
    let (table, as_file) = match asked_for(query) {
        Ok(asked) => asked,
        Err(refusal) => return *refusal,
    };
    match is_known(site, table.as_ref()).await {
        Ok(true) => {}
        Ok(false) => return unknown_table(),
        Err(error) => return unreadable(&error),
    }
    let Ok(permit) = site.scripts.clone().try_acquire_owned() else {
        return json_error(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "other repair scripts are being read; try again when they are done",
        );
    };
    let script = match RepairScript::open(&site.journal, table.as_ref()).await {
        Ok(script) => script,
        Err(error) => return unreadable(&error),
    };
    let (sender, receiver) = channel(PIECES);
    let stop = site.stop.clone();
    tokio::spawn(async move {
        send(script, sender, stop).await;
        drop(permit);
    });
    streamed(receiver, as_file)
}

fn asked_for(mut query: Parameters) -> std::result::Result<(Option<TableName>, bool), Refusal> {
    let asked = (query.table()?, query.flag("download")?);
    query.end()?;
    Ok(asked)
}

fn streamed(mut receiver: Receiver<Piece>, as_file: bool) -> Response {
    let mut ended = false;
    let stream = poll_fn(move |context| {
        receiver.poll_recv(context).map(|received| match received {
            Some(Some(text)) => Some(Ok(text)),
            Some(None) => {
                ended = true;
                None
            }
            None if ended => None,
            None => {
                ended = true;
                Some(Err("the repair script ended early"))
            }
        })
    });
    let mut response = warp::reply::stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    if as_file {
        let name = HeaderValue::from_static("attachment; filename=\"repair.sql\"");
        headers.insert(CONTENT_DISPOSITION, name);
    }
    response
}

/// Sends the script in pieces, until the reader is gone or too slow or the server stops.
async fn send(mut script: RepairScript, sender: Sender<Piece>, stop: CancellationToken) {
    let mut body = String::new();
    loop {
        let Ok(piece) = script.next_piece().await else {
            return;
        };
        let ended = piece.is_none();
        body.push_str(piece.as_deref().unwrap_or_default());
        if ended || body.len() >= PIECE_BYTES {
            let sent = sender.send_timeout(Some(std::mem::take(&mut body)), READER_PATIENCE);
            let kept = tokio::select! {
                sent = sent => sent.is_ok(),
                () = stop.cancelled() => false,
            };
            if !kept {
                return;
            }
        }
        if ended {
            // The reader took all pieces but the last few, or there is room.
            let _ = sender.send_timeout(None, READER_PATIENCE).await;
            return;
        }
    }
}

/// The beginning of the script, for the page.
#[derive(Debug, Default)]
pub struct Preview {
    /// The text.
    pub sql: String,
    /// How many statements it has.
    pub statements: u64,
    /// Whether there is more in the script.
    pub cut: bool,
}

/// The statements that the page shows.
const PREVIEW_STATEMENTS: u64 = 200;

/// The bytes that the page shows.
const PREVIEW_BYTES: usize = 128 << 10;

/// Returns the beginning of the script; nothing when no row differs.
pub async fn preview(site: &Site, table: Option<&TableName>) -> Result<Preview> {
    let mut script = RepairScript::open(&site.journal, table).await?;
    let mut preview = Preview::default();
    if script.rows() == 0 {
        return Ok(preview);
    }
    while let Some(piece) = script.next_piece().await? {
        let statements = script.statements();
        if statements > PREVIEW_STATEMENTS || preview.sql.len() + piece.len() > PREVIEW_BYTES {
            preview.cut = true;
            break;
        }
        preview.sql.push_str(&piece);
        preview.statements = statements;
    }
    Ok(preview)
}
