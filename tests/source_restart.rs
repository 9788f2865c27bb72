//! The source and its changefeed go away and come back.

use crate::kafka::told_again;
use crate::lab::{Lab, Migrating, wait_until};
use crate::plain_sql::assert_same_rows;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(240);

/// The exit code of rowproof when a server stayed away for longer than it waits.
const UNAVAILABLE: i32 = 69;

/// Starts it again, as a supervisor would, if the source was away for too long.
fn keep_running(lab: &Lab, migrating: &mut Migrating) {
    match migrating.ended() {
        None => {}
        Some(UNAVAILABLE) => *migrating = lab.start_migrate(),
        Some(code) => panic!("it ended with {code}:\n{}", migrating.log()),
    }
}

/// The feed begins again some seconds before what it had sent, as TiCDC does: `B A B`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "restarts the source of the lab: `make soak`"]
async fn inv_4_a_source_that_is_restarted_goes_on_from_the_checkpoint_of_its_feed() {
    let lab = Lab::new("sourcerestart").await;
    lab.create_shop(4_000, 11);
    lab.create_feed();
    let mut migrating = lab.start_migrate();
    migrating.wait_until_it_follows();
    for round in 0..3 {
        // They lose their connections when the source goes.
        let writers = lab.start_writers(4, 300, &[]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let again = told_again(&lab);
        lab.restart("tidb");
        drop(writers);
        // Once it dies together with the source.
        if round == 1 {
            migrating.kill();
            migrating = lab.start_migrate();
        }
        wait_until("the feed has told some changes again", PATIENCE, || {
            (told_again(&lab) > again).then_some(())
        });
        wait_until("it catches up and is equal", PATIENCE, || {
            keep_running(&lab, &mut migrating);
            (lab.run(&["check", "--json"]).code == 0).then_some(())
        });
        lab.assert_batches_equal().await;
    }
    let mut writers = lab.start_writers(4, 300, &[]);
    tokio::time::sleep(Duration::from_secs(5)).await;
    writers.end();
    lab.assert_check_equal();
    assert_same_rows(&lab).await;
    lab.assert_batches_equal().await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
}
