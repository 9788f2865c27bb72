//! Responses with the headers that every one carries.

use crate::error::Error;
use serde::Serialize;
use warp::Reply;
use warp::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use warp::http::{Response as HttpResponse, StatusCode};
use warp::reply::Response;

/// Plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The page.
pub const HTML: &str = "text/html; charset=utf-8";

/// Documents for programs.
pub const JSON: &str = "application/json";

/// The headers of every response: nothing is kept, framed, guessed or loaded from elsewhere.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Returns a response with this body.
pub fn with_body(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = HttpResponse::new(body).into_response();
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns a document for programs.
pub fn json<T: Serialize>(document: &T) -> Response {
    let body = serde_json::to_string(document).expect("documents have string keys");
    with_body(StatusCode::OK, JSON, body + "\n")
}

/// Returns one clear error for programs. Neither it nor its message repeats what was asked.
pub fn json_error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({"error": {"code": code, "message": message}});
    with_body(status, JSON, format!("{body}\n"))
}

/// Says that the journal cannot be read.
pub fn unreadable(error: &Error) -> Response {
    json_error(
        StatusCode::SERVICE_UNAVAILABLE,
        "journal-unreadable",
        error.message(),
    )
}

/// Says that there is nothing at this path.
pub fn not_found() -> Response {
    with_body(StatusCode::NOT_FOUND, TEXT, "not found\n".to_owned())
}

/// Says which methods a path takes: the page only shows and changes nothing.
pub fn method_not_allowed(allowed: &'static str) -> Response {
    let text = format!("only {allowed} is allowed here\n");
    let mut response = with_body(StatusCode::METHOD_NOT_ALLOWED, TEXT, text);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Says that a request to do something lacks the header that no foreign page can send.
pub fn foreign_request() -> Response {
    let message = "send the header X-Rowproof-Request with any value";
    json_error(StatusCode::FORBIDDEN, "foreign-request", message)
}

/// Says that this server has no such name.
pub fn misdirected(port: u16) -> Response {
    let text = format!(
        "This page answers only to localhost:{port}, 127.0.0.1:{port} and [::1]:{port}.\n\
         Through a tunnel, forward the same port: ssh -L {port}:127.0.0.1:{port} HOST\n"
    );
    with_body(StatusCode::MISDIRECTED_REQUEST, TEXT, text)
}

/// Adds the headers that every response carries.
pub fn guarded(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
