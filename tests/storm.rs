//! A storm: everything that may go wrong beside a migration goes wrong at once, at random, while eight
//! writers work. Nothing of it may ever make a row differ at a fence.

use crate::lab::{Lab, Migrating, PASSWORD, USER, Writers, run, texts, try_run, wait_until};
use crate::plain_sql::assert_same_rows;
use fastrand::Rng;
use sqlx::mysql::MySqlConnection;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the end of the storm may be waited for: what it left behind is then read and proven.
const PATIENCE: Duration = Duration::from_secs(240);

/// The exit code of rowproof when a server stayed away for longer than it waits.
const UNAVAILABLE: i32 = 69;

/// The table without a key, of which TiCDC sends changes with force-replicate only.
const KEYLESS: &str = "CREATE TABLE journal_of_visits (who VARCHAR(20), room INT, said TEXT)";

/// How hard it blows.
struct Weather {
    /// How long it lasts at least.
    time: Duration,
    /// How often rowproof is killed at least.
    kills: u32,
    /// Whether servers are restarted, which nobody else may then be using.
    restarts: bool,
    /// The longest pause between two blows, in milliseconds.
    pause_ms: u64,
}

/// Returns how long it lasts: what ROWPROOF_STORM_SECONDS says, or else the given time.
fn seconds(default: u64) -> Duration {
    let given = std::env::var("ROWPROOF_STORM_SECONDS").ok();
    Duration::from_secs(given.and_then(|text| text.parse().ok()).unwrap_or(default))
}

/// Returns the seed of the blows; another one by ROWPROOF_TEST_SEED.
pub fn seed() -> u64 {
    let given = std::env::var("ROWPROOF_TEST_SEED").ok();
    given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..))
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_1_two_minutes_of_storm_leave_both_sides_equal() {
    let weather = Weather {
        time: seconds(120),
        kills: 4,
        restarts: false,
        pause_ms: 4_000,
    };
    blow(weather).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes an hour and restarts servers of the lab: `make soak`"]
async fn inv_1_an_hour_of_storm_with_a_hundred_kills_leaves_both_sides_equal() {
    let time = seconds(3_600);
    let weather = Weather {
        time,
        // A hundred in an hour.
        kills: u32::try_from(time.as_secs() / 36).expect("it is no longer than a day"),
        restarts: true,
        pause_ms: 10_000,
    };
    blow(weather).await;
}

/// Lets it blow, waits for calm, and compares.
async fn blow(weather: Weather) {
    let seed = seed();
    eprintln!("storm: seed {seed}; set ROWPROOF_TEST_SEED to repeat it");
    let mut storm = Storm::rise(Rng::with_seed(seed)).await;
    let began = Instant::now();
    let bound = weather.time * 2 + PATIENCE;
    while began.elapsed() < weather.time || storm.kills < weather.kills {
        assert!(began.elapsed() < bound, "too few kills: {}", storm.told());
        let pause = storm.random.u64(100..weather.pause_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        storm.strike(weather.restarts).await;
    }
    eprintln!("storm: {}", storm.told());
    storm.calm().await;
}

/// A migration in a storm.
struct Storm {
    lab: Lab,
    user: String,
    random: Rng,
    migrating: Migrating,
    shop: Writers,
    visits: JoinHandle<()>,
    stop_visits: CancellationToken,
    kills: u32,
    cuts: usize,
    checks: u32,
    feed_acts: u32,
    bases: u32,
    restarts: u32,
    /// Whether a server was restarted so recently that rowproof may have given up.
    may_have_ended: bool,
}

impl Storm {
    /// Makes the shop and its writers, the table without a key and its writer, the feed, and starts
    /// rowproof as a user of its own, so that its sessions are known among those of other tests.
    async fn rise(mut random: Rng) -> Storm {
        let lab = Lab::new("storm").await;
        let user = format!("storm_{}", std::process::id());
        let (mut source, mut target) = (lab.source().await, lab.target().await);
        let user_sql = format!("CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{PASSWORD}'");
        run(&mut source, &user_sql).await;
        run(&mut source, &format!("GRANT SELECT ON *.* TO {user}")).await;
        run(&mut target, &user_sql).await;
        for database in ["rowproof", &lab.database] {
            let grant = format!("GRANT ALL ON {database}.* TO {user}");
            run(&mut target, &grant).await;
        }
        lab.create_shop(20_000, random.u32(..));
        run(&mut source, &format!("USE {}", lab.database)).await;
        run(&mut source, KEYLESS).await;
        lab.create_feed_with(&["--option", "force-replicate=true"]);
        lab.write_task(&lab.task_text().replace(USER, &user));
        // What precheck cannot reach it calls impossible, so the task begins in calm weather.
        let begun = lab.run(&["migrate", "--until", "schema"]);
        assert!([0, 2].contains(&begun.code), "{}", begun.stderr);
        let arguments = "write --seconds 86400 --writers 8 --rate 400 --seed";
        let seed = random.u32(..).to_string();
        let arguments: Vec<&str> = arguments.split(' ').chain([seed.as_str()]).collect();
        let shop = lab.shop(lab.source_port(), &arguments).spawn();
        let stop_visits = CancellationToken::new();
        let visits = visit(source, Rng::with_seed(random.u64(..)), stop_visits.clone());
        Storm {
            migrating: lab.start_migrate(),
            shop: Writers(shop.expect("shop write")),
            visits: tokio::spawn(visits),
            stop_visits,
            user,
            random,
            lab,
            kills: 0,
            cuts: 0,
            checks: 0,
            feed_acts: 0,
            bases: 0,
            restarts: 0,
            may_have_ended: false,
        }
    }

    fn told(&self) -> String {
        format!(
            "{} kills, {} sessions cut, {} replays and stalls of the feed, {} fresh bases asked for, \
             {} restarts of servers, {} checks on the way",
            self.kills, self.cuts, self.feed_acts, self.bases, self.restarts, self.checks
        )
    }

    /// Does one thing that may happen at any time.
    async fn strike(&mut self, restarts: bool) {
        self.keep_running();
        match self.random.u32(..if restarts { 24 } else { 20 }) {
            0..6 => self.kill(),
            6..9 => self.cut(self.lab.source().await).await,
            9..12 => self.cut(self.lab.target().await).await,
            12..15 => self.replay(),
            15..17 => self.stall(),
            17 => self.ask_for_a_base(),
            18..20 => self.look().await,
            20..22 => self.restart("kafka"),
            _ => self.restart("oceanbase"),
        }
    }

    /// Asserts that rowproof has not ended by itself, but for the one reason that the storm gives
    /// it: a server that stayed away. Then it is started again, as a supervisor would.
    fn keep_running(&mut self) {
        match self.migrating.ended() {
            None => {}
            Some(UNAVAILABLE) if self.may_have_ended => {
                self.may_have_ended = false;
                self.migrating = self.lab.start_migrate();
            }
            Some(code) => panic!("it ended by itself with {code}:\n{}", self.migrating.log()),
        }
    }

    fn kill(&mut self) {
        self.migrating.kill();
        self.kills += 1;
        self.migrating = self.lab.start_migrate();
    }

    /// Ends all sessions that rowproof has on a server.
    async fn cut(&mut self, mut server: MySqlConnection) {
        let sql = format!(
            "SELECT id FROM information_schema.processlist WHERE user = '{}'",
            self.user
        );
        for id in texts(&mut server, &sql)
            .await
            .into_iter()
            .flatten()
            .flatten()
        {
            // It may have ended by itself.
            if try_run(&mut server, &format!("KILL {id}")).await.is_ok() {
                self.cuts += 1;
            }
        }
    }

    fn replay(&mut self) {
        let seconds = self.random.u32(1..60).to_string();
        let topic = &self.lab.database;
        self.lab
            .feed(&["replay", "--topic", topic, "--seconds", &seconds]);
        self.feed_acts += 1;
    }

    fn stall(&mut self) {
        let partition = self.random.u32(..4).to_string();
        let seconds = self.random.u32(1..8).to_string();
        let arguments = ["--partition", &partition, "--seconds", &seconds];
        let mut whole = vec!["stall", "--topic", &self.lab.database];
        whole.extend(arguments);
        self.lab.feed(&whole);
        self.feed_acts += 1;
    }

    /// Has a table loaded anew; in the first load there is none to ask for.
    fn ask_for_a_base(&mut self) {
        let tables = ["customers", "orders", "stock", "coupons"];
        let table = tables[self.random.usize(..tables.len())];
        let name = format!("{}.{table}", self.lab.database);
        if self.lab.run(&["resync", &name]).code == 0 {
            self.bases += 1;
        }
    }

    fn restart(&mut self, server: &str) {
        self.lab.restart(server);
        self.restarts += 1;
        self.may_have_ended = true;
    }

    /// Asserts that no batch and no check finds a row that differs, whatever happens beside it
    /// (INV-1). A check may well find nothing proven.
    async fn look(&mut self) {
        let check = self.lab.run(&["check", "--json"]);
        assert_ne!(check.code, 1, "{}\n{}", check.stdout, check.stderr);
        self.checks += 1;
        self.lab.assert_batches_equal().await;
    }

    /// Ends the storm, and compares: still under live writes, and then at rest.
    async fn calm(&mut self) {
        wait_until("it catches up", PATIENCE, || {
            self.keep_running();
            let status = self.lab.run(&["status", "--json"]).json();
            let bases = status["fresh_bases"].as_array();
            let loading = bases.is_some_and(|bases| !bases.is_empty());
            let is_equal = || self.lab.run(&["check", "--json"]).code == 0;
            (!loading && is_equal()).then_some(())
        });
        self.lab.assert_batches_equal().await;
        self.shop.end();
        self.stop_visits.cancel();
        (&mut self.visits).await.expect("the writer ends");
        self.lab.assert_check_equal();
        assert_same_rows(&self.lab).await;
        self.lab.assert_batches_equal().await;
        let log = self.migrating.log();
        assert_eq!(self.migrating.stop(), 0, "{log}");
    }
}

impl Drop for Storm {
    /// Ends the writer also when an assertion has failed.
    fn drop(&mut self) {
        self.visits.abort();
    }
}

/// Writes the table without a key: copies come and go.
async fn visit(mut source: MySqlConnection, mut random: Rng, stop: CancellationToken) {
    let table = "journal_of_visits";
    while !stop.is_cancelled() {
        let (who, room) = (random.u32(..30), random.u32(..5));
        let row = format!("('v{who}', {room}, 'good day')");
        let sql = match random.u32(..10) {
            0..4 => format!("INSERT INTO {table} VALUES {row}, {row}"),
            4..6 => format!("UPDATE {table} SET room = {room} WHERE who = 'v{who}' LIMIT 3"),
            6 => format!("UPDATE {table} SET who = NULL WHERE who = 'v{who}' AND room = {room}"),
            7..9 => format!("DELETE FROM {table} WHERE who = 'v{who}' LIMIT 4"),
            _ => format!("DELETE FROM {table} WHERE who IS NULL LIMIT 2"),
        };
        run(&mut source, &sql).await;
        let pause = Duration::from_millis(random.u64(5..120));
        tokio::time::sleep(pause).await;
    }
}
