//! Which path leads where.

use super::parameters::{Pairs, Parameters};
use super::response::{self, TEXT, with_body};
use super::{Site, api, metrics, page, script};
use warp::http::header::HOST;
use warp::http::{HeaderMap, Method, StatusCode};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

/// The style sheet, the script and the icon are part of the program: nothing is loaded from
/// elsewhere.
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const ICON: &str = include_str!("icon.svg");

/// The paths that ask for something to be done.
const RESYNC: &str = "/api/v1/resync";
const LIMITS: &str = "/api/v1/limits";

/// The header that every such request must carry, whatever it says.
pub const OWN_REQUEST: &str = "x-rowproof-request";

/// Returns the filter that answers every request.
///
/// Paths are told apart by one `match` and not by a chain of filters, so that an unknown path is
/// always 404 and another method always 405.
pub fn routes(
    site: Site,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    warp::any()
        .map(move || site.clone())
        .and(warp::method())
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::query::<Pairs>())
        .then(answer)
        .boxed()
}

async fn answer(
    site: Site,
    method: Method,
    path: FullPath,
    headers: HeaderMap,
    query: Pairs,
) -> Response {
    if !is_own_host(&headers, site.port) {
        return response::guarded(response::misdirected(site.port));
    }
    let query = Parameters::new(query);
    if method == Method::POST && [RESYNC, LIMITS].contains(&path.as_str()) {
        return response::guarded(match (is_own_request(&headers), path.as_str()) {
            (false, _) => response::foreign_request(),
            (true, RESYNC) => api::resync(&site, query).await,
            (true, _) => api::change_limits(&site, query).await,
        });
    }
    response::guarded(dispatch(&site, &method, path.as_str(), query).await)
}

async fn dispatch(site: &Site, method: &Method, path: &str, query: Parameters) -> Response {
    let known = [
        "/",
        "/style.css",
        "/script.js",
        "/icon.svg",
        "/healthz",
        "/metrics",
        "/api/v1/status",
        "/api/v1/tables",
        "/api/v1/definitions",
        "/api/v1/diffs",
        "/api/v1/repair.sql",
        RESYNC,
        LIMITS,
    ];
    if !known.contains(&path) {
        return response::not_found();
    }
    if path == RESYNC {
        return response::method_not_allowed("POST");
    }
    if method != Method::GET && method != Method::HEAD {
        return response::method_not_allowed(match path {
            LIMITS => "GET, HEAD, POST",
            _ => "GET, HEAD",
        });
    }
    let file = |content_type, text: &str| with_body(StatusCode::OK, content_type, text.to_owned());
    match path {
        "/" => page::page(site, query).await,
        "/style.css" => file("text/css; charset=utf-8", STYLE),
        "/script.js" => file("text/javascript; charset=utf-8", SCRIPT),
        "/icon.svg" => file("image/svg+xml", ICON),
        "/healthz" => health(site).await,
        "/metrics" => metrics::metrics(site).await,
        "/api/v1/status" => api::status(site, query).await,
        "/api/v1/tables" => api::tables(site, query).await,
        "/api/v1/definitions" => api::definitions(site, query).await,
        "/api/v1/diffs" => api::differences(site, query).await,
        LIMITS => api::limits(site, query).await,
        _ => script::download(site, query).await,
    }
}

/// Tells whether a request that asks for something was made for this program. A foreign page can have
/// the reader's browser send a form here, but no header of its own.
fn is_own_request(headers: &HeaderMap) -> bool {
    headers.contains_key(OWN_REQUEST)
}

/// Tells whether the request names this server. A foreign page that lets its own name point to this
/// machine sends that name.
fn is_own_host(headers: &HeaderMap, port: u16) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let with_port = format!(":{port}");
    let name = match host.strip_suffix(&with_port) {
        Some(name) => name,
        None if port == 80 => host,
        None => return false,
    };
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|own| own.eq_ignore_ascii_case(name))
}

/// Answers 200 when the journal can be read; whether a migration runs stands in the body, because
/// `serve` is healthy without one.
async fn health(site: &Site) -> Response {
    match site.summary().await {
        Ok(summary) => response::json(&serde_json::json!({
            "journal": "readable",
            "migration": if summary.live { "live" } else { "not running" },
            "phase": summary.status.phase,
        })),
        Err(error) => with_body(
            StatusCode::SERVICE_UNAVAILABLE,
            TEXT,
            format!("{}\n", error.message()),
        ),
    }
}
