//! Killed at any moment and run again: nothing is lost, nothing is applied twice.

use crate::lab::{Lab, wait_until};
use crate::plain_sql::assert_same_rows;
use std::time::Duration;

/// How often rowproof is killed.
const KILLS: u32 = 20;

/// The seed of the moments; another one by ROWPROOF_TEST_SEED.
fn seed() -> u64 {
    std::env::var("ROWPROOF_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_261_123)
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_3_twenty_kills_at_random_moments_of_load_and_feed_lose_nothing() {
    let seed = seed();
    eprintln!("seed {seed}; set ROWPROOF_TEST_SEED to repeat it");
    let mut random = fastrand::Rng::with_seed(seed);
    let lab = Lab::new("kills").await;
    lab.create_shop(40_000, 7);
    lab.create_feed();
    let mut writers = lab.start_writers(4, 400, &[]);
    for kill in 0..KILLS {
        let mut migrating = lab.start_migrate();
        // The first ones hit the start and the load, the later ones the feed.
        let most = if kill < KILLS / 2 { 2_000 } else { 5_000 };
        let pause = Duration::from_millis(random.u64(50..most));
        tokio::time::sleep(pause).await;
        if let Some(code) = migrating.ended() {
            panic!(
                "it ended by itself with {code} before kill {kill}:\n{}",
                migrating.log()
            );
        }
        migrating.kill();
    }
    let mut migrating = lab.start_migrate();
    // Still under live writes, and then at rest.
    wait_until("it catches up", Duration::from_secs(180), || {
        if let Some(code) = migrating.ended() {
            panic!("it ended by itself with {code}:\n{}", migrating.log());
        }
        (lab.run(&["check", "--json"]).code == 0).then_some(())
    });
    writers.end();
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
