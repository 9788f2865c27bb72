//! The Kafka client: its settings, with the files as they are now, and what its troubles mean.

use super::fault::{Trouble, failure};
use super::identity::told_id;
use crate::error::{Error, ErrorKind, Result};
use crate::task::{FeedTask, Sasl, Tls, TlsMode};
use futures_util::FutureExt;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult};
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long a question to the brokers may take.
pub(super) const METADATA_TIMEOUT: Duration = Duration::from_secs(15);

/// After how long it is looked whether librdkafka has told of a trouble that no waiting mends.
const TROUBLE_LOOK: Duration = Duration::from_secs(1);

/// For how long a broker may hang up before that is taken for its answer.
const STARTING: Duration = Duration::from_secs(4);

/// How many of its events are looked at then; it repeats itself without end.
pub(super) const EVENTS_PER_LOOK: usize = 64;

/// The consumer, with an ear for what librdkafka says beside its answers: these name only that a
/// broker was not reached, not that a password is wrong.
pub(super) type Client = StreamConsumer<Ear>;

/// Keeps the last trouble that librdkafka told of, and the ids of topics.
///
/// librdkafka's own words are not kept or logged: brokers put texts of their own into them.
#[derive(Debug, Default)]
pub(super) struct Ear {
    trouble: Mutex<Option<Trouble>>,
    topic_ids: Mutex<BTreeSet<(String, String)>>,
}

impl ClientContext for Ear {
    /// A listener that wants another protocol only hangs up, which librdkafka logs and no more.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        match facility {
            "FAIL" => self.note(Trouble::of_text(text)),
            "METADATA" => self.note_id(text),
            _ => {}
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(Trouble::of(&error, reason));
    }
}

impl ConsumerContext for Ear {}

impl Ear {
    fn note(&self, trouble: Option<Trouble>) {
        if trouble.is_some() {
            *locked(&self.trouble) = trouble;
        }
    }

    fn note_id(&self, text: &str) {
        if let Some(told) = told_id(text) {
            locked(&self.topic_ids).insert(told);
        }
    }

    /// Returns the ids of topics that were told since this was asked last.
    pub(super) fn topic_ids(&self) -> BTreeSet<(String, String)> {
        std::mem::take(&mut locked(&self.topic_ids))
    }

    /// Returns the last trouble, if there was one.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        *locked(&self.trouble)
    }
}

fn locked<T>(heard: &Mutex<T>) -> MutexGuard<'_, T> {
    heard.lock().expect("nothing panics while it is held")
}

/// Makes a client with the passwords and certificates that the files hold now.
///
/// # Errors
/// If a file cannot be read, or librdkafka refuses a setting.
pub(super) fn open(task: &FeedTask) -> Result<Client> {
    config(task)?
        .create_with_context(Ear::default())
        .map_err(|error| refused(&error))
}

/// Returns the settings of a client, with the passwords and certificates that the files hold now.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn config(task: &FeedTask) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &task.brokers)
        .set("group.id", "rowproof")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An offset that Kafka no longer has is lost data: it must be loud.
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        // Bounds of what librdkafka holds for us (INV-8).
        .set("queued.max.messages.kbytes", "16384")
        // By so much one partition may run ahead of the others at a time, because the queue is full for
        // those that are asked later; what runs ahead waits, and beyond its bound on disk. A larger record
        // comes nevertheless (KIP-74).
        .set("fetch.message.max.bytes", "524288")
        // A partition whose queue is full is asked again after this time; a second, which is the default,
        // lets the others run ahead, and a reader that has emptied the queue wait.
        .set("fetch.queue.backoff.ms", "10");
    for (name, value) in &task.settings {
        config.set(name, value);
    }
    // What it says of topics tells their ids, see `identity`; nobody but `Ear` hears it.
    config
        .set("debug", "topic")
        .set_log_level(RDKafkaLogLevel::Debug);
    let tls = task.tls.as_ref().filter(|of| of.mode != TlsMode::Disabled);
    if tls.is_some() || task.sasl.is_some() {
        let protocol = match (task.sasl.is_some(), tls.is_some()) {
            (true, true) => "sasl_ssl",
            (true, false) => "sasl_plaintext",
            (false, _) => "ssl",
        };
        config.set("security.protocol", protocol);
    }
    if let Some(sasl) = &task.sasl {
        set_sasl(&mut config, sasl).map_err(|error| error.at("[feed]"))?;
    }
    if let Some(tls) = tls {
        set_tls(&mut config, tls).map_err(|error| error.at("[feed]"))?;
    }
    Ok(config)
}

fn set_sasl(config: &mut ClientConfig, sasl: &Sasl) -> Result<()> {
    config
        .set("sasl.mechanism", sasl.mechanism.name())
        .set("sasl.username", &sasl.username)
        .set("sasl.password", sasl.password()?.expose_secret());
    Ok(())
}

/// The names are those of librdkafka's CONFIGURATION.md.
fn set_tls(config: &mut ClientConfig, tls: &Tls) -> Result<()> {
    let files = tls.read()?;
    if let Some(ca) = files.ca {
        config.set("ssl.ca.pem", ca);
    }
    if let Some((certificate, key)) = files.identity {
        config
            .set("ssl.certificate.pem", certificate)
            .set("ssl.key.pem", key.expose_secret());
    }
    let verifies = matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyIdentity);
    let host = match tls.mode {
        TlsMode::VerifyIdentity => "https",
        _ => "none",
    };
    config
        .set("enable.ssl.certificate.verification", verifies.to_string())
        .set("ssl.endpoint.identification.algorithm", host);
    Ok(())
}

fn refused(error: &KafkaError) -> Error {
    // The error's own text holds the value, which may be a password (INV-7).
    let what = match error {
        KafkaError::ClientConfig(_, _, name, _) if !name.is_empty() => {
            format!("[feed] settings: librdkafka refuses {name}")
        }
        _ => "[feed]: librdkafka refuses the settings, or a certificate or key of tls".to_owned(),
    };
    Error::new(ErrorKind::Usage, what).advise("see librdkafka's list of settings")
}

/// Waits until a broker has answered.
///
/// # Errors
/// If none does, with the reason as far as librdkafka knows it.
pub(super) fn reach_brokers(client: &Client, task: &FeedTask) -> Result<()> {
    let (began, deadline) = (Instant::now(), Instant::now() + METADATA_TIMEOUT);
    loop {
        let Err(error) = client.fetch_metadata(Some(task.topic()), TROUBLE_LOOK) else {
            return Ok(());
        };
        // Nothing is assigned yet, so that no message is lost here.
        hear(client, EVENTS_PER_LOOK);
        // A broker that is being started hangs up, too.
        let is_settled = |of: &Trouble| *of != Trouble::Protocol || began.elapsed() > STARTING;
        if let Some(trouble) = client.context().trouble().filter(is_settled) {
            return Err(trouble.error(&task.brokers));
        }
        if Instant::now() >= deadline {
            return Err(failure(&task.brokers, &error));
        }
    }
}

/// Hears what librdkafka has to say, which waits in its queue until somebody looks. Messages would be
/// lost.
pub(super) fn hear(client: &Client, events: usize) {
    for _ in 0..events {
        let _ = client.recv().now_or_never();
    }
}

/// Asks once how many partitions a topic has; 0 if it does not exist.
pub(super) fn partitions_of(
    client: &Client,
    topic: &str,
    patience: Duration,
) -> KafkaResult<usize> {
    let metadata = client.fetch_metadata(Some(topic), patience)?;
    Ok(metadata
        .topics()
        .first()
        .filter(|found| found.error().is_none())
        .map_or(0, |found| found.partitions().len()))
}
