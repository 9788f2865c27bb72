//! Every route as a client sees it.

use super::parameters::Parameters;
use super::{Site, route, serve};
use crate::ErrorKind;
use crate::report::testing::{
    TestJournal, add_differences, add_equal_table, difference, empty_journal, following_journal,
    row,
};
use crate::throttle::{Limits, Slow};
use tokio_util::sync::CancellationToken;
use warp::http::{Response, StatusCode};
use warp::hyper::body::Bytes;

const PORT: u16 = 8080;

/// A value that must never be seen where no row value belongs (INV-7).
const CANARY: &str = "canary-7f3a";

async fn ask(test: &TestJournal, method: &str, host: &str, path: &str) -> Response<Bytes> {
    let site = Site::new(
        test.journal.clone(),
        Limits::default(),
        PORT,
        CancellationToken::new(),
    );
    let request = warp::test::request()
        .method(method)
        .path(path)
        .header("host", host);
    request.reply(&route::routes(site)).await
}

async fn get(test: &TestJournal, path: &str) -> (StatusCode, String) {
    let response = ask(test, "GET", "127.0.0.1:8080", path).await;
    (
        response.status(),
        String::from_utf8_lossy(response.body()).into_owned(),
    )
}

async fn document(test: &TestJournal, path: &str) -> serde_json::Value {
    let (status, body) = get(test, path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).expect("a JSON document")
}

#[tokio::test]
async fn every_route_answers_with_the_headers_of_all() {
    let test = following_journal().await;
    let routes = [
        ("/", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/script.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/healthz", "application/json"),
        (
            "/metrics",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("/api/v1/status", "application/json"),
        ("/api/v1/tables", "application/json"),
        ("/api/v1/definitions", "application/json"),
        ("/api/v1/limits", "application/json"),
        ("/api/v1/diffs", "application/json"),
        ("/api/v1/repair.sql", "text/plain; charset=utf-8"),
    ];
    for (path, content_type) in routes {
        for method in ["GET", "HEAD"] {
            let response = ask(&test, method, "localhost:8080", path).await;
            assert_eq!(response.status(), StatusCode::OK, "{method} {path}");
            let header = |name: &str| response.headers()[name].to_str().expect("text");
            assert_eq!(header("content-type"), content_type, "{path}");
            assert_eq!(header("x-frame-options"), "DENY");
            assert_eq!(header("x-content-type-options"), "nosniff");
            assert_eq!(header("cache-control"), "no-store");
            assert_eq!(header("referrer-policy"), "no-referrer");
            assert!(header("content-security-policy").starts_with("default-src 'none'"));
            assert!(!header("content-security-policy").contains("unsafe"));
        }
    }
}

#[tokio::test]
async fn a_foreign_host_is_refused_whatever_it_asks() {
    let test = following_journal().await;
    let foreign = [
        "evil.example:8080",
        "localhost",
        "127.0.0.1:80",
        "localhost:8080.evil",
        "",
    ];
    for host in foreign {
        for path in ["/", "/api/v1/diffs", "/metrics", "/nothing"] {
            let response = ask(&test, "GET", host, path).await;
            assert_eq!(
                response.status(),
                StatusCode::MISDIRECTED_REQUEST,
                "{host} {path}"
            );
            assert!(response.headers().contains_key("content-security-policy"));
        }
    }
    for host in [
        "localhost:8080",
        "LOCALHOST:8080",
        "127.0.0.1:8080",
        "[::1]:8080",
    ] {
        assert_eq!(
            ask(&test, "GET", host, "/").await.status(),
            StatusCode::OK,
            "{host}"
        );
    }
    let site = Site::new(
        test.journal.clone(),
        Limits::default(),
        PORT,
        CancellationToken::new(),
    );
    let without = warp::test::request()
        .path("/")
        .reply(&route::routes(site))
        .await;
    assert_eq!(without.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn a_table_is_loaded_anew_only_for_who_can_send_a_header_of_its_own() {
    let test = following_journal().await;
    let known = test.journal.tables().await.expect("tables")[0].name.clone();
    let path = format!("/api/v1/resync?table={known}");
    let response = ask(&test, "POST", "localhost:8080", &path).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let response = ask(&test, "GET", "localhost:8080", &path).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "POST");
    assert!(test.journal.base_requests().await.expect("none").is_empty());
    let site = Site::new(
        test.journal.clone(),
        Limits::default(),
        PORT,
        CancellationToken::new(),
    );
    for (path, status) in [
        (path.as_str(), StatusCode::OK),
        ("/api/v1/resync?table=no.such", StatusCode::NOT_FOUND),
        ("/api/v1/resync?tabel=shop.orders", StatusCode::BAD_REQUEST),
    ] {
        let request = warp::test::request()
            .method("POST")
            .path(path)
            .header("host", "localhost:8080")
            .header(route::OWN_REQUEST, "1");
        let response = request.reply(&route::routes(site.clone())).await;
        assert_eq!(response.status(), status, "{path}");
    }
    let requests = test.journal.base_requests().await.expect("one");
    assert_eq!(requests, [known]);
}

#[tokio::test]
async fn limits_are_changed_only_for_who_can_send_a_header_of_its_own() {
    let test = following_journal().await;
    let mut file = Limits::default();
    file.source.rows_per_second = Some(9_000);
    let site = Site::new(test.journal.clone(), file, PORT, CancellationToken::new());
    let path = "/api/v1/limits?side=source&rows_per_second=500&connections=2";
    let response = ask(&test, "POST", "localhost:8080", path).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let response = ask(&test, "POST", "evil.example:8080", path).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert!(test.journal.limit_changes().await.expect("none").is_empty());
    let post = async |path: &str| {
        let request = warp::test::request()
            .method("POST")
            .path(path)
            .header("host", "localhost:8080")
            .header(route::OWN_REQUEST, "1");
        request.reply(&route::routes(site.clone())).await
    };
    let response = post(path).await;
    assert_eq!(response.status(), StatusCode::OK);
    let limits: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(limits["source"]["rows_per_second"], 500);
    assert_eq!(limits["source"]["connections"], 2);
    assert_eq!(limits["target"]["connections"], serde_json::Value::Null);
    let response = post("/api/v1/limits?side=source&rows_per_second=file&connections=none").await;
    let limits: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(limits["source"]["rows_per_second"], 9_000);
    assert_eq!(limits["source"]["changed"][0], "connections");
    for bad in [
        "/api/v1/limits",
        "/api/v1/limits?side=middle&rows_per_second=500",
        "/api/v1/limits?side=source",
        "/api/v1/limits?side=source&rows_per_second=0",
        "/api/v1/limits?side=source&connections=many",
        "/api/v1/limits?side=source&rows=500",
    ] {
        assert_eq!(post(bad).await.status(), StatusCode::BAD_REQUEST, "{bad}");
    }
    let changes = test.journal.limit_changes().await.expect("one");
    assert_eq!(changes.len(), 1);
}

#[tokio::test]
async fn unknown_paths_methods_and_parameters_are_told_apart() {
    let test = following_journal().await;
    let (status, body) = get(&test, "/api/v1/nothing").await;
    assert_eq!(
        (status, body.as_str()),
        (StatusCode::NOT_FOUND, "not found\n")
    );
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let response = ask(&test, method, "localhost:8080", "/api/v1/status").await;
        assert_eq!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED,
            "{method}"
        );
        assert_eq!(response.headers()["allow"], "GET, HEAD");
    }
    let bad = [
        "/api/v1/diffs?limit=0",
        "/api/v1/diffs?limit=201",
        "/api/v1/diffs?after=-1",
        "/api/v1/diffs?after=x",
        "/api/v1/diffs?table=orders",
        "/api/v1/diffs?tabel=shop.orders",
        "/api/v1/diffs?limit=1&limit=2",
        "/api/v1/repair.sql?download=yes",
        "/api/v1/status?x=1",
        "/?table=%3Cscript%3E",
    ];
    for path in bad {
        let (status, body) = get(&test, path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        let error: serde_json::Value = serde_json::from_str(&body).expect("one JSON error");
        assert_eq!(error["error"]["code"], "bad-parameter", "{path}");
        assert!(!body.contains("script"), "{path}");
    }
    for path in [
        "/api/v1/diffs?table=a.b",
        "/api/v1/repair.sql?table=a.b",
        "/?table=a.b",
    ] {
        assert_eq!(get(&test, path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn the_page_answers_first_and_says_why() {
    let test = following_journal().await;
    let (_, html) = get(&test, "/").await;
    assert!(html.contains("class=\"answer yes\""), "{html}");
    assert!(
        html.contains("1 table equal: 1 by reading both sides"),
        "{html}"
    );
    assert!(html.contains("There is nothing to repair."), "{html}");

    let found = [difference(7, Some(row(7, Some("a"))), Some(row(7, None)))];
    add_differences(&test.journal, "orders", &found).await;
    let (_, html) = get(&test, "/").await;
    assert!(html.contains("class=\"answer no\""), "{html}");
    assert!(html.contains("shop.orders differs in 1 row"), "{html}");
    assert!(html.contains("<span class=\"null\">NULL</span>"), "{html}");
    assert!(html.contains("UPDATE `shop`.`orders` SET `note`"), "{html}");
    let order = [
        "id=\"answer\"",
        "id=\"differences\"",
        "id=\"activity\"",
        "id=\"tables\"",
    ];
    let places = order.map(|part| html.find(part).expect("the section"));
    assert!(places.is_sorted());
}

#[tokio::test]
async fn an_empty_journal_shows_a_page() {
    let test = empty_journal().await;
    let (status, html) = get(&test, "/").await;
    assert_eq!(status, StatusCode::OK);
    assert!(html.contains("no table has been read yet"), "{html}");
    let status = document(&test, "/api/v1/status").await;
    assert_eq!(
        (&status["safe_to_cut_over"], &status["live"]),
        (&false.into(), &false.into())
    );
}

#[tokio::test]
async fn values_cannot_become_part_of_the_page() {
    let test = following_journal().await;
    let evil = "<script>alert(1)</script>\"'&";
    let found = [
        difference(1, Some(row(1, Some(evil))), Some(row(1, None))),
        difference(2, Some(row(2, Some(evil))), None),
    ];
    add_differences(&test.journal, "orders", &found).await;
    let name = "<img src=x onerror=alert(1)>";
    add_equal_table(&test.journal, name, 1).await;
    let (_, html) = get(&test, "/").await;
    assert!(!html.contains("<script>alert"), "{html}");
    assert!(!html.contains("<img"), "{html}");
    assert!(html.contains("&#60;script&#62;alert(1)"), "{html}");
    assert!(!html.contains(" style="), "no inline style");
    assert!(!html.contains(" onclick="), "no inline script");
    let (status, _) = get(
        &test,
        "/?table=shop.%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E",
    )
    .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn differences_come_in_pages() {
    let test = following_journal().await;
    let found: Vec<_> = (0..60)
        .map(|id| difference(id, Some(row(id, None)), None))
        .collect();
    add_differences(&test.journal, "orders", &found).await;
    let mut seen = Vec::new();
    let mut next = serde_json::json!(0);
    while !next.is_null() {
        let path = format!("/api/v1/diffs?table=shop.orders&limit=20&after={next}");
        let page = document(&test, &path).await;
        let rows = page["differences"].as_array().expect("rows");
        assert!(rows.len() <= 20);
        seen.extend(rows.iter().map(|row| row["id"].as_i64().expect("a number")));
        next = page["next"].clone();
    }
    assert_eq!(seen.len(), 60);
    assert!(seen.is_sorted());
    let (_, html) = get(&test, "/?table=shop.orders").await;
    assert!(html.contains("Next rows"), "{html}");
}

#[tokio::test]
async fn a_huge_value_is_cut_and_says_so() {
    let test = following_journal().await;
    let huge = "x".repeat(3 << 20);
    let found = [difference(1, Some(row(1, Some(&huge))), Some(row(1, None)))];
    add_differences(&test.journal, "orders", &found).await;
    let page = document(&test, "/api/v1/diffs").await;
    let cell = &page["differences"][0]["columns"][2]["source"];
    assert_eq!(cell["truncated_from_bytes"], 3 << 20);
    let (_, html) = get(&test, "/").await;
    assert!(html.len() < 64 << 10, "{} bytes", html.len());
    assert!(html.contains("3,145,728 characters"), "{html}");
    let (_, sql) = get(&test, "/api/v1/repair.sql").await;
    assert!(sql.contains(&huge), "the script has the whole value");
}

#[tokio::test]
async fn the_repair_of_thousands_of_rows_streams_whole() {
    let test = following_journal().await;
    let found: Vec<_> = (0..5_000)
        .map(|id| difference(id, None, Some(row(id, None))))
        .collect();
    add_differences(&test.journal, "orders", &found).await;
    let response = ask(
        &test,
        "GET",
        "localhost:8080",
        "/api/v1/repair.sql?download=1",
    )
    .await;
    assert_eq!(
        response.headers()["content-disposition"],
        "attachment; filename=\"repair.sql\""
    );
    let sql = String::from_utf8_lossy(response.body()).into_owned();
    assert_eq!(sql.matches("\nDELETE FROM `shop`.`orders`").count(), 5_000);
    assert_eq!(
        sql.matches("\nSTART TRANSACTION;").count(),
        sql.matches("\nCOMMIT;").count()
    );
    assert!(sql.ends_with("-- end of the script, statements: 5000\n"));
    let (_, html) = get(&test, "/").await;
    assert_eq!(html.matches("\nDELETE FROM").count(), 200);
    assert!(
        html.contains("Only the first 200 statements are shown"),
        "{html}"
    );
}

#[tokio::test]
async fn a_whole_script_does_not_ask_to_be_saved_unless_wanted() {
    let test = following_journal().await;
    let response = ask(&test, "GET", "localhost:8080", "/api/v1/repair.sql").await;
    assert!(!response.headers().contains_key("content-disposition"));
    assert!(
        response
            .body()
            .ends_with(b"-- end of the script, statements: 0\n")
    );
}

#[tokio::test]
async fn inv_7_metrics_and_health_carry_no_row_value() {
    let test = following_journal().await;
    let found = [difference(
        1,
        Some(row(1, Some(CANARY))),
        Some(row(1, None)),
    )];
    add_differences(&test.journal, "orders", &found).await;
    add_equal_table(&test.journal, CANARY, 1).await;
    for path in ["/metrics", "/healthz", "/api/v1/diffs?table=canary"] {
        assert!(!get(&test, path).await.1.contains(CANARY), "{path}");
    }
    assert!(
        get(&test, "/api/v1/diffs").await.1.contains(CANARY),
        "the diffs show values"
    );
    let (_, metrics) = get(&test, "/metrics").await;
    for line in [
        "rowproof_tables{verdict=\"different\"} 1",
        "rowproof_differing_rows{kind=\"changed\"} 1",
        "rowproof_safe_to_cut_over 0",
        "rowproof_live 1",
        "rowproof_phase{phase=\"follow\"} 1",
        "rowproof_changes_applied_total 1234",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(
        metrics.contains("rowproof_proven_age_seconds "),
        "{metrics}"
    );
}

#[tokio::test]
async fn what_it_does_now_is_shown_with_what_holds_it_back() {
    let test = following_journal().await;
    let mut status = test.journal.status().await.expect("a status");
    status.watermark = status.fence.map(|fence| fence.w);
    status.to_prove.batches = 3;
    status.to_prove.keys = 1_700;
    status.source.rows_read_per_second = 4_321;
    status.source.limits.rows_per_second = Some(5_000);
    status.source.held_by_rows = true;
    status.target.slow = Some(Slow {
        times: 4,
        connections: 2,
        of: 4,
    });
    test.journal.set_status(&status).await.expect("kept");
    let slow = "the target answers 4x slower than it did: 2 of 4 connections at work";
    let limited = "the source is held to its limit of 5,000 rows/s";
    let document = document(&test, "/api/v1/status").await;
    assert_eq!(document["throttled"], serde_json::json!([limited, slow]));
    assert_eq!(document["to_prove"]["keys"], 1_700);
    assert_eq!(document["source"]["rows_read_per_second"], 4_321);
    for lag in ["watermark", "applied", "proven"] {
        assert!(
            document["lag_ms"][lag]
                .as_i64()
                .is_some_and(|lag| lag < 60_000),
            "{lag}"
        );
    }
    let (_, html) = get(&test, "/").await;
    for shown in [slow, limited, "3 batches with 1,700 keys", "behind now by"] {
        assert!(html.contains(shown), "{shown} in {html}");
    }
    let (_, metrics) = get(&test, "/metrics").await;
    for line in [
        "rowproof_rows_read_per_second{side=\"source\"} 4321",
        "rowproof_held_by_limit{side=\"source\"} 1",
        "rowproof_held_by_limit{side=\"target\"} 0",
        "rowproof_slowed_down{side=\"target\"} 4",
        "rowproof_unproven_batches 3",
        "rowproof_unproven_keys 1700",
        "rowproof_watermark_age_seconds ",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn health_says_whether_a_migration_runs() {
    let test = following_journal().await;
    assert_eq!(document(&test, "/healthz").await["migration"], "live");
    let test = empty_journal().await;
    assert_eq!(
        document(&test, "/healthz").await["migration"],
        "not running"
    );
}

#[tokio::test]
async fn a_listener_that_others_can_reach_is_refused() {
    let test = empty_journal().await;
    let listener = tokio::net::TcpListener::bind(("0.0.0.0", 0))
        .await
        .expect("a port");
    let error = serve(
        listener,
        test.journal.clone(),
        Limits::default(),
        CancellationToken::new(),
    )
    .await;
    assert_eq!(error.expect_err("not loopback").kind(), ErrorKind::Usage);
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let test = following_journal().await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(
        listener,
        test.journal.clone(),
        Limits::default(),
        stop.clone(),
    ));
    let mut client = tokio::net::TcpStream::connect(address)
        .await
        .expect("a connection");
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("written");
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.expect("read");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    stop.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), server).await;
    ended
        .expect("it stops")
        .expect("no panic")
        .expect("no error");
}

#[tokio::test]
async fn scripts_that_nobody_reads_are_bounded_and_end_with_the_server() {
    let test = following_journal().await;
    let note = "x".repeat(1_000);
    let found: Vec<_> = (0..2_000)
        .map(|id| difference(id, None, Some(row(id, Some(&note)))))
        .collect();
    add_differences(&test.journal, "orders", &found).await;
    let stop = CancellationToken::new();
    let site = Site::new(test.journal.clone(), Limits::default(), PORT, stop.clone());
    let open = || super::script::download(&site, Parameters::new(Vec::new()));
    let (first, second) = (open().await, open().await);
    assert_eq!(
        (first.status(), second.status()),
        (StatusCode::OK, StatusCode::OK)
    );
    assert_eq!(open().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        test.journal.status().await.is_ok(),
        "the journal has connections left"
    );
    stop.cancel();
    let ended = async {
        while site.scripts.available_permits() < super::SCRIPTS {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let patience = std::time::Duration::from_secs(10);
    tokio::time::timeout(patience, ended)
        .await
        .expect("both scripts end");
    assert!(is_cut(first).await, "a part must not look like the whole");
}

/// Reads a body and tells whether it ended with an error.
async fn is_cut(response: warp::reply::Response) -> bool {
    use std::pin::Pin;
    use warp::hyper::body::Body;
    let mut body = response.into_body();
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        match frame {
            Some(Ok(_)) => {}
            Some(Err(_)) => return true,
            None => return false,
        }
    }
}
