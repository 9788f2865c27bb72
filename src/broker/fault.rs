//! What goes wrong with Kafka, and what it means.

use crate::error::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A trouble between rowproof and a broker that no waiting mends: something must be changed, in
/// the task file, in a file that it names, or at the broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Trouble {
    /// The broker does not accept the user or the password.
    Password,
    /// The broker does not offer the mechanism.
    Mechanism,
    /// The broker's certificate could not be verified.
    Certificate,
    /// The broker does not accept rowproof's certificate, or the lack of one.
    Identity,
    /// One of the two speaks TLS and the other does not.
    Protocol,
    /// TLS could not be agreed on otherwise.
    Tls,
}

impl Trouble {
    /// Recognises a trouble by librdkafka's code and by fixed words of its texts (librdkafka 2.12:
    /// rdkafka_broker.c, rdkafka_request.c, rdkafka_ssl.c; OpenSSL's names of alerts).
    pub(super) fn of(error: &KafkaError, reason: &str) -> Option<Trouble> {
        let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
        if let Some(trouble) = Trouble::of_text(reason) {
            return Some(trouble);
        }
        match error.rdkafka_error_code()? {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                Some(Trouble::Password)
            }
            RDKafkaErrorCode::SSL if says(&["certificate verify failed"]) => {
                Some(Trouble::Certificate)
            }
            RDKafkaErrorCode::SSL if says(&["unexpected message"]) => Some(Trouble::Identity),
            RDKafkaErrorCode::SSL => Some(Trouble::Tls),
            _ => None,
        }
    }

    /// Recognises a trouble by the text alone.
    pub(super) fn of_text(reason: &str) -> Option<Trouble> {
        let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
        if says(&["mechanism handshake failed"]) {
            return Some(Trouble::Mechanism);
        }
        if says(&["alert"]) && says(&["certificate", "unknown ca"]) {
            return Some(Trouble::Identity);
        }
        // A listener that hears what it does not expect hangs up at the first words.
        let hangs_up = says(&["Disconnected"]) && says(&["state APIVERSION_QUERY", "state UP"]);
        let hints = [
            "connecting to a PLAINTEXT",
            "wrong version number",
            "packet length too long",
        ];
        (hangs_up || says(&hints)).then_some(Trouble::Protocol)
    }

    /// Says what it means and what to do.
    pub(super) fn error(self, brokers: &str) -> Error {
        let (what, advice) = match self {
            Trouble::Password => (
                "access denied: the broker does not accept the user or the password",
                "compare [feed] sasl with the user at Kafka, whose SCRAM password is kept for each \
                 mechanism by itself",
            ),
            Trouble::Mechanism => (
                "the broker does not offer the mechanism of [feed] sasl",
                "use one of the listener's sasl.enabled.mechanisms",
            ),
            Trouble::Certificate => (
                "the broker's certificate cannot be verified: no authority that is trusted has \
                 signed it, or not for this host name, or it is not valid now",
                "name the right authority by [feed] tls = { ca = ... } and use host names that the \
                 certificate holds, also in the broker's advertised.listeners; tls = { mode = \
                 \"verify-ca\" } accepts any host name",
            ),
            Trouble::Identity => (
                "the broker does not accept rowproof's own certificate, or the lack of one",
                "give one that the broker's authority signed: [feed] tls = { certificate = ..., \
                 key = ... }",
            ),
            Trouble::Protocol => (
                "the broker's listener speaks TLS or asks for a user and the task file does not \
                 say so, or the other way round",
                "give the port of the right listener in [feed] brokers, and tls and sasl as that \
                 listener wants them",
            ),
            Trouble::Tls => (
                "TLS could not be agreed on with the broker",
                "look at it with: openssl s_client -connect BROKER",
            ),
        };
        Error::new(ErrorKind::Refused, format!("Kafka ({brokers}): {what}")).advise(advice)
    }
}

/// Tells faults by which librdkafka says that a topic or one of its partitions is not there.
pub(super) fn is_absence(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// Tells faults after which librdkafka goes on by itself.
pub(super) fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::PartitionEOF
        )
    )
}

pub(super) fn failure(place: &str, error: &KafkaError) -> Error {
    let kind = if is_passing(error) {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Feed
    };
    Error::new(kind, format!("Kafka ({place}): {error}"))
        .advise("check [feed] brokers and topics in the task file, and that Kafka runs")
}

pub(super) fn no_topic(topic: &str, brokers: &str) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!("Kafka ({brokers}) has no topic {topic}"),
    )
    .advise(format!(
        "create the changefeed: cdc cli changefeed create \
         --sink-uri=\"kafka://{brokers}/{topic}?protocol=open-protocol&partition-num=4\"; a task that \
         has read the topic before must begin again with a new name"
    ))
}

pub(super) fn repartitioned(topic: &str, now: usize, before: usize) -> Error {
    let mut what =
        format!("topic {topic} has {now} partitions now and had {before} when the feed began");
    // Kafka never takes one away.
    if now < before {
        what.push_str(": it was deleted and made anew");
    }
    Error::new(ErrorKind::Feed, what).advise(
        "what was sent since is in partitions that nobody reads, or lost: begin again with a new task \
         name, and leave the number of partitions as it is",
    )
}

pub(super) fn recreated(topic: &str) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!(
            "topic {topic} was deleted and made anew: what the old one held and was not read is lost, \
             and the offsets of this task mean nothing in the new one"
        ),
    )
    .advise("begin again with a new task name")
}

pub(super) fn deleted(topic: &str) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!("topic {topic} was deleted: what it held and was not read is lost"),
    )
    .advise(
        "create a changefeed with a topic of its own and begin again with a new task name; if its \
         tables are gone for good, what was applied stays as it is",
    )
}

pub(super) fn left_out(topic: &str) -> Error {
    Error::new(
        ErrorKind::Usage,
        format!("[feed] topics does not name {topic}, which this task has read so far"),
    )
    .advise("name it again: what was sent there would be missing")
}

pub(super) fn lost_offset(
    topic: &str,
    partition: usize,
    offset: i64,
    (first, end): (i64, i64),
) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!(
            "topic {topic} partition {partition} must be read from offset {offset}, but Kafka \
             holds {first} to {end}: changes are lost"
        ),
    )
    .advise("raise the topic's retention and begin again with a new task name")
}

pub(super) fn gap(topic: &str, partition: usize, next: i64, came: i64) -> Error {
    Error::new(
        ErrorKind::Feed,
        format!(
            "topic {topic} partition {partition}: offset {came} came where {next} is next: what lies \
             between is lost, or was not written by TiCDC"
        ),
    )
    .advise(
        "the topic's cleanup.policy must be \"delete\" and nobody but TiCDC may write to it; begin \
         again with a new task name",
    )
}

pub(super) fn foreign(
    (topic, partition, offset): (&str, usize, i64),
    what: &str,
    protocol: Option<&str>,
) -> Error {
    let looks = protocol.map_or(String::new(), |of| format!(", and looks like {of}"));
    Error::new(
        ErrorKind::Feed,
        format!(
            "topic {topic} partition {partition} offset {offset}: {what}{looks}. Whether it tells of a \
             change nobody can know, so nothing behind it is applied"
        ),
    )
    .advise(
        "the topic must carry one changefeed with protocol=open-protocol and nothing else: create \
         one with a topic of its own, and begin a task that has read this one again with a new name",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: RDKafkaErrorCode, reason: &str) -> Option<Trouble> {
        Trouble::of(&KafkaError::Global(code), reason)
    }

    #[test]
    fn troubles_are_recognised_and_passing_faults_are_none() {
        let transport = RDKafkaErrorCode::BrokerTransportFailure;
        assert_eq!(of(transport, "Connection refused"), None);
        assert_eq!(
            of(
                transport,
                "Disconnected: closed (after 0ms in state APIVERSION_QUERY)"
            ),
            Some(Trouble::Protocol)
        );
        let refused = of(RDKafkaErrorCode::Authentication, "invalid credentials");
        assert_eq!(refused, Some(Trouble::Password));
        assert_eq!(
            of(
                RDKafkaErrorCode::SSL,
                "error:0A000086: certificate verify failed"
            ),
            Some(Trouble::Certificate)
        );
    }
}
