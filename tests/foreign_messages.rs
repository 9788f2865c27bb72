//! Messages that are not TiCDC's, and other protocols of TiCDC's: they end the migration with their
//! place and what to do, and show nothing of what they hold.

use crate::kafka::send;
use crate::lab::{Lab, run, table_that_is_followed, texts};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

const CANARY: &str = "canary-foreign-7713";

/// Strangers' messages: a word for the test, key and value, and what is said of them.
fn messages() -> [(&'static str, Option<&'static [u8]>, String, &'static str); 4] {
    let json = format!(r#"{{"id":0,"isDdl":false,"data":[{{"name":"{CANARY}"}}]}}"#);
    [
        (
            "text",
            Some(b"a key of somebody's"),
            CANARY.to_owned(),
            "not in Open Protocol",
        ),
        ("nokey", None, CANARY.to_owned(), "no Open Protocol key"),
        ("json", None, json, "looks like canal-json"),
        (
            "avro",
            None,
            format!("\0\0\0\0\u{1}{CANARY}"),
            "looks like avro",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn inv_7_a_foreign_message_ends_it_with_its_place_and_none_of_its_bytes() {
    for (name, key, value, words) in messages() {
        let (lab, mut migrating) = table_that_is_followed(name).await;
        // Once while it follows, and once while it is down.
        if name == "nokey" {
            assert_eq!(migrating.stop(), 0, "{}", migrating.log());
        }
        send(&lab, 3, key, value.as_bytes());
        if name != "nokey" {
            assert_eq!(migrating.wait(PATIENCE), 2, "{name}: {}", migrating.log());
            assert_says(&lab, &migrating.log(), words);
        }
        let again = lab.run(&["migrate"]);
        assert_eq!(again.code, 2, "{name}: {}", again.stderr);
        assert_says(&lab, &again.stderr, words);
        let status = lab.run(&["status", "--json"]);
        assert!(status.stdout.contains(words), "{}", status.stdout);
        assert!(!status.stdout.contains(CANARY), "{}", status.stdout);
    }
}

fn assert_says(lab: &Lab, told: &str, words: &str) {
    let place = format!("topic {} partition 3 offset ", lab.database);
    for word in [&place, words, "what to do: ", "protocol=open-protocol"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(!told.contains(CANARY), "INV-7: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_named_before_anything_begins() {
    for (protocol, options) in [
        (
            "canal-json",
            &["--option", "enable-tidb-extension=true"][..],
        ),
        ("simple", &[]),
    ] {
        let lab = Lab::new("protocol").await;
        let table = format!("{}.t", lab.database);
        let mut source = lab.source().await;
        run(
            &mut source,
            &format!("CREATE TABLE {table} (id INT PRIMARY KEY)"),
        )
        .await;
        lab.create_feed_with(&[&["--protocol", protocol], options].concat());
        run(&mut source, &format!("INSERT INTO {table} VALUES (1)")).await;
        let looks = format!("looks like {protocol}");
        let precheck = lab.run(&["precheck"]);
        assert_eq!(precheck.code, 2, "{}", precheck.stdout);
        for word in ["Open Protocol", &looks, "protocol=open-protocol"] {
            assert!(
                precheck.stdout.contains(word),
                "{word}: {}",
                precheck.stdout
            );
        }
        let migrate = lab.run(&["migrate"]);
        assert_eq!(migrate.code, 2, "{}", migrate.stderr);
        assert!(migrate.stderr.contains(&looks), "{}", migrate.stderr);
        let sql = format!("SHOW TABLES FROM {}", lab.database);
        let made = texts(&mut lab.target().await, &sql).await;
        assert!(made.is_empty(), "nothing was begun: {made:?}");
    }
}
