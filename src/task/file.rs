//! The task file: TOML in which an unknown key is an error.

use super::pattern::wildcard;
use super::secret::PasswordAt;
use super::{Filter, FilterFile, PolicyFile, Route, RouteFile, Sasl, Scope, TiCdc, Tls, TlsMode};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::Zone;
use crate::schema::Choices;
use crate::throttle::{Limits, Throttle};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A task that was read and found valid.
#[derive(Clone, Debug)]
pub struct Task {
    /// The name that tells tasks on one target apart.
    pub name: String,
    /// The TiDB that is migrated.
    pub source: Endpoint,
    /// The OceanBase tenant that is written.
    pub target: Endpoint,
    /// The change feed; without one there is no incremental sync.
    pub feed: Option<FeedTask>,
    /// Which tables take part.
    pub scope: Scope,
    /// What is chosen for definitions that the target cannot take as they are.
    pub choices: Choices,
    /// The directory of the journal and of the digest key.
    pub state_dir: PathBuf,
    /// The address of the web endpoint, which is always a loopback address.
    pub listen: SocketAddr,
    /// How many connections to each side work at once.
    pub workers: usize,
    /// How much may be asked of the two databases, as the file says.
    pub limits: Limits,
    /// What holds all connections of this process to that.
    pub throttle: Throttle,
}

/// How to reach a database.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The host's name or address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The user; for OceanBase behind a proxy `user@tenant#cluster`.
    pub user: String,
    #[serde(default)]
    password_env: Option<String>,
    #[serde(default)]
    password_file: Option<PathBuf>,
    /// TLS; without this table it is used where the server offers it, and nothing is verified.
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// The change feed in Kafka.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedTask {
    /// The brokers, `host:port`, joined by commas.
    pub brokers: String,
    /// The topics of one changefeed, the default topic first; `*` stands for any characters.
    pub topics: Vec<String>,
    /// The protocol; `open-protocol` is the only one for now.
    #[serde(default = "open_protocol")]
    pub protocol: String,
    /// The user, if Kafka asks for one.
    #[serde(default)]
    pub sasl: Option<Sasl>,
    /// TLS, if it is wanted.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// The time zone of the TiCDC server, in which it writes TIMESTAMP values.
    #[serde(default, deserialize_with = "zone")]
    pub time_zone: Zone,
    /// Where TiCDC puts large messages; left out, their rows are read from the source.
    #[serde(default)]
    pub claim_check: Option<ClaimCheck>,
    /// Whether the feed is kept on disk while tables are loaded.
    #[serde(default)]
    pub spool: SpoolWhen,
    #[serde(default)]
    ticdc: Option<String>,
    #[serde(default)]
    changefeed: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    ticdc_tls: Option<Tls>,
    /// Further settings, named as librdkafka names them, for example `security.protocol`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

/// When the feed is kept on disk while tables are loaded.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum SpoolWhen {
    /// When Kafka may drop what the load needs, or does not say what it keeps.
    #[default]
    Auto,
    /// During every load.
    Always,
    /// Never: what Kafka drops is lost.
    Never,
}

/// The storage of large messages, `claim-check-storage-uri` of the changefeed. The credentials of an
/// S3 storage come from the environment, by the names that the tools of AWS use.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ClaimCheck {
    /// `file:///directory` or `s3://bucket/prefix`.
    pub url: String,
    /// The address of a store that speaks S3 but is not that of AWS.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region of an S3 storage.
    #[serde(default)]
    pub region: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskFile {
    #[serde(default = "default_name")]
    name: String,
    source: Endpoint,
    target: Endpoint,
    feed: Option<FeedTask>,
    tables: TablesFile,
    #[serde(default)]
    schema: Choices,
    #[serde(default)]
    state: StateFile,
    #[serde(default)]
    web: WebFile,
    #[serde(default)]
    load: LoadFile,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    policies: Vec<PolicyFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TablesFile {
    include: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    adopt: Vec<String>,
    #[serde(default)]
    routes: Vec<RouteFile>,
    #[serde(default)]
    filters: Vec<FilterFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    dir: PathBuf,
}

impl Default for StateFile {
    fn default() -> Self {
        StateFile {
            dir: PathBuf::from("rowproof-state"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebFile {
    listen: SocketAddr,
}

impl Default for WebFile {
    fn default() -> Self {
        WebFile {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadFile {
    workers: usize,
}

impl Default for LoadFile {
    /// Four connections keep both servers busy and leave them room for others.
    fn default() -> Self {
        LoadFile { workers: 4 }
    }
}

/// The most connections to a side that a task may ask for.
const WORKERS_MAX: usize = 64;

/// The settings of librdkafka that are secrets.
const SECRET_SETTINGS: [&str; 8] = [
    "sasl.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl_key",
    "ssl.keystore.password",
];

fn default_name() -> String {
    "rowproof".to_owned()
}

fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Zone, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn open_protocol() -> String {
    "open-protocol".to_owned()
}

impl Task {
    /// Reads a task file.
    ///
    /// # Errors
    /// If it cannot be read, holds an unknown key or a wrong value; the message names it.
    pub fn read(path: &Path) -> Result<Task> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            usage(format!(
                "cannot read the task file {}: {error}",
                path.display()
            ))
            .advise("name the file with -c task.toml; the README shows a short one")
        })?;
        Task::parse(&text).map_err(|error| error.at(path.display()))
    }

    /// Reads a task from its text.
    ///
    /// # Errors
    /// If it holds an unknown key or a wrong value; the message names it.
    pub fn parse(text: &str) -> Result<Task> {
        let file: TaskFile = toml::from_str(text).map_err(|error| {
            // The error's whole text would quote the line; a password may stand there by mistake.
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            usage(format!("line {line}: {}", without_values(error.message())))
        })?;
        file.validate()
    }

    /// Returns the time zone in which the feed writes TIMESTAMP values.
    pub fn feed_zone(&self) -> Zone {
        let zone = self.feed.as_ref().map(|feed| feed.time_zone);
        zone.unwrap_or_default()
    }
}

impl TaskFile {
    fn validate(self) -> Result<Task> {
        let simple = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(simple) {
            return Err(usage("name must be 1 to 64 letters, digits, '-' or '_'"));
        }
        if !is_loopback(self.web.listen.ip()) {
            return Err(usage(format!(
                "[web] listen = \"{}\" is not loopback",
                self.web.listen
            ))
            .advise(
                "the page shows row values and has no login yet: listen on 127.0.0.1 and \
                     reach it through an SSH tunnel",
            ));
        }
        if !(1..=WORKERS_MAX).contains(&self.load.workers) {
            return Err(usage(format!(
                "[load] workers must be from 1 to {WORKERS_MAX}"
            )));
        }
        if let Some(fault) = self.limits.fault() {
            return Err(usage(format!("[limits] {fault}")));
        }
        if let Some(feed) = &self.feed {
            feed.validate()?;
        }
        let mut policies = Vec::new();
        for file in &self.policies {
            policies.extend(file.rules()?);
        }
        Ok(Task {
            name: self.name,
            source: self.source.validate("source")?,
            target: self.target.validate("target")?,
            feed: self.feed,
            scope: self.tables.scope()?.with_policies(policies),
            choices: self.schema,
            state_dir: self.state.dir,
            listen: self.web.listen,
            workers: self.load.workers,
            throttle: Throttle::new(&self.limits),
            limits: self.limits,
        })
    }
}

impl TablesFile {
    fn scope(&self) -> Result<Scope> {
        let routes: Result<_> = self.routes.iter().map(Route::parse).collect();
        let filters: Result<_> = self.filters.iter().map(Filter::parse).collect();
        let scope = Scope::new(&self.include, &self.exclude)?;
        scope.with(routes?, filters?).with_adopted(&self.adopt)
    }
}

impl FeedTask {
    /// Returns the first topic.
    pub fn topic(&self) -> &str {
        self.topics.first().map_or("", String::as_str)
    }

    /// Returns where TiCDC can be asked about the changefeed, if the file says it.
    ///
    /// # Errors
    /// If what it says cannot be right, or a certificate cannot be read.
    pub fn ticdc(&self) -> Result<Option<TiCdc>> {
        TiCdc::of(
            self.ticdc.as_deref(),
            self.changefeed.as_deref(),
            self.namespace.as_deref(),
            self.ticdc_tls.as_ref(),
        )
    }

    /// Tells whether topics that come later may be among those that are read.
    pub fn has_pattern(&self) -> bool {
        self.topics.iter().any(|name| name.contains('*'))
    }

    /// Tells whether a topic is read; Kafka's own, which begin with two underscores, never are.
    pub fn reads(&self, topic: &str) -> bool {
        let fits = |pattern: &String| wildcard(pattern, topic);
        !topic.starts_with("__") && self.topics.iter().any(fits)
    }

    fn validate(&self) -> Result<()> {
        if self.protocol != open_protocol() {
            return Err(
                usage(format!("[feed] protocol {:?} is not known", self.protocol))
                    .advise("use open-protocol, also in the changefeed's sink URI"),
            );
        }
        if let Some(claims) = &self.claim_check {
            claims.validate()?;
        }
        let is_topic = |c: char| c.is_ascii_alphanumeric() || "._-*".contains(c);
        let is_name = |name: &String| !name.is_empty() && name.chars().all(is_topic);
        if self.topics.is_empty() || !self.topics.iter().all(is_name) {
            return Err(usage(
                "[feed] topics must name at least one topic, by letters, digits, '.', '_', '-', \
                 and '*' for any characters",
            ));
        }
        self.ticdc()?;
        for name in self.settings.keys() {
            self.validate_setting(name)?;
        }
        if let Some(sasl) = &self.sasl {
            sasl.password().map_err(|error| error.at("[feed]"))?;
        }
        if let Some(tls) = &self.tls {
            tls.read().map_err(|error| error.at("[feed]"))?;
            if tls.mode == TlsMode::Preferred {
                return Err(usage("[feed] tls: Kafka knows no mode \"preferred\"")
                    .advise("a listener of Kafka has TLS or has not: say which"));
            }
        }
        Ok(())
    }

    /// Refuses a setting that has a place of its own, and secrets: the task file is no place for
    /// them, and is shown where a password must not be.
    fn validate_setting(&self, name: &str) -> Result<()> {
        let is_secret = SECRET_SETTINGS.contains(&name);
        let is_of_sasl = self.sasl.is_some() && name.starts_with("sasl.");
        let is_of_tls = self.tls.is_some() && (name.starts_with("ssl.") || name.contains(".ssl."));
        let is_of_both = (self.sasl.is_some() || self.tls.is_some()) && name == "security.protocol";
        if !is_secret && !is_of_sasl && !is_of_tls && !is_of_both {
            return Ok(());
        }
        let what = format!("[feed.settings] must not hold {name:?}");
        Err(usage(what).advise(
            "say it by [feed] sasl = { mechanism, username, password_file } and \
             tls = { ca, certificate, key }",
        ))
    }
}

impl ClaimCheck {
    fn validate(&self) -> Result<()> {
        let in_s3 = self.url.starts_with("s3://");
        if !in_s3 && !self.url.starts_with("file:///") {
            let what = "[feed.claim_check] url must be file:///DIRECTORY or s3://BUCKET/PREFIX";
            return Err(usage(what).advise(
                "take claim-check-storage-uri of the changefeed, without its parameters; for \
                 another storage leave [feed.claim_check] out, and the rows are read from the source",
            ));
        }
        if !in_s3 && (self.endpoint.is_some() || self.region.is_some()) {
            let what = "[feed.claim_check] endpoint and region are for s3:// only";
            return Err(usage(what));
        }
        Ok(())
    }
}

impl Endpoint {
    fn validate(self, side: &str) -> Result<Self> {
        let read = || self.tls.as_ref().map_or(Ok(()), |tls| tls.read().map(drop));
        self.password()
            .and_then(|_| read())
            .map_err(|error| error.at(format!("[{side}]")))?;
        Ok(self)
    }

    /// Returns what is asked of connections.
    pub fn tls_mode(&self) -> TlsMode {
        self.tls.as_ref().map_or(TlsMode::Preferred, |tls| tls.mode)
    }

    /// Returns the same with something else asked of connections.
    #[must_use]
    pub fn with_tls_mode(&self, mode: TlsMode) -> Endpoint {
        let mut endpoint = self.clone();
        endpoint.tls.get_or_insert_default().mode = mode;
        endpoint
    }

    /// Reads the password anew, so that a changed file is seen on the next connection.
    ///
    /// # Errors
    /// If the variable is not set or the file cannot be read.
    pub fn password(&self) -> Result<Option<SecretString>> {
        PasswordAt {
            env: self.password_env.as_ref(),
            file: self.password_file.as_ref(),
        }
        .read()
    }
}

/// Cuts out the strings that were read: serde quotes a wrong value as `string "..."` (INV-7).
fn without_values(message: &str) -> String {
    match message.split_once("string \"") {
        Some((before, after)) => {
            let end = after.rfind("\", ").map_or(after.len(), |at| at + 1);
            format!("{before}a string{}", &after[end..])
        }
        None => message.to_owned(),
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.is_loopback()
}

fn usage(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::LeftOut;
    use crate::throttle::SideLimits;

    const SHORT: &str = r#"
        [source]
        host = "127.0.0.1"
        port = 4000
        user = "root"
        [target]
        host = "127.0.0.1"
        port = 2881
        user = "root@tenant#cluster"
        [tables]
        include = ["shop.*"]
    "#;

    #[test]
    fn limits_are_read_and_a_wrong_one_is_named() {
        let with = |limits: &str| Task::parse(&format!("{SHORT}\n[limits]\n{limits}\n"));
        let task = with("source = { rows_per_second = 5000, connections = 2 }").expect("valid");
        assert_eq!(task.limits.source.rows_per_second, Some(5_000));
        assert_eq!(task.limits.source.connections, Some(2));
        assert_eq!(task.limits.target, SideLimits::default());
        for (limits, word) in [
            ("target = { rows = 5000 }", "rows"),
            ("middle = { connections = 1 }", "middle"),
            ("target = { rows_per_second = 5 }", "100 or more"),
            ("target = { connections = 0 }", "target connections"),
        ] {
            let error = with(limits).expect_err("refused").to_string();
            assert!(error.contains(word), "{limits}: {error}");
        }
    }

    #[test]
    fn a_short_file_is_enough() {
        let task = Task::parse(SHORT).expect("a valid task");
        assert_eq!(task.target.user, "root@tenant#cluster");
        assert_eq!(task.listen.to_string(), "127.0.0.1:8080");
        assert!(task.feed.is_none());
    }

    #[test]
    fn choices_for_the_schema_are_read_and_unknown_ones_refused() {
        let with = |line: &str| Task::parse(&format!("{SHORT}\n[schema]\n{line}"));
        let task = with("leave_out = [\"foreign-keys\"]\ncollations = { a_ci = \"b_ci\" }");
        let choices = task.expect("a valid task").choices;
        assert!(choices.leaves_out(LeftOut::ForeignKeys) && !choices.leaves_out(LeftOut::Views));
        assert_eq!(choices.collations["a_ci"], "b_ci");
        assert!(with("leave_out = [\"rows\"]").is_err());
    }

    #[test]
    fn secrets_and_what_is_said_twice_are_refused_in_the_feed_s_settings() {
        let with = |feed: &str| {
            let feed = format!("[feed]\nbrokers = \"k:1\"\ntopics = [\"t\"]\n{feed}");
            Task::parse(&format!("{SHORT}\n{feed}"))
        };
        assert!(with("[feed.settings]\n\"security.protocol\" = \"ssl\"").is_ok());
        let secret = with("[feed.settings]\n\"sasl.password\" = \"hunter2\"").expect_err("secret");
        assert!(secret.message().contains("sasl.password"), "{secret}");
        assert!(!format!("{secret:?}").contains("hunter2"), "{secret}");
        let twice = "tls = {}\n[feed.settings]\n\"ssl.ca.location\" = \"ca.pem\"";
        assert!(with(twice).is_err());
        let unknown = with("sasl = { mechanism = \"GSSAPI\", username = \"u\" }");
        let unknown = unknown.expect_err("not built");
        assert!(unknown.message().contains("SCRAM-SHA-512"), "{unknown}");
        let bare = with("sasl = { mechanism = \"PLAIN\", username = \"u\" }").expect_err("bare");
        assert!(bare.message().contains("[feed]: sasl: neither"), "{bare}");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = Task::parse(&format!("{SHORT}\nexlude = []")).expect_err("a typing error");
        assert!(error.message().contains("exlude"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn the_dialect_of_the_feed_is_read_and_what_is_wrong_is_named() {
        let feed = "[feed]\nbrokers = \"b:9092\"\ntopics = [\"t\"]\n";
        let with = |lines: &str| Task::parse(&format!("{SHORT}\n{feed}{lines}"));
        let task = with("").expect("a valid task");
        assert_eq!(task.feed.expect("a feed").time_zone, Zone::default());
        let task = with("time_zone = \"Asia/Shanghai\"").expect("a valid task");
        let zone = task.feed.expect("a feed").time_zone;
        assert_eq!(zone.to_string(), "Asia/Shanghai");
        let error = with("time_zone = \"Middle-earth\"").expect_err("no such zone");
        assert!(error.message().contains("is no time zone"), "{error}");
        let claims = "[feed.claim_check]\nurl = \"s3://bucket/large\"\nendpoint = \"http://s:9\"";
        assert!(with(claims).is_ok());
        assert!(with("[feed.claim_check]\nurl = \"ftp://host/large\"").is_err());
        assert!(with("[feed.claim_check]\nurl = \"file:///d\"\nregion = \"eu\"").is_err());
    }

    #[test]
    fn the_page_is_not_shown_beyond_this_machine() {
        let text = format!("{SHORT}\n[web]\nlisten = \"0.0.0.0:8080\"");
        let error = Task::parse(&text).expect_err("not loopback");
        assert!(error.message().contains("not loopback"), "{error}");
    }

    #[test]
    fn inv_7_a_password_in_the_wrong_place_is_not_repeated() {
        let text = SHORT.replace("port = 4000", "port = \"hunter2\"");
        let error = Task::parse(&text).expect_err("a port is a number");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
