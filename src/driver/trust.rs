//! What protects the connections, for precheck: who could read along, or pose as a server.

use super::precheck::Finding;
use crate::database::{Server, Session};
use crate::error::{ErrorKind, Result};
use crate::task::{Endpoint, FeedTask, Mechanism, TlsMode};

const WHY_READABLE: &str = "whoever is between rowproof and the server can read passwords and rows";
const WHY_POSING: &str = "whoever is between rowproof and the server can pose as it, read rows and \
                          change them";

/// Says how the connections to a database are protected.
///
/// # Errors
/// If it cannot be reached.
pub(super) async fn of_database(
    side: &str,
    endpoint: &Endpoint,
    server: Server,
) -> Result<Finding> {
    if endpoint.tls_mode() != TlsMode::Preferred {
        return Ok(finding(side, endpoint.tls_mode(), is_local(&endpoint.host)));
    }
    let asking = endpoint.with_tls_mode(TlsMode::Required);
    let mode = match Session::connect(&asking, server).await {
        Ok(session) => {
            session.close().await;
            TlsMode::Preferred
        }
        Err(error) if error.kind() == ErrorKind::Refused => TlsMode::Disabled,
        Err(error) => return Err(error),
    };
    Ok(finding(side, mode, is_local(&endpoint.host)))
}

/// Says how the connections to Kafka are protected.
pub(super) fn of_feed(feed: &FeedTask) -> Finding {
    let is_local = feed.brokers.split(',').all(|broker| {
        let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host);
        is_local(host.trim())
    });
    let said_otherwise = feed.settings.contains_key("security.protocol");
    let mode = match &feed.tls {
        Some(tls) => tls.mode,
        None if said_otherwise => return Finding::ok("feed: protected as [feed.settings] says"),
        None => TlsMode::Disabled,
    };
    let sends_password = feed
        .sasl
        .as_ref()
        .is_some_and(|sasl| sasl.mechanism == Mechanism::Plain);
    if mode == TlsMode::Disabled && sends_password {
        return Finding::warning(
            "feed: PLAIN without TLS",
            "the password itself is sent, readable to whoever is in between",
            "use a listener with TLS and [feed] tls = { ca = ... }, or a SCRAM mechanism",
        );
    }
    finding("feed", mode, is_local)
}

fn finding(side: &str, mode: TlsMode, is_local: bool) -> Finding {
    let fix = format!("[{side}] tls = {{ ca = \"the authority's certificate\" }}");
    match mode {
        TlsMode::VerifyIdentity => Finding::ok(format!(
            "{side}: TLS, with the server's certificate and host name verified"
        )),
        TlsMode::Disabled if is_local => Finding::ok(format!("{side}: no TLS, on this machine")),
        TlsMode::Disabled => Finding::warning(format!("{side}: no TLS"), WHY_READABLE, fix),
        TlsMode::VerifyCa => Finding::warning(
            format!("{side}: TLS, but the host name in the certificate is not verified"),
            "any server with a certificate of the same authority can pose as this one",
            format!(
                "use a host name that the certificate holds, and take mode out of [{side}] tls"
            ),
        ),
        TlsMode::Preferred if is_local => Finding::ok(format!(
            "{side}: TLS on this machine, the server's certificate not verified"
        )),
        TlsMode::Required | TlsMode::Preferred => Finding::warning(
            format!("{side}: TLS, but the server's certificate is not verified"),
            WHY_POSING,
            fix,
        ),
    }
}

/// Tells whether a host is this machine, where nobody is in between.
fn is_local(host: &str) -> bool {
    host == "localhost" || host.starts_with("127.") || host == "::1" || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::super::precheck::Level;
    use super::*;

    #[test]
    fn what_is_relaxed_is_a_warning_except_on_this_machine() {
        let level = |mode, is_local| finding("source", mode, is_local).level;
        assert_eq!(level(TlsMode::VerifyIdentity, false), Level::Ok);
        assert_eq!(level(TlsMode::VerifyCa, true), Level::Warning);
        assert_eq!(level(TlsMode::Required, true), Level::Warning);
        assert_eq!(level(TlsMode::Preferred, true), Level::Ok);
        assert_eq!(level(TlsMode::Preferred, false), Level::Warning);
        assert_eq!(level(TlsMode::Disabled, false), Level::Warning);
        assert_eq!(level(TlsMode::Disabled, true), Level::Ok);
        assert!(is_local("127.0.0.1") && !is_local("db.example"));
    }
}
