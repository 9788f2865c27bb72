//! TLS and SASL: who can be trusted, what is said when somebody cannot, and secrets that change.

use crate::lab::{Lab, PASSWORD, USER, run, texts, wait_until};
use crate::plain_sql::assert_same_rows;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// The password of the test's user in Kafka, which must never be seen anywhere.
const KAFKA_PASSWORD: &str = "canary-kafka-7731";

/// What passwords are changed to.
const NEW_PASSWORD: &str = "canary-changed-4242";

/// A task file whose connections are all protected, with its secrets in files.
struct Secured {
    lab: Lab,
    user: String,
}

impl Secured {
    async fn new(name: &str) -> Secured {
        let lab = Lab::new(name).await;
        let secured = Secured {
            lab,
            user: USER.to_owned(),
        };
        secured.write("database", PASSWORD);
        secured.write("kafka", KAFKA_PASSWORD);
        secured
            .lab
            .kafka_user(&secured.lab.database, KAFKA_PASSWORD);
        secured
    }

    fn path(&self, secret: &str) -> PathBuf {
        self.lab.dir.join(format!("{secret}.password"))
    }

    fn write(&self, secret: &str, value: &str) {
        std::fs::write(self.path(secret), format!("{value}\n")).expect("a file of a password");
    }

    /// The source and the feed are protected; the lab's OceanBase offers no TLS.
    fn text(&self) -> String {
        let tls = self.tls();
        let sasl = format!(
            "sasl = {{ mechanism = \"SCRAM-SHA-512\", username = \"{}\", password_file = {:?} }}",
            self.lab.database,
            self.path("kafka")
        );
        let brokers = format!("127.0.0.1:{}", self.lab.value("KAFKA_SASL_PORT"));
        self.lab
            .task_text()
            .replace(
                "password_env = \"ROWPROOF_TEST_PASSWORD\"",
                &format!("password_file = {:?}", self.path("database")),
            )
            .replace(&format!("\"{USER}\""), &format!("\"{}\"", self.user))
            .replace(&format!("127.0.0.1:{}", self.lab.kafka_port()), &brokers)
            .replace("[source]", &format!("[source]\n{tls}"))
            .replace("[feed]", &format!("[feed]\n{sasl}\n{tls}"))
    }

    fn tls(&self) -> String {
        format!("tls = {{ ca = {:?} }}", self.lab.tls_file("ca.pem"))
    }

    /// The same with TLS to the target, which is then the only server of the lab that has it: what
    /// happens before anything of OceanBase is asked is the same with TiDB.
    fn text_with_target_on_tidb(&self) -> String {
        let port = |port| format!("port = {port}");
        self.text()
            .replace("[target]", &format!("[target]\n{}", self.tls()))
            .replace(&port(self.lab.target_port()), &port(self.lab.source_port()))
    }

    /// Runs precheck with a task file, asserts that no secret is shown, and returns the exit code
    /// and everything it said.
    fn precheck(&self, text: &str) -> (i32, String) {
        self.lab.write_task(text);
        let finished = self.lab.run(&["precheck"]);
        let said = format!("{}{}", finished.stdout, finished.stderr);
        for secret in [
            PASSWORD,
            KAFKA_PASSWORD,
            self.lab.value("KAFKA_PLAIN_PASSWORD"),
        ] {
            assert!(!said.contains(secret), "{said}");
        }
        (finished.code, said)
    }

    fn assert_fails(&self, text: &str, code: i32, words: &str) {
        let (found, said) = self.precheck(text);
        assert!(said.contains(words), "{words}: {said}");
        assert_eq!(found, code, "{words}: {said}");
        // A wrong word in the task file is answered with the words that are known instead.
        let advises = said.contains("to do:") || said.contains("fix:");
        assert!(advises || said.contains("expected one of"), "{said}");
    }
}

async fn table_with_rows(lab: &Lab) {
    let mut source = lab.source().await;
    let table = format!("{}.t", lab.database);
    for sql in [
        format!("CREATE TABLE {table} (a INT PRIMARY KEY, b VARCHAR(20))"),
        format!("INSERT INTO {table} VALUES (1, 'one'), (2, 'two')"),
    ] {
        run(&mut source, &sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_over_tls_and_scram_ends_equal() {
    let secured = Secured::new("tls").await;
    let lab = &secured.lab;
    table_with_rows(lab).await;
    lab.create_feed();
    let text = secured.text();
    let (code, said) = secured.precheck(&text);
    assert_eq!(code, 0, "{said}");
    assert_eq!(said.matches("host name verified").count(), 2, "{said}");
    let migrate = lab.run(&["migrate", "--until", "caught-up"]);
    assert_eq!(migrate.code, 0, "{}", migrate.stderr);
    assert_same_rows(lab).await;

    // The same with the password itself, and with a certificate instead of a password.
    let plain = lab.dir.join("plain.password");
    std::fs::write(&plain, lab.value("KAFKA_PLAIN_PASSWORD")).expect("a file");
    let user = format!("username = \"{}\"", lab.database);
    let plain = text
        .replace("SCRAM-SHA-512", "PLAIN")
        .replace(
            &user,
            &format!("username = \"{}\"", lab.value("KAFKA_PLAIN_USER")),
        )
        .replace("kafka.password", "plain.password");
    let (code, said) = secured.precheck(&plain);
    assert_eq!(code, 0, "{said}");
    let (code, said) = secured.precheck(&by_certificate(&secured, &text));
    assert_eq!(code, 0, "{said}");
}

/// Turns a task file to the listener that asks for a certificate.
fn by_certificate(secured: &Secured, text: &str) -> String {
    let lab = &secured.lab;
    let identity = format!(
        ", certificate = {:?}, key = {:?} }}",
        lab.tls_file("client.pem"),
        lab.tls_file("client.key")
    );
    let (databases, feed) = text.split_once("[feed]").expect("a feed");
    let feed: String = feed
        .lines()
        .filter(|line| !line.starts_with("sasl"))
        .map(|line| match line.starts_with("tls") {
            true => line.replace(" }", &identity) + "\n",
            false => line.to_owned() + "\n",
        })
        .collect();
    let feed = feed.replace(lab.value("KAFKA_SASL_PORT"), lab.value("KAFKA_TLS_PORT"));
    format!("{databases}[feed]{feed}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_database_that_cannot_be_trusted_is_one_clear_error() {
    let secured = Secured::new("distrust").await;
    let good = secured.text();
    let on_tidb = secured.text_with_target_on_tidb();
    let authority = |name: &str| format!("ca = {:?}", secured.lab.tls_file(name));
    let on = |side: &str, from: &str, to: &str| {
        let (before, after) = on_tidb.split_once(side).expect("a side");
        format!("{before}{side}{}", after.replacen(from, to, 1))
    };
    for side in ["[source]", "[target]"] {
        let other = on(side, &authority("ca.pem"), &authority("other-ca.pem"));
        secured.assert_fails(&other, 2, "no authority that the task file trusts");
        let host = on(side, "\"127.0.0.1\"", "\"localhost\"");
        secured.assert_fails(&host, 2, "for another host name");
        let missing = on(side, &authority("ca.pem"), "ca = \"/nowhere/ca.pem\"");
        secured.assert_fails(&missing, 64, "tls.ca: cannot read /nowhere/ca.pem");
    }
    let offered = good.replace("[target]", &format!("[target]\n{}", secured.tls()));
    secured.assert_fails(&offered, 2, "OceanBase at");
    secured.assert_fails(&offered, 2, "the server offers no TLS");
    let relaxed = good.replacen("\"127.0.0.1\"", "\"localhost\"", 1).replacen(
        &authority("ca.pem"),
        &format!("mode = \"verify-ca\", {}", authority("ca.pem")),
        1,
    );
    let (_, said) = secured.precheck(&relaxed);
    let warned = "the host name in the certificate is not verified";
    assert!(said.contains(warned), "{said}");
    let missing = good.replace("database.password", "no-such.password");
    secured.assert_fails(&missing, 64, "password_file: cannot read");
    secured.write("wrong", "something else");
    let wrong = good.replace("database.password", "wrong.password");
    secured.assert_fails(&wrong, 2, "access denied");

    let between = without_tls(secured.lab.source_port()).await;
    let port = format!("port = {}", secured.lab.source_port());
    let stripped = on("[source]", &port, &format!("port = {between}"));
    secured.assert_fails(&stripped, 2, "the server offers no TLS");
}

/// Stands between rowproof and a server and takes the offer of TLS out of the server's greeting, as
/// somebody would who wants to read along.
async fn without_tls(server: u16) -> u16 {
    const CLIENT_SSL: u16 = 0x800;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                let mut packet = vec![0; 4];
                server.read_exact(&mut packet).await?;
                let length = u32::from_le_bytes([packet[0], packet[1], packet[2], 0]) as usize;
                packet.resize(4 + length, 0);
                server.read_exact(&mut packet[4..]).await?;
                // Protocol version, version up to a zero byte, connection id, 8 bytes of salt, 1 of
                // filling, then the lower capabilities (MySQL: Protocol::HandshakeV10).
                let version = packet[5..].iter().position(|byte| *byte == 0);
                let at = 5 + version.expect("a version") + 1 + 4 + 8 + 1;
                let flags = u16::from_le_bytes([packet[at], packet[at + 1]]) & !CLIENT_SSL;
                packet[at..at + 2].copy_from_slice(&flags.to_le_bytes());
                client.write_all(&packet).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broker_that_cannot_be_trusted_is_one_clear_error() {
    let secured = Secured::new("brokers").await;
    let lab = &secured.lab;
    table_with_rows(lab).await;
    lab.create_feed();
    let good = secured.text();
    let (databases, feed) = good.split_once("[feed]").expect("a feed");
    let with = |from: &str, to: &str| format!("{databases}[feed]{}", feed.replacen(from, to, 1));
    let sasl_port = lab.value("KAFKA_SASL_PORT");
    let plain_port = lab.kafka_port().to_string();
    secured.write("wrong", "something else");
    let cases = [
        (with("/ca.pem", "/other-ca.pem"), 2, "cannot be verified"),
        (with("\"127.0.0.1", "\"localhost"), 2, "cannot be verified"),
        (with("kafka.password", "wrong.password"), 2, "access denied"),
        (
            with("SCRAM-SHA-512", "SCRAM-SHA-256"),
            2,
            "does not offer the mechanism",
        ),
        (with("SCRAM-SHA-512", "OAUTHBEARER"), 64, "OAUTHBEARER"),
        (with("password_file", "password"), 64, "password"),
        (with("/ca.pem", "/no-ca.pem"), 64, "tls.ca: cannot read"),
        (with(sasl_port, &plain_port), 2, "the other way round"),
        (with("tls = { ca", "# { ca"), 2, "the other way round"),
        (with("sasl = {", "# {"), 2, "the other way round"),
        (
            with(sasl_port, lab.value("KAFKA_TLS_PORT")),
            2,
            "rowproof's own certificate",
        ),
    ];
    for (text, code, words) in cases {
        secured.assert_fails(&text, code, words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_that_change_while_it_follows_are_read_anew() {
    let mut secured = Secured::new("rotate").await;
    secured.user = format!("changing_{}", std::process::id());
    let user = secured.user.clone();
    let database = secured.lab.database.clone();
    table_with_rows(&secured.lab).await;
    let (mut source, mut target) = (secured.lab.source().await, secured.lab.target().await);
    let create = format!("CREATE USER {user} IDENTIFIED BY '{PASSWORD}'");
    for sql in [&create, &format!("GRANT SELECT ON {database}.* TO {user}")] {
        run(&mut source, sql).await;
    }
    let grant = |scope: &str| format!("GRANT ALL ON {scope}.* TO {user}");
    for sql in [&create, &grant("rowproof"), &grant(&database)] {
        run(&mut target, sql).await;
    }
    secured.lab.create_feed();
    secured.lab.write_task(&secured.text());
    let mut migrating = secured.lab.start_migrate();
    wait_until("it follows", Duration::from_secs(90), || {
        migrating.log().contains("follow").then_some(())
    });

    // As somebody does it who changes the password first and the file a moment later.
    secured.lab.kafka_user(&database, NEW_PASSWORD);
    for connection in [&mut source, &mut target] {
        let change = format!("ALTER USER {user} IDENTIFIED BY '{NEW_PASSWORD}'");
        run(connection, &change).await;
        let list = format!("SELECT id FROM information_schema.processlist WHERE user = '{user}'");
        for row in texts(connection, &list).await {
            let id = row[0].clone().expect("a number");
            let _ = crate::lab::try_run(connection, &format!("KILL {id}")).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    secured.write("database", NEW_PASSWORD);
    secured.write("kafka", NEW_PASSWORD);
    // Kafka asks for the password again within six seconds.
    wait_until("Kafka shuts it out", Duration::from_secs(60), || {
        migrating.log().contains("connecting anew").then_some(())
    });
    let insert = format!("INSERT INTO {database}.t VALUES (3, 'three')");
    run(&mut source, &insert).await;
    wait_until("it goes on", Duration::from_secs(90), || {
        if let Some(code) = migrating.ended() {
            panic!("it ended with {code}:\n{}", migrating.log());
        }
        let check = secured.lab.run(&["check", "--json"]);
        (check.code == 0 && check.stdout.contains('3')).then_some(())
    });
    assert_same_rows(&secured.lab).await;
    assert_eq!(migrating.stop(), 0, "{}", migrating.log());
    let log = migrating.log();
    for secret in [PASSWORD, NEW_PASSWORD, KAFKA_PASSWORD] {
        assert!(!log.contains(secret), "{log}");
    }
}
