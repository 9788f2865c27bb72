//! A changefeed as TiCDC's API tells of it: the messages of Open Protocol name none.

use super::CommitTs;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The most characters that are kept of a word of TiCDC's.
const WORD_MAX: usize = 64;

/// The code of TiCDC's error for a changefeed that is not there.
const NOT_THERE: &str = "CDC:ErrChangeFeedNotExists";

/// What tells one changefeed from another of the same id, created later.
///
/// Neither part changes when a changefeed is paused, resumed or updated; nor when it is resumed from
/// another checkpoint (`--overwrite-checkpoint-ts`), which therefore cannot be seen.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ChangefeedIdentity {
    /// When it was created, in nanoseconds since the epoch, by the clock of TiCDC.
    pub created_ns: i64,
    /// It sends all that committed later.
    pub start_ts: CommitTs,
}

/// What a changefeed does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChangefeedState {
    /// It sends, or is about to begin.
    Normal,
    /// It has met an error and tries again by itself.
    Retrying,
    /// Somebody paused it.
    Stopped,
    /// It has met an error and gave up.
    Failed,
    /// It has come to its target timestamp.
    Finished,
    /// It is being removed.
    Removed,
    /// A word that is not known.
    Unknown,
}

impl ChangefeedState {
    fn of(word: &str) -> ChangefeedState {
        match word {
            "" | "normal" => ChangefeedState::Normal,
            "warning" | "pending" => ChangefeedState::Retrying,
            "stopped" => ChangefeedState::Stopped,
            "failed" => ChangefeedState::Failed,
            "finished" => ChangefeedState::Finished,
            "removed" => ChangefeedState::Removed,
            _ => ChangefeedState::Unknown,
        }
    }
}

impl fmt::Display for ChangefeedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChangefeedState::Normal => "is normal",
            ChangefeedState::Retrying => "meets an error again and again",
            ChangefeedState::Stopped => "is stopped",
            ChangefeedState::Failed => "has failed",
            ChangefeedState::Finished => "is finished",
            ChangefeedState::Removed => "is removed",
            ChangefeedState::Unknown => "is in a state that is not known",
        })
    }
}

/// What the API tells of a changefeed, as far as it matters here.
///
/// Its sink address may hold passwords: only the topic is taken from it (INV-7). Of its errors only the
/// code is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Changefeed {
    /// Which changefeed it is.
    pub identity: ChangefeedIdentity,
    /// All that committed up to this is in Kafka.
    pub checkpoint_ts: CommitTs,
    /// What it does.
    pub state: ChangefeedState,
    /// The code of the error that it has met.
    pub error: Option<String>,
    /// The default topic of its sink.
    pub topic: Option<String>,
    /// The protocol of its messages.
    pub protocol: Option<String>,
    /// Whether it sends tables without a key.
    pub force_replicate: Option<bool>,
    /// Whether it sends old values.
    pub old_values: Option<bool>,
}

impl Changefeed {
    /// Tells whether it speaks another protocol than the one that is read; `default` is TiCDC's other
    /// name for it.
    pub fn speaks_another_protocol(&self) -> bool {
        let is_ours = |word: &str| matches!(word, "open-protocol" | "default");
        !self.protocol.as_deref().is_none_or(is_ours)
    }
}

/// Why an answer says nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NoAnswer {
    /// TiCDC refuses, with this code if there is one.
    Refused(Option<String>),
    /// It is not what TiCDC answers.
    Malformed,
}

/// `ChangeFeedInfo` in tiflow's `cdc/api/v2/model.go` and in `api/v2/model.go` of pingcap/ticdc, where
/// all of the configuration may be missing.
#[derive(Deserialize)]
struct Info {
    create_time: String,
    start_ts: CommitTs,
    checkpoint_ts: CommitTs,
    #[serde(default)]
    state: String,
    error: Option<RunningError>,
    sink_uri: Option<String>,
    config: Option<Config>,
}

#[derive(Deserialize)]
struct RunningError {
    #[serde(default)]
    code: String,
}

#[derive(Deserialize)]
struct Config {
    force_replicate: Option<bool>,
    sink: Option<Sink>,
}

#[derive(Deserialize)]
struct Sink {
    protocol: Option<String>,
    open: Option<Open>,
}

#[derive(Deserialize)]
struct Open {
    output_old_value: Option<bool>,
}

/// `HTTPError` in tiflow's `cdc/model/http_model.go`.
#[derive(Deserialize)]
struct Refusal {
    error_code: String,
}

/// Decodes the answer to `GET /api/v2/changefeeds/{id}`; none if there is no such changefeed.
///
/// # Errors
/// If it says nothing of the changefeed.
pub fn decode_changefeed(is_success: bool, body: &[u8]) -> Result<Option<Changefeed>, NoAnswer> {
    if !is_success {
        let refusal: Option<Refusal> = serde_json::from_slice(body).ok();
        return match refusal.and_then(|of| word(&of.error_code)) {
            Some(code) if code == NOT_THERE => Ok(None),
            code => Err(NoAnswer::Refused(code)),
        };
    }
    let info: Info = serde_json::from_slice(body).map_err(|_| NoAnswer::Malformed)?;
    let created = DateTime::parse_from_rfc3339(&info.create_time);
    let created_ns = created.ok().and_then(|of| of.timestamp_nanos_opt());
    let (sink, force_replicate) = match info.config {
        Some(config) => (config.sink, config.force_replicate),
        None => (None, None),
    };
    let (protocol, open) = sink.map_or((None, None), |sink| (sink.protocol, sink.open));
    Ok(Some(Changefeed {
        identity: ChangefeedIdentity {
            created_ns: created_ns.ok_or(NoAnswer::Malformed)?,
            start_ts: info.start_ts,
        },
        checkpoint_ts: info.checkpoint_ts,
        state: ChangefeedState::of(&info.state),
        error: info.error.and_then(|error| word(&error.code)),
        topic: info.sink_uri.as_deref().and_then(topic_of),
        protocol: protocol.as_deref().and_then(word),
        force_replicate,
        old_values: open.and_then(|open| open.output_old_value),
    }))
}

/// Takes a code or a name for what it is only if nothing else can hide in it.
fn word(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":._-".contains(c);
    let is_word = (1..=WORD_MAX).contains(&text.len()) && text.chars().all(allowed);
    is_word.then(|| text.to_owned())
}

/// Returns the topic in an address such as `kafka://user:password@host:9092/topic?protocol=...`.
fn topic_of(sink_uri: &str) -> Option<String> {
    let (_, rest) = sink_uri.split_once("://")?;
    let (_, path) = rest.split(['?', '#']).next()?.split_once('/')?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (!path.is_empty() && path.chars().all(allowed)).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-sink-password";

    /// What TiCDC v8.5 answers, shortened.
    fn answer() -> serde_json::Value {
        serde_json::json!({
            "upstream_id": 7, "namespace": "default", "id": "shop",
            "sink_uri": format!("kafka://u:{CANARY}@h:9092/shop?protocol=open-protocol&sasl-password={CANARY}"),
            "create_time": "2026-11-23T22:37:04.123456789+08:00",
            "start_ts": 470672585483091968_u64, "resolved_ts": 470672585483091990_u64,
            "checkpoint_ts": 470672585483091980_u64, "checkpoint_time": "2026-11-23 22:37:04.847",
            "state": "warning",
            "error": {"addr": "h", "code": "CDC:ErrKafkaSend", "message": CANARY},
            "config": {
                "force_replicate": true, "case_sensitive": false,
                "sink": {"protocol": "open-protocol", "open": {"output_old_value": false}}
            }
        })
    }

    fn decoded(answer: &serde_json::Value) -> Result<Option<Changefeed>, NoAnswer> {
        decode_changefeed(true, answer.to_string().as_bytes())
    }

    #[test]
    fn inv_7_an_answer_is_read_and_nothing_secret_kept_of_it() {
        let found = decoded(&answer()).expect("an answer").expect("found");
        assert_eq!(found.identity.start_ts, 470_672_585_483_091_968);
        assert_eq!(found.identity.created_ns % 1_000_000_000, 123_456_789);
        assert_eq!(found.checkpoint_ts, 470_672_585_483_091_980);
        assert_eq!(found.state, ChangefeedState::Retrying);
        assert_eq!(found.error.as_deref(), Some("CDC:ErrKafkaSend"));
        assert_eq!(found.topic.as_deref(), Some("shop"));
        assert_eq!(found.force_replicate, Some(true));
        assert_eq!(found.old_values, Some(false));
        assert!(!found.speaks_another_protocol());
        assert!(!format!("{found:?}").contains(CANARY));
    }

    #[test]
    fn a_time_is_the_same_in_any_zone() {
        let mut other = answer();
        other["create_time"] = "2026-11-23T14:37:04.123456789Z".into();
        assert_eq!(decoded(&other), decoded(&answer()));
    }

    #[test]
    fn what_is_left_out_is_not_known() {
        let mut short = answer();
        for key in ["config", "error", "sink_uri", "state"] {
            short.as_object_mut().expect("an object").remove(key);
        }
        let found = decoded(&short).expect("an answer").expect("found");
        assert_eq!(found.state, ChangefeedState::Normal);
        assert_eq!((found.force_replicate, found.old_values), (None, None));
        assert_eq!((&found.topic, &found.error), (&None, &None));
        assert!(!found.speaks_another_protocol());
    }

    #[test]
    fn each_state_has_its_word() {
        for (word, state) in [
            ("normal", ChangefeedState::Normal),
            ("pending", ChangefeedState::Retrying),
            ("stopped", ChangefeedState::Stopped),
            ("failed", ChangefeedState::Failed),
            ("finished", ChangefeedState::Finished),
            ("removed", ChangefeedState::Removed),
            (CANARY, ChangefeedState::Unknown),
        ] {
            let mut one = answer();
            one["state"] = word.into();
            let found = decoded(&one).expect("an answer").expect("found");
            assert_eq!(found.state, state);
            assert!(!found.state.to_string().contains(CANARY));
        }
    }

    #[test]
    fn a_changefeed_that_is_not_there_is_told_from_a_server_that_cannot_say() {
        let refusal = |code: &str| {
            let body = serde_json::json!({"error_msg": CANARY, "error_code": code});
            decode_changefeed(false, body.to_string().as_bytes())
        };
        assert_eq!(refusal("CDC:ErrChangeFeedNotExists"), Ok(None));
        let not_ready = NoAnswer::Refused(Some("CDC:ErrServerIsNotReady".to_owned()));
        assert_eq!(refusal("CDC:ErrServerIsNotReady"), Err(not_ready));
        assert_eq!(refusal("a secret = 1"), Err(NoAnswer::Refused(None)));
        let proxy = decode_changefeed(false, b"<html>502</html>");
        assert_eq!(proxy, Err(NoAnswer::Refused(None)));
    }

    #[test]
    fn what_ticdc_does_not_answer_is_refused_and_not_guessed() {
        for body in [
            &b""[..],
            b"null",
            b"[]",
            b"{}",
            b"<html></html>",
            b"\xff\xfe",
        ] {
            assert_eq!(decode_changefeed(true, body), Err(NoAnswer::Malformed));
        }
        for (key, value) in [
            ("create_time", serde_json::json!("yesterday")),
            ("create_time", serde_json::json!("9999-12-31T00:00:00Z")),
            ("start_ts", serde_json::json!(-1)),
            ("start_ts", serde_json::json!("1")),
            ("checkpoint_ts", serde_json::json!(1.5)),
            ("config", serde_json::json!([1])),
        ] {
            let mut broken = answer();
            broken[key] = value;
            assert_eq!(decoded(&broken), Err(NoAnswer::Malformed), "{key}");
        }
        let mut without = answer();
        without
            .as_object_mut()
            .expect("an object")
            .remove("start_ts");
        assert_eq!(decoded(&without), Err(NoAnswer::Malformed));
    }

    #[test]
    fn only_the_topic_is_taken_from_a_sink_address() {
        for (uri, topic) in [
            ("kafka://h:9092/shop?a=b", Some("shop")),
            ("kafka://h:9092,i:9092/shop.eu_1-x", Some("shop.eu_1-x")),
            ("kafka+ssl://u:p@h/shop#x", Some("shop")),
            ("kafka://h:9092/", None),
            ("kafka://h:9092", None),
            ("kafka://h/a/b", None),
            ("kafka://h?x=/canary", None),
            ("shop", None),
        ] {
            assert_eq!(topic_of(uri).as_deref(), topic, "{uri}");
        }
    }

    #[test]
    fn another_protocol_is_seen() {
        let mut other = answer();
        other["config"]["sink"]["protocol"] = "canal-json".into();
        let found = decoded(&other).expect("an answer").expect("found");
        assert!(found.speaks_another_protocol());
    }
}
