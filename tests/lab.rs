//! A task of its own on the shared lab: databases, feed, task file, state directory, processes.

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The user as whom rowproof runs in tests: never an administrator.
pub const USER: &str = "rowproof_test";

/// The password of [`USER`], which must never be seen anywhere.
pub const PASSWORD: &str = "canary-password-5309";

/// Held while a test prepares what all tests share.
static PREPARING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How long a program that a test runs may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long the target may take to tell what it does.
const TELLING: Duration = Duration::from_secs(10);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One test's part of the lab.
pub struct Lab {
    env: HashMap<String, String>,
    /// The database that the test has to itself, on both servers.
    pub database: String,
    /// The directory of the task file, the state and the logs.
    pub dir: PathBuf,
    /// The port of the page.
    pub web_port: u16,
}

impl Lab {
    /// Prepares a database of its own on the source and the grants for rowproof's user.
    pub async fn new(name: &str) -> Lab {
        let env = lab_env();
        let place = NEXT.fetch_add(1, Ordering::Relaxed);
        let database = format!("t{}_{place}_{name}", std::process::id());
        let dir = std::env::temp_dir().join(format!("rowproof-test-{database}"));
        std::fs::create_dir_all(&dir).expect("a directory for the test");
        let web_port = free_port();
        let lab = Lab {
            env,
            database,
            dir,
            web_port,
        };
        lab.prepare().await;
        lab
    }

    async fn prepare(&self) {
        // Two tests that make the user at the same moment would meet in its key.
        let _alone = PREPARING.lock().await;
        let database = &self.database;
        let mut source = self.source().await;
        run(&mut source, &format!("CREATE DATABASE {database}")).await;
        run(&mut source, &user_sql()).await;
        run(&mut source, &format!("GRANT SELECT ON *.* TO {USER}")).await;
        let mut target = self.target().await;
        run(&mut target, &user_sql()).await;
        run(&mut target, "CREATE DATABASE IF NOT EXISTS rowproof").await;
        run(
            &mut target,
            &format!("CREATE DATABASE IF NOT EXISTS {database}"),
        )
        .await;
        for grant in [
            format!("GRANT ALL ON rowproof.* TO {USER}"),
            format!("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON {database}.* TO {USER}"),
        ] {
            run(&mut target, &grant).await;
        }
    }

    /// Returns a value of lab.env.
    pub fn value(&self, name: &str) -> &str {
        &self.env[name]
    }

    /// Returns the path of a certificate or key that the lab made.
    pub fn tls_file(&self, name: &str) -> PathBuf {
        Path::new(&self.env["LAB_DIR"]).join("tls").join(name)
    }

    fn port(&self, name: &str) -> u16 {
        self.env[name].parse().expect("a port in lab.env")
    }

    /// Returns the port of the source.
    pub fn source_port(&self) -> u16 {
        self.port("TIDB_PORT")
    }

    /// Returns the port of the target.
    pub fn target_port(&self) -> u16 {
        self.port("OCEANBASE_PORT")
    }

    /// Returns the port of Kafka.
    pub fn kafka_port(&self) -> u16 {
        self.port("KAFKA_PORT")
    }

    /// Connects to the source as administrator.
    pub async fn source(&self) -> MySqlConnection {
        connect(self.source_port()).await
    }

    /// Connects to the target as administrator.
    pub async fn target(&self) -> MySqlConnection {
        connect(self.target_port()).await
    }

    /// Creates the feed of this test's database.
    pub fn create_feed(&self) {
        self.create_feed_with(&[]);
    }

    /// Creates the feed with more arguments.
    pub fn create_feed_with(&self, more: &[&str]) {
        let filter = format!("{}.*", self.database);
        let create = ["create", "--topic", &self.database, "--filter", &filter];
        self.feed(&[&create[..], more].concat());
    }

    /// Returns the timestamp up to which the lab's feed has sent everything.
    pub fn feed_checkpoint(&self) -> u64 {
        let status = self.feed(&["status", "--topic", &self.database, "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
        status[0]["checkpoint_ts"].as_u64().expect("a timestamp")
    }

    /// Runs the lab's feed command and returns what it prints.
    pub fn feed(&self, arguments: &[&str]) -> String {
        self.fixture("feed", arguments)
    }

    /// Makes a SCRAM user in Kafka, or changes the user's password.
    pub fn kafka_user(&self, name: &str, password: &str) {
        self.fixture("kafka-user", &["--name", name, "--password", password]);
    }

    /// Restarts Kafka or OceanBase, which no other test may then be using, and returns when it answers.
    pub fn restart(&self, server: &str) {
        self.fixture("restart", &[server]);
    }

    fn fixture(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(repository().join("fixtures/lab").join(program));
        command.args(arguments);
        let output = finish(command.args(["--dir", &self.env["LAB_DIR"]]));
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            text(&output)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Returns the text of a task file for this test.
    pub fn task_text(&self) -> String {
        format!(
            r#"
            name = "{database}"
            [source]
            host = "127.0.0.1"
            port = {source}
            user = "{USER}"
            password_env = "ROWPROOF_TEST_PASSWORD"
            [target]
            host = "127.0.0.1"
            port = {target}
            user = "{USER}"
            password_env = "ROWPROOF_TEST_PASSWORD"
            [feed]
            brokers = "127.0.0.1:{kafka}"
            topics = ["{database}"]
            [tables]
            include = ["{database}.*"]
            [state]
            dir = "{dir}/state"
            [web]
            listen = "127.0.0.1:{web}"
            "#,
            database = self.database,
            source = self.source_port(),
            target = self.target_port(),
            kafka = self.kafka_port(),
            dir = self.dir.display(),
            web = self.web_port,
        )
    }

    /// Writes the task file and returns its path.
    pub fn write_task(&self, text: &str) -> PathBuf {
        let path = self.dir.join("task.toml");
        std::fs::write(&path, text).expect("the task file");
        path
    }

    /// Prepares a run of rowproof with this test's task file.
    pub fn rowproof(&self, arguments: &[&str]) -> Command {
        let path = self.dir.join("task.toml");
        if !path.exists() {
            self.write_task(&self.task_text());
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_rowproof"));
        command
            .args(arguments)
            .arg("-c")
            .arg(path)
            .env("ROWPROOF_TEST_PASSWORD", PASSWORD)
            // The stand-in for S3 takes any credentials, but some there must be.
            .env("AWS_ACCESS_KEY_ID", "any")
            .env("AWS_SECRET_ACCESS_KEY", PASSWORD)
            .stdin(Stdio::null());
        command
    }

    /// Runs rowproof to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(&finish(&mut self.rowproof(arguments)))
    }

    /// Starts `rowproof migrate`, its talk going to a file.
    pub fn start_migrate(&self) -> Migrating {
        self.start_migrate_with(&[])
    }

    /// Starts `rowproof migrate` with more in its environment.
    pub fn start_migrate_with(&self, environment: &[(&str, &str)]) -> Migrating {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("migrate.log"))
            .expect("a log file");
        let child = self
            .rowproof(&["migrate"])
            .envs(environment.iter().copied())
            .stdout(log.try_clone().expect("the log file again"))
            .stderr(log)
            .spawn()
            .expect("rowproof migrate");
        Migrating {
            child,
            log: self.dir.join("migrate.log"),
        }
    }

    /// Runs the shop program of the fixtures against a server.
    pub fn shop(&self, port: u16, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        command
            .args(arguments)
            .args(["--host", "127.0.0.1", "--user", "root"])
            .args(["--port", &port.to_string(), "--database", &self.database])
            .stdin(Stdio::null());
        command
    }

    /// Fills the source with the tables of a shop.
    pub fn create_shop(&self, rows: u32, seed: u32) {
        let (rows, seed) = (rows.to_string(), seed.to_string());
        let arguments = ["create", "--rows", &rows, "--seed", &seed];
        let created = finish(&mut self.shop(self.source_port(), &arguments));
        let said = String::from_utf8_lossy(&created.stderr);
        assert!(created.status.success(), "{said}");
    }

    /// Spoils rows of the shop on the target, and returns what the program says of it: only rows that writers
    /// with this `--keep-modulus` leave alone.
    pub fn corrupt(&self, kinds: &str, keep: &str, seed: &str) -> String {
        let arguments = [
            "corrupt",
            "--kinds",
            kinds,
            "--keep-modulus",
            keep,
            "--seed",
            seed,
        ];
        let corrupted = finish(&mut self.shop(self.target_port(), &arguments));
        let said = String::from_utf8_lossy(&corrupted.stderr);
        assert!(corrupted.status.success(), "{said}");
        String::from_utf8_lossy(&corrupted.stdout).into_owned()
    }

    /// Starts writers in the shop, with so many changes a second.
    pub fn start_writers(&self, writers: u32, rate: u32, more: &[&str]) -> Writers {
        let (writers, rate) = (writers.to_string(), rate.to_string());
        let mut arguments = vec!["write", "--seconds", "900", "--writers", &writers];
        arguments.extend(["--rate", &rate]);
        arguments.extend(more);
        let writing = self.shop(self.source_port(), &arguments).spawn();
        Writers(writing.expect("shop write"))
    }

    /// Runs a check; returns its exit code and the most memory that it had, in KiB.
    pub fn check_measured(&self) -> (Option<i32>, u64) {
        let mut check = self
            .rowproof(&["check", "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("rowproof check");
        let mut peak = 0;
        let code = wait_until("the check ends", Duration::from_secs(240), || {
            peak = peak.max(peak_kib(check.id()).unwrap_or(0));
            let ended = check.try_wait().expect("a child");
            ended.map(|status| status.code())
        });
        (code, peak)
    }

    /// Checks and asserts that every table is equal.
    pub fn assert_check_equal(&self) {
        let check = self.run(&["check", "--json"]);
        assert_eq!(check.code, 0, "{}\n{}", check.stdout, check.stderr);
    }

    /// Asserts that the proof of each batch that the journal still names found no difference.
    pub async fn assert_batches_equal(&self) {
        let sql = "SELECT w || ' ' || verdict FROM batch WHERE verdict <> 'equal'";
        let told = self.journal(sql).await;
        assert!(told.is_empty(), "{told:?}");
    }

    /// Reads a column of texts from the journal.
    pub async fn journal(&self, sql: &'static str) -> Vec<String> {
        let path = self.dir.join("state/journal.sqlite");
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let mut journal = options.connect().await.expect("the journal");
        let rows = sqlx::raw_sql(sql).fetch_all(&mut journal).await;
        let rows = rows.expect("the journal's rows");
        rows.iter().map(|row: &SqliteRow| row.get(0)).collect()
    }
}

impl Drop for Lab {
    /// Removes what a passing test made; a failing one leaves its traces.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "the traces of the failed test are in {}",
                self.dir.display()
            );
            return;
        }
        let mut remove = Command::new(repository().join("fixtures/lab/feed"));
        remove.args(["remove", "--topic", &self.database]);
        finish(remove.args(["--dir", &self.env["LAB_DIR"]]));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A finished run of rowproof.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; -1 if it was killed.
    pub code: i32,
    /// What it answered.
    pub stdout: String,
    /// What it told.
    pub stderr: String,
}

impl Finished {
    fn of(output: &Output) -> Finished {
        Finished {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Returns the JSON document on stdout.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|_| panic!("no JSON: {}\n{}", self.stdout, self.stderr))
    }
}

/// Writers in a shop; they are killed when they are dropped.
pub struct Writers(pub Child);

impl Writers {
    /// Lets what they do come to its end, and asserts that they have met nothing strange.
    pub fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        let status = wait_until("the writers end", Duration::from_secs(120), || {
            self.0.try_wait().expect("a child")
        });
        assert!(status.success(), "the writers of the shop: {status}");
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A migration that runs; it is killed when it is dropped.
pub struct Migrating {
    child: Child,
    log: PathBuf,
}

impl Migrating {
    /// Returns the number of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops its threads where they stand, as a machine that is out of breath does.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    /// Tells how it ended, if it has.
    pub fn ended(&mut self) -> Option<i32> {
        self.child
            .try_wait()
            .expect("a child")
            .map(|status| status.code().unwrap_or(-1))
    }

    /// Waits until it has loaded and follows the feed.
    pub fn wait_until_it_follows(&mut self) {
        wait_until("it follows", Duration::from_secs(300), || {
            if let Some(code) = self.ended() {
                panic!("it ended with {code}:\n{}", self.log());
            }
            self.log().contains("follow").then_some(())
        });
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self, patience: Duration) -> i32 {
        wait_until("migrate ends", patience, || self.ended())
    }

    /// Asks it to stop and returns its exit code.
    pub fn stop(&mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.wait(Duration::from_secs(60))
    }

    /// Returns what it has told so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Migrating {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end. One that hangs is killed and named, with what the target has under way, so that
/// a test that waits for it ends.
pub fn finish(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
    let pid = rustix::process::Pid::from_child(&child);
    let name = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let (ended, end) = mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            eprintln!("killed after {PATIENCE:?}: {name:?} {arguments:?}");
            // A target that hangs too must not keep it alive.
            std::thread::spawn(tell_what_the_target_does);
            std::thread::sleep(TELLING);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("its output");
    drop(ended);
    watch.join().expect("it was watched");
    output
}

/// Prints the statements and the transactions that the lab's OceanBase has under way.
fn tell_what_the_target_does() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let port = lab_env()["OCEANBASE_PORT"].parse().expect("a port");
        let mut target = connect(port).await;
        for sql in [
            "SHOW FULL PROCESSLIST",
            "SELECT * FROM oceanbase.__all_virtual_trans_stat",
        ] {
            eprintln!("{sql}");
            for row in texts(&mut target, sql).await {
                let cells: Vec<String> = row.into_iter().flatten().collect();
                eprintln!("  {}", cells.join(" | "));
            }
        }
    });
}

/// Waits until something is there, and panics when it does not come.
pub fn wait_until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {patience:?} in vain: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a statement.
pub async fn run(connection: &mut MySqlConnection, sql: &str) {
    try_run(connection, sql)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Runs a statement that may fail.
pub async fn try_run(connection: &mut MySqlConnection, sql: &str) -> Result<u64, sqlx::Error> {
    let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Reads all rows of a query as texts.
pub async fn texts(connection: &mut MySqlConnection, sql: &str) -> Vec<Vec<Option<String>>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_all(connection)
        .await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let cell = |row: &sqlx::mysql::MySqlRow, column: usize| {
        row.try_get_unchecked::<&[u8], usize>(column)
            .ok()
            .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    rows.iter()
        .map(|row| (0..row.len()).map(|column| cell(row, column)).collect())
        .collect()
}

/// Begins a migration of a table `t` with a key, and returns when it follows and both sides are equal.
pub async fn table_that_is_followed(name: &str) -> (Lab, Migrating) {
    let lab = Lab::new(name).await;
    let sql = format!("CREATE TABLE {}.t (id INT PRIMARY KEY)", lab.database);
    run(&mut lab.source().await, &sql).await;
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    lab.assert_check_equal();
    (lab, migrating)
}

/// Returns the timestamp of the newest fence.
pub async fn newest_fence(lab: &Lab) -> u64 {
    let mut target = lab.target().await;
    let sql = format!(
        "SELECT w FROM rowproof.fence WHERE task = '{}'",
        lab.database
    );
    let rows = texts(&mut target, &sql).await;
    let cell = rows.into_iter().flatten().flatten().next();
    cell.and_then(|w| w.parse().ok()).expect("a fence")
}

/// Returns the most memory that a process has had, in KiB.
pub fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Returns the repository's directory.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the values of lab.env, and the lab's directory as LAB_DIR.
fn lab_env() -> HashMap<String, String> {
    let lab_dir = std::env::var("ROWPROOF_LAB_DIR")
        .expect("ROWPROOF_LAB_DIR names no lab: run `make test`, or fixtures/lab/up and set it");
    let text = std::fs::read_to_string(Path::new(&lab_dir).join("lab.env")).expect("lab.env");
    let mut env: HashMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    env.insert("LAB_DIR".to_owned(), lab_dir);
    env
}

async fn connect(port: u16) -> MySqlConnection {
    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(port)
        .username("root")
        .ssl_mode(MySqlSslMode::Disabled)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .timezone(None)
        .set_names(false)
        .disable_statement_logging();
    let mut connection = options.connect().await.expect("a connection to the lab");
    run(&mut connection, "SET NAMES utf8mb4").await;
    run(&mut connection, "SET time_zone = '+00:00'").await;
    connection
}

fn user_sql() -> String {
    format!("CREATE USER IF NOT EXISTS {USER} IDENTIFIED BY '{PASSWORD}'")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Returns a port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
