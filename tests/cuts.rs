//! Connections to both databases are cut at every kind of statement, before the server got it and after
//! it carried it out, at random and far more often than any network does. All work goes on by itself.

use crate::lab::{Lab, USER, run};
use crate::plain_sql::assert_same_rows;
use crate::proxy::Proxy;
use fastrand::Rng;
use std::time::{Duration, Instant};

/// How long migrations are run again and again.
const TIME: Duration = Duration::from_secs(45);

/// The most statements of a connection while tables are loaded. Work that is tried eight times in a row
/// at most must be able to come through.
const LOADING: u32 = 80;

/// The most statements of a connection later, when a batch may take some seventy.
const FOLLOWING: u32 = 300;

/// The proxies before both servers.
struct Proxies {
    source: Proxy,
    target: Proxy,
}

impl Proxies {
    /// Starts proxies, and writes a task file whose connections go through them.
    async fn before(lab: &Lab) -> Proxies {
        let (source, target) = (lab.source_port(), lab.target_port());
        let proxies = Proxies {
            source: Proxy::before(source).await,
            target: Proxy::before(target).await,
        };
        let mut task = lab.task_text();
        for (port, proxy) in [(source, &proxies.source), (target, &proxies.target)] {
            task = task.replace(&format!("port = {port}"), &format!("port = {}", proxy.port));
        }
        lab.write_task(&task);
        proxies
    }

    fn all(&self) -> [&Proxy; 2] {
        [&self.source, &self.target]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_a_connection_may_be_cut_at_any_statement() {
    let seed = crate::storm::seed();
    eprintln!("cuts: seed {seed}; set ROWPROOF_TEST_SEED to repeat it");
    let mut random = Rng::with_seed(seed);
    let began = Instant::now();
    let (mut rounds, mut at_source, mut at_target) = (0, 0, 0);
    while began.elapsed() < TIME {
        let proxies = migrate_between_cuts(&mut random).await;
        rounds += 1;
        at_source += proxies.source.cuts();
        at_target += proxies.target.cuts();
    }
    eprintln!("cuts: {rounds} migrations, {at_source} at the source, {at_target} at the target");
    assert!(at_source > rounds && at_target > 3 * rounds);
}

/// Migrates a small shop under writes, loads a table of it anew, finds and repairs what somebody has
/// spoiled, all between cuts; and compares when they are over.
async fn migrate_between_cuts(random: &mut Rng) -> Proxies {
    let lab = Lab::new("cuts").await;
    let mut administrator = lab.target().await;
    let database = &lab.database;
    let grant = format!("GRANT DROP, ALTER, REFERENCES ON {database}.* TO {USER}");
    run(&mut administrator, &grant).await;
    lab.create_shop(400, random.u32(..));
    lab.create_feed();
    let proxies = Proxies::before(&lab).await;
    // What precheck cannot reach it calls impossible, so the task begins in calm weather.
    ends_with(&lab, &["migrate", "--until", "schema"], 0);
    let mut writers = lab.start_writers(2, 60, &[]);
    for proxy in proxies.all() {
        proxy.cut_within(LOADING, random.fork());
    }
    ends_with(&lab, &["migrate", "--until", "load"], 0);
    for proxy in proxies.all() {
        proxy.cut_within(FOLLOWING, random.fork());
    }
    ends_with(&lab, &["migrate", "--until", "caught-up"], 0);
    ends_with(&lab, &["resync", &format!("{database}.orders")], 0);
    ends_with(&lab, &["migrate", "--until", "caught-up"], 0);
    let mut migrating = lab.start_migrate();
    ends_with(&lab, &["check", "--json"], 0);
    writers.end();
    // That waits until all batches are proven.
    ends_with(&lab, &["check", "--ledger", "--json"], 0);
    lab.assert_batches_equal().await;
    let spoil = format!("UPDATE {database}.customers SET name = 'nobody' LIMIT 7");
    run(&mut administrator, &spoil).await;
    ends_with(&lab, &["check", "--json"], 1);
    ends_with(&lab, &["repair", "--apply"], 0);
    ends_with(&lab, &["check", "--ledger", "--json"], 0);
    ends_with(&lab, &["check", "--json"], 0);
    for proxy in proxies.all() {
        proxy.cut_none();
    }
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    proxies
}

/// Runs rowproof and asserts how it ends.
fn ends_with(lab: &Lab, arguments: &[&str], code: i32) {
    let ended = lab.run(arguments);
    let told = format!("{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(ended.code, code, "{arguments:?}:\n{told}");
}
