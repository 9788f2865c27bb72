//! What no message of a changefeed tells is asked of TiCDC: whether it is still the same, and whether it
//! sends.

use crate::lab::{Lab, Migrating, free_port, run, texts, wait_until};
use crate::plain_sql::assert_same_rows;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

/// What the lab puts where passwords are in TiCDC's answers.
const SINK_SECRET: &str = "canary-sink-password-7741";

/// Returns the id of this test's changefeed.
fn id(lab: &Lab) -> String {
    lab.database.replace('_', "-")
}

/// Writes a task file that says where TiCDC is, with more under `[feed]`.
fn write_task(lab: &Lab, port: &str, id: &str, more: &str) {
    let ticdc =
        format!("ticdc = \"http://127.0.0.1:{port}\"\nchangefeed = \"{id}\"\n{more}\n[tables]");
    lab.write_task(&lab.task_text().replace("[tables]", &ticdc));
}

async fn sql(lab: &Lab, sql: &str) {
    let mut source = lab.source().await;
    run(&mut source, &format!("USE {}", lab.database)).await;
    run(&mut source, sql).await;
}

/// Waits until the feed has sent a watermark. TiCDC's producer does not try again what its first connection loses, and
/// the changefeed begins with a warning then.
fn wait_until_it_sends(lab: &Lab) {
    let before = lab.feed_checkpoint();
    wait_until("the feed sends", PATIENCE, || {
        (lab.feed_checkpoint() > before).then_some(())
    });
}

/// Makes two tables with rows, and a feed.
async fn prepare(lab: &Lab) {
    for table in ["a", "b"] {
        sql(lab, &format!("CREATE TABLE {table} (id INT PRIMARY KEY)")).await;
        sql(lab, &format!("INSERT INTO {table} VALUES (1), (2), (3)")).await;
    }
    lab.create_feed();
    wait_until_it_sends(lab);
    write_task(lab, lab.value("TIDB_CONTROL_PORT"), &id(lab), "");
}

fn feed(lab: &Lab, command: &str) {
    lab.feed(&[command, "--topic", &lab.database]);
}

/// Creates the feed again: from the present, or from a timestamp on.
fn create_again(lab: &Lab, start_ts: Option<&str>) {
    let more: Vec<&str> = start_ts.iter().flat_map(|ts| ["--start-ts", ts]).collect();
    lab.create_feed_with(&more);
}

/// Waits until the status says that something is waited for, and returns that.
fn waited_for(lab: &Lab, word: &str) -> String {
    wait_until(word, PATIENCE, || {
        let status = lab.run(&["status", "--json"]).json();
        let waiting = status["waiting_for"].as_str().map(ToOwned::to_owned);
        waiting.filter(|waiting| waiting.contains(word))
    })
}

fn wait_for_log(migrating: &Migrating, word: &str) {
    wait_until(word, PATIENCE, || {
        migrating.log().contains(word).then_some(())
    });
}

/// Returns the verdict of a table, and why it is unproven.
fn verdict(lab: &Lab, table: &str) -> (String, String) {
    let status = lab.run(&["status", "--json"]).json();
    let name = format!("{}.{table}", lab.database);
    let tables = status["tables"].as_array().cloned().unwrap_or_default();
    let found = tables.iter().find(|of| of["table"] == name.as_str());
    let found = found.unwrap_or_else(|| panic!("{name} in {status}"));
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("reason"))
}

/// Asserts that nothing of the sink's address was kept or told.
fn assert_no_secret(lab: &Lab, migrating: &Migrating) {
    let status = lab.run(&["status", "--json"]).stdout;
    assert!(!status.contains(SINK_SECRET), "{status}");
    assert!(
        !migrating.log().contains(SINK_SECRET),
        "{}",
        migrating.log()
    );
    let files = std::fs::read_dir(lab.dir.join("state")).expect("the state directory");
    for file in files {
        let path = file.expect("a file").path();
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let secret = SINK_SECRET.as_bytes();
        let found = bytes.windows(secret.len()).any(|part| part == secret);
        assert!(!found, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_a_changefeed_that_begins_later_ends_it_until_what_it_lacks_is_loaded() {
    let lab = Lab::new("recreated").await;
    prepare(&lab).await;
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    sql(&lab, "INSERT INTO a VALUES (10)").await;
    lab.assert_check_equal();
    feed(&lab, "remove");
    sql(&lab, "INSERT INTO a VALUES (11)").await;
    // The new one is to begin behind that.
    tokio::time::sleep(Duration::from_secs(2)).await;
    create_again(&lab, None);
    sql(&lab, "INSERT INTO b VALUES (12)").await;
    assert_eq!(migrating.wait(PATIENCE), 2, "{}", migrating.log());
    let log = migrating.log();
    for word in [
        "was created anew",
        ".a, ",
        ".b may lack changes",
        "rowproof resync",
    ] {
        assert!(log.contains(word), "{word}: {log}");
    }
    for table in ["a", "b"] {
        let told = verdict(&lab, table);
        assert_eq!(told, ("unproven".to_owned(), "lost".to_owned()), "{table}");
    }
    // The row is on the source only: nothing but the two timestamps could tell.
    let count = format!("SELECT COUNT(*) FROM {}.a WHERE id = 11", lab.database);
    let rows = texts(&mut lab.target().await, &count).await;
    assert_eq!(rows, [[Some("0".to_owned())]]);

    // Neither a restart nor another changefeed makes it whole, only fresh bases of all tables.
    let again = lab.run(&["migrate"]);
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert!(
        again.stderr.contains("may lack changes"),
        "{}",
        again.stderr
    );
    let table = format!("{}.a", lab.database);
    assert_eq!(lab.run(&["resync", &table]).code, 0);
    let again = lab.run(&["migrate"]);
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert!(!again.stderr.contains(".a, "), "{}", again.stderr);
    let resync = lab.run(&["resync"]);
    assert!(resync.stdout.contains(".b"), "{}", resync.stdout);
    let mut migrating = lab.start_migrate();
    wait_until("the tables are loaded anew", PATIENCE, || {
        let both = ["a", "b"].map(|table| verdict(&lab, table).0);
        let ended = migrating.ended();
        assert_eq!(ended, None, "{}", migrating.log());
        (both == ["equal", "equal"]).then_some(())
    });
    sql(&lab, "INSERT INTO a VALUES (13)").await;
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_no_secret(&lab, &migrating);
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_4_a_changefeed_that_is_paused_removed_and_created_with_an_earlier_start_loses_nothing()
{
    let lab = Lab::new("paused").await;
    prepare(&lab).await;
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    feed(&lab, "pause");
    let waiting = waited_for(&lab, "is stopped");
    assert!(waiting.contains("cdc cli changefeed resume"), "{waiting}");
    sql(&lab, "INSERT INTO a VALUES (10)").await;
    feed(&lab, "resume");
    lab.assert_check_equal();
    feed(&lab, "remove");
    let waiting = waited_for(&lab, "does not exist");
    sql(&lab, "INSERT INTO a VALUES (11)").await;
    assert_eq!(migrating.ended(), None, "{}", migrating.log());
    let start = waiting.split_once("--start-ts=").expect("a start").1;
    let start = start.split(' ').next().expect("a timestamp").to_owned();
    create_again(&lab, Some(&start));
    sql(&lab, "INSERT INTO b VALUES (12)").await;
    wait_for_log(&migrating, "nothing is lost");
    lab.assert_check_equal();
    wait_until("nothing is waited for", PATIENCE, || {
        let status = lab.run(&["status", "--json"]).json();
        status["waiting_for"].is_null().then_some(())
    });
    // Created again while nobody looks: the note of what was sent outlives the process.
    migrating.kill();
    feed(&lab, "remove");
    sql(&lab, "INSERT INTO b VALUES (13)").await;
    create_again(&lab, Some(&start));
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_no_secret(&lab, &migrating);
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_a_changefeed_that_begins_after_the_load_cannot_be_followed() {
    let lab = Lab::new("lateload").await;
    prepare(&lab).await;
    let schema = lab.run(&["migrate", "--until", "schema"]);
    assert_eq!(schema.code, 0, "{}", schema.stderr);
    feed(&lab, "remove");
    sql(&lab, "INSERT INTO a VALUES (10)").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    create_again(&lab, None);
    let migrate = lab.run(&["migrate"]);
    assert_eq!(migrate.code, 2, "{}", migrate.stderr);
    assert!(
        migrate.stderr.contains("nothing can be followed from here"),
        "{}",
        migrate.stderr
    );
    // Without TiCDC's word nobody can tell, and a check finds the row.
    lab.write_task(&lab.task_text());
    let migrate = lab.run(&["migrate", "--until", "caught-up"]);
    assert_eq!(migrate.code, 0, "{}", migrate.stderr);
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    let check = lab.run(&["check"]);
    assert_eq!(check.code, 1, "{}", check.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_told_and_stops_nothing() {
    let lab = Lab::new("silent").await;
    prepare(&lab).await;
    write_task(&lab, &free_port().to_string(), &id(&lab), "");
    let precheck = lab.run(&["precheck"]);
    assert_eq!(precheck.code, 0, "{}", precheck.stdout);
    let told = precheck
        .stdout
        .contains("warning  feed: TiCDC at http://127.0.0.1:");
    assert!(told, "{}", precheck.stdout);
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    waited_for(&lab, "it does not answer");
    sql(&lab, "INSERT INTO a VALUES (10)").await;
    lab.assert_check_equal();
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    // From here on it is asked; what it tells fits to what was done without it.
    write_task(&lab, lab.value("TIDB_CONTROL_PORT"), &id(&lab), "");
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    sql(&lab, "INSERT INTO a VALUES (11)").await;
    lab.assert_check_equal();
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn precheck_says_what_is_wrong_with_the_changefeed() {
    let lab = Lab::new("oddfeed").await;
    prepare(&lab).await;
    let port = lab.value("TIDB_CONTROL_PORT").to_owned();
    let assert_finds = |code: i32, word: &str| {
        let precheck = lab.run(&["precheck"]);
        assert_eq!(precheck.code, code, "{word}: {}", precheck.stdout);
        assert!(
            precheck.stdout.contains(word),
            "{word}: {}",
            precheck.stdout
        );
        assert!(
            !precheck.stdout.contains(SINK_SECRET),
            "{}",
            precheck.stdout
        );
    };
    assert_finds(0, "is normal and begins at");
    lab.write_task(&lab.task_text());
    assert_finds(0, "TiCDC is not asked about the changefeed");
    write_task(&lab, &port, "nobody", "");
    assert_finds(2, "TiCDC has no changefeed nobody");
    let migrate = lab.run(&["migrate"]);
    assert_eq!(migrate.code, 2, "{}", migrate.stderr);
    write_task(&lab, &port, &id(&lab), "namespace = \"other\"");
    assert_finds(2, "in the namespace other");
    // Another one that is there.
    write_task(&lab, &port, "rowproof", "");
    assert_finds(2, "writes to a topic that [feed] topics does not name");
    write_task(&lab, &port, &id(&lab), "");
    feed(&lab, "pause");
    assert_finds(2, "is stopped");
    feed(&lab, "resume");
    wait_until_it_sends(&lab);
    sql(&lab, "CREATE TABLE keyless (n INT)").await;
    assert_finds(2, "force-replicate = false");
    sql(&lab, "DROP TABLE keyless").await;
    assert_finds(0, "is normal and begins at");
    feed(&lab, "remove");
    lab.create_feed_with(&["--option", "output-old-value=false"]);
    assert_finds(0, "sends no old values");
    feed(&lab, "remove");
    lab.create_feed_with(&["--protocol", "canal-json"]);
    assert_finds(2, "speaks canal-json");
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_2_tables_without_a_key_are_not_carried_when_the_changefeed_sends_them_no_more() {
    let lab = Lab::new("forcedoff").await;
    for table in ["a (id INT PRIMARY KEY)", "keyless (n INT)"] {
        sql(&lab, &format!("CREATE TABLE {table}")).await;
    }
    lab.create_feed_with(&["--option", "force-replicate=true"]);
    write_task(&lab, lab.value("TIDB_CONTROL_PORT"), &id(&lab), "");
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    sql(&lab, "INSERT INTO keyless VALUES (1)").await;
    wait_until("it is carried", PATIENCE, || {
        (verdict(&lab, "keyless").0 == "equal").then_some(())
    });
    // TiCDC would have it updated; the lab makes another one, which begins early enough.
    feed(&lab, "remove");
    let waiting = waited_for(&lab, "does not exist");
    let start = waiting.split_once("--start-ts=").expect("a start").1;
    let start = start.split(' ').next().expect("a timestamp");
    lab.create_feed_with(&["--start-ts", start]);
    sql(&lab, "INSERT INTO keyless VALUES (2)").await;
    let told = wait_until("it is not carried", PATIENCE, || {
        let told = verdict(&lab, "keyless");
        (told.0 == "unproven").then_some(told.1)
    });
    assert_eq!(told, "not-followed");
    assert_eq!(verdict(&lab, "a").0, "equal");
    assert_eq!(lab.run(&["check"]).code, 1);
    assert_eq!(migrating.stop(), 1, "{}", migrating.log());
}

/// Passes requests on to the lab, to whom they come with TLS and a certificate of the lab's authority.
const TLS_STAND_IN: &str = "
import http.server, ssl, sys, urllib.request
port, tls, to = int(sys.argv[1]), sys.argv[2], sys.argv[3]
class Pass(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = urllib.request.urlopen(f'http://127.0.0.1:{to}{self.path}').read()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(('127.0.0.1', port), Pass)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f'{tls}/server.pem', f'{tls}/server.key')
context.load_verify_locations(f'{tls}/ca.pem')
context.verify_mode = ssl.CERT_REQUIRED
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
";

/// A process that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ticdc_is_asked_with_tls_and_only_one_that_can_be_trusted() {
    let lab = Lab::new("askedtls").await;
    prepare(&lab).await;
    let port = free_port();
    let tls = lab.tls_file("ca.pem");
    let tls = tls.parent().expect("a directory").display().to_string();
    let arguments = [
        "-c",
        TLS_STAND_IN,
        &port.to_string(),
        &tls,
        lab.value("TIDB_CONTROL_PORT"),
    ];
    let stand_in = Command::new("python3")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _stand_in = Ended(stand_in.expect("python3"));
    wait_until("the stand-in listens", PATIENCE, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let own = format!("certificate = \"{tls}/client.pem\", key = \"{tls}/client.key\"");
    for (settings, is_asked) in [
        (format!("ca = \"{tls}/ca.pem\", {own}"), true),
        (
            format!("mode = \"verify-ca\", ca = \"{tls}/ca.pem\", {own}"),
            true,
        ),
        (format!("mode = \"required\", {own}"), true),
        // It does not know rowproof; rowproof does not know it; nor does the system.
        (format!("ca = \"{tls}/ca.pem\""), false),
        (format!("ca = \"{tls}/other-ca.pem\", {own}"), false),
        (own.clone(), false),
    ] {
        let ticdc = format!(
            "ticdc = \"https://127.0.0.1:{port}\"\nchangefeed = \"{}\"\nticdc_tls = {{ {settings} }}\n[tables]",
            id(&lab)
        );
        lab.write_task(&lab.task_text().replace("[tables]", &ticdc));
        let precheck = lab.run(&["precheck"]);
        assert_eq!(precheck.code, 0, "{}", precheck.stdout);
        let word = match is_asked {
            true => "is normal and begins at",
            false => "cannot be trusted",
        };
        assert!(
            precheck.stdout.contains(word),
            "{settings}: {}",
            precheck.stdout
        );
    }
}
